"""Item embeddings as an index for nearest neighbours, of a library that servers use."""

from __future__ import annotations

from typing import Any

import numpy as np

from baco.errors import UserError
from baco.optional import optional_package


def faiss_index(embeddings: Any) -> Any:
    """A FAISS index over (n, dim) embeddings, an array or tensor, that finds the largest dot products exactly.

    `index.search(users, k)` gives (scores, item positions). Further indices of FAISS, smaller or faster, are made of
    the same embeddings.

    Raises
    ------
    UserError
        When FAISS is not installed, or the embeddings are no finite matrix.
    """
    faiss = optional_package("faiss", "an index", "faiss-cpu")
    rows = np.ascontiguousarray(embeddings, np.float32)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise UserError(f"an index needs a matrix of finite numbers; got the shape {rows.shape}")
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return index
