"""Embeddings composed of few parameters by the digits of an id."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from baco.embedding.codes import SIDES
from baco.embedding.cost import FLOAT_BYTES, Ledger
from baco.embedding.rules import AffineHash
from baco.embedding.tables import EmbeddingTables
from baco.files import from_json_array, json_array

ORDERS = ("permuted", "id")
ORDER_BYTES = 16  # of one side: a multiplier and an offset


def order_of_ids(order: str, num_ids: int, rng: np.random.Generator) -> AffineHash:
    """The positions of ids whose digits are taken: a random permutation, or the ids themselves."""
    if order == "permuted":
        return AffineHash.draw(1, num_ids, rng)
    return AffineHash(np.array([1]), np.array([0]))


class ComposedSide(nn.Module):
    """The ids of one side, whose embeddings are composed of the parameters `factors`, each (rows, width).

    Parameters
    ----------
    order : AffineHash
        One hash, from the ids to their positions.
    num_ids : int
    """

    codes_per_id: ClassVar[int]  # as far as they are paid for
    codes: Tensor  # a buffer that a subclass registers: what an id is composed of

    def __init__(self, order: AffineHash, num_ids: int):
        super().__init__()
        self.order = order
        self.num_ids = num_ids
        self.factors = nn.ParameterList()

    def positions(self) -> np.ndarray:
        """(n,) int64, a permutation of the ids."""
        return self.order.evaluate(self.num_ids, self.num_ids).index[:, 0].astype(np.int64)

    @property
    def num_floats(self) -> int:
        return sum(factor.numel() for factor in self.factors)

    def settings(self) -> dict:
        """Plain values from which, with the order and the number of ids, the constructor makes the same again."""
        raise NotImplementedError

    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        """Draw first values with which the entries of embeddings have the standard deviation `std`."""
        raise NotImplementedError


class ComposedTables(EmbeddingTables):
    """A composed side for users and one for items."""

    Side: ClassVar[type[ComposedSide]]

    def __init__(self, users: ComposedSide, items: ComposedSide):
        super().__init__()
        self.users, self.items = users, items

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.users(), self.items()

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        self.users.reset_parameters(std, generator)
        self.items.reset_parameters(std, generator)

    def ledger(self) -> Ledger:
        floats = self.users.num_floats + self.items.num_floats
        extra_codes = (self.Side.codes_per_id - 1) * (self.users.num_ids + self.items.num_ids)
        return Ledger(
            parameters=floats + extra_codes,
            bytes=FLOAT_BYTES * floats + 2 * ORDER_BYTES,
            training_floats=floats,
            extra_codes=extra_codes,
        )

    def quantizable(self) -> dict[str, nn.Parameter]:
        return {
            f"{side}/factor{number}": factor
            for side in SIDES
            for number, factor in enumerate(getattr(self, side).factors, 1)
        }

    def export(self) -> dict[str, np.ndarray]:
        arrays = {name: factor.detach().cpu().numpy() for name, factor in self.quantizable().items()}
        header = {}
        for name in SIDES:
            side: ComposedSide = getattr(self, name)
            header[name] = {"num_ids": side.num_ids} | side.settings()
            arrays |= {f"{name}.{key}": array for key, array in side.order.arrays().items()}
        return {"header": json_array(header)} | arrays

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> ComposedTables:
        """The tables whose `export` these arrays are."""
        sides = []
        for name, settings in from_json_array(arrays["header"]).items():
            order = AffineHash(arrays[f"{name}.multipliers"], arrays[f"{name}.offsets"])
            sides.append(cls.Side(order, **settings))
        tables = cls(*sides)
        with torch.no_grad():
            for name, factor in tables.quantizable().items():
                factor.copy_(torch.as_tensor(arrays[name]))
        return tables
