"""baco: embedding-table compression by balanced co-clustering, and a fair comparison with other methods.

The experiment reads as the packages do. A dataset (`baco.data`) and a budget go into a compressor (`baco.compressors`,
`baco.coclustering`, the `baselines` package). It returns embedding tables (`baco.embedding`). A backbone
(`baco.backbones`) is trained on them (`baco.training`) and ranked (`baco.evaluation`). The run is recorded
(`baco.runs`), and records become tables and figures (`baco.results`).

`baco.compress` and `baco.compress_factors` compress a model of one's own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from baco.serving.compress import compress, compress_factors

__version__ = "0.1.0"
__all__ = ["compress", "compress_factors"]

if "OMP_WAIT_POLICY" not in os.environ:
    # How long threads of libgomp that wait hold their core. It waits for milliseconds by default, and a training takes
    # fifty times as long while another process has one of two cores. torch and numba read this when they are loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'baco' has no attribute '{name}'")
    from baco.serving import compress  # only now: a server that reads tables has no torch

    return getattr(compress, name)
