"""Where a dataset's configuration leads: its `source` names one of these."""

from __future__ import annotations

from baco.data.logs import Log
from baco.data.release import Release
from baco.data.synthetic import Synthetic

SOURCES = {"release": Release, "synthetic": Synthetic, "log": Log}
