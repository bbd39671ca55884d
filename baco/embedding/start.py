"""First values of embedding tables: at random, or near singular vectors of the interactions."""

from __future__ import annotations

from baco.embedding.tables import EmbeddingTables
from baco.errors import unknown
from baco.graph import Biadjacency
from baco.numerics.spectral import spectral_factors
from baco.rng import stream, torch_stream

STARTS = ("normal", "spectral")
STRENGTH = 3.0  # of the factors in the first values, in deviations of the random part; validation is flat from 2 to 10


def first_values(tables: EmbeddingTables, train: Biadjacency, std: float, start: str, seed: int) -> None:
    """Give tables, which lie on the CPU, the values that training begins with.

    Both starts draw every entry at random. The spectral one adds to each row the mean of its ids' `spectral_factors`,
    so that ids that are close in the graph start close together; docs/baco_plus.md has what that gives.

    Parameters
    ----------
    std : float
        Standard deviation of the random part of a row's entries.
    start : str
        'normal' or 'spectral'.

    Raises
    ------
    UserError
        For another start.
    """
    if start not in STARTS:
        raise unknown("start", start, STARTS)
    tables.reset_parameters(std, torch_stream(seed, "init"))
    if start == "spectral":
        tables.start_near(lambda dim: spectral_factors(train, dim, stream(seed, "init")), STRENGTH * std)
