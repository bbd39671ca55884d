"""Where a dataset's configuration leads: its `source` names one of these."""

from __future__ import annotations

from baco.data.logs import Log
from baco.data.release import Release
from baco.data.synthetic import Synthetic

Source = Log | Release | Synthetic

SOURCES: dict[str, type[Source]] = {"release": Release, "synthetic": Synthetic, "log": Log}


def source_name(dataset: Source) -> str:
    """The `source` of a dataset's configuration."""
    return next(name for name, cls in SOURCES.items() if isinstance(dataset, cls))
