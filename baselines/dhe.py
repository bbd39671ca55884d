"""Deep hash embedding: a network computes embeddings from many hashes of an id."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, mish

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.embedding.cost import FLOAT_BYTES, Ledger
from baco.embedding.tables import EmbeddingTables
from baco.errors import UserError
from baco.files import from_json_array, json_array
from baco.graph import Biadjacency
from baco.registry import register_method, register_tables
from baco.validation import Validated, setting

PRIME = 2**31 - 1
BINS = 10**6  # different values of one hash, as published
HASH_BYTES = 16  # of one hash: a multiplier and an offset
EPSILON = 1e-5  # what a variance has at least, as torch has it
MISH_RMS = 0.6726  # root mean square of Mish of a standard normal number


@register_method("dhe")
class DeepHash(Compressor):
    """Deep hash embedding, DHE (Kang et al., KDD 2021, arXiv 2010.10784).

    An id is encoded by k universal hashes, ((a x + b) mod P) mod 10^6, each scaled to [-1, 1]. From that a network with
    L hidden layers of equal width computes the embedding; a hidden layer is a linear map, batch normalisation and Mish.
    Nothing is stored for an id. Parameters: k w + (L - 1) w^2 + dim w, plus 2 L w of the normalisation and dim of the
    last layer's offset, for each side; hashes are computed and not counted.

    Widths fill the budget, of which each side has a part in proportion to its number of ids; those of a side differ by
    one at most. A step computes all ids, with about six operations for each of them and each parameter of its side.
    Normalisation therefore takes the mean and the variance of all ids, and running ones are not needed; a server stores
    them, so that they count as bytes, but they are no parameters.

    Deviations: k is 128 (published: 1024), which leaves more of a small budget to the layers, and less to compute; both
    sides have the same hashes, each has a network of its own; linear maps before a normalisation have no offsets, which
    it would take away; weights start normal, the last ones so that entries have the deviation that is wanted.
    """

    label = "DHE"

    @dataclass(frozen=True)
    class Config(Validated):
        """The shape of the network.

        num_hashes : k, numbers that encode an id.
        num_layers : L, hidden layers.
        """

        num_hashes: int = setting(128, at_least=1)
        num_layers: int = setting(5, at_least=1)

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> DeepHashTables:
        config, rest = self.config, budget.limit
        if budget.unit == "bytes":
            rest -= HASH_BYTES * config.num_hashes
        sizes = train.num_users, train.num_items
        widths = []
        for size, share in zip(sizes, (rest * train.num_users // train.num_nodes, rest), strict=True):
            found = widths_within(min(share, rest), budget.unit, config.num_hashes, config.num_layers, budget.dim)
            if found is None:
                raise UserError(
                    f"the budget of {budget.limit:,} {budget.unit} leaves dhe {max(0, min(share, rest)):,} for "
                    f"{size:,} ids, too little for a network; raise the budget or lower num_hashes"
                )
            rest -= cost_of(found, budget.unit, config.num_hashes, budget.dim)
            widths.append(found)
        return DeepHashTables(rng.integers(1, PRIME, size=(2, config.num_hashes)), sizes, widths, budget.dim)


class HiddenLayer(nn.Module):
    """A linear map, normalised over all ids of a side, scaled and shifted again, then Mish."""

    mean: Tensor
    variance: Tensor

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(inputs, width))
        self.gain = nn.Parameter(torch.ones(width))
        self.offset = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))  # of the ids that were computed last
        self.register_buffer("variance", torch.ones(width))

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.matrix.copy_(torch.randn(self.matrix.shape, generator=generator) / math.sqrt(len(self.matrix)))
        self.gain.fill_(1)
        self.offset.zero_()

    def forward(self, inputs: Tensor, fixed: bool) -> Tensor:
        """(n, width); `fixed`: with the mean and the variance as they are."""
        mapped = inputs @ self.matrix
        mean, variance = self.mean, self.variance
        if not fixed:
            variance, mean = torch.var_mean(mapped, 0, correction=0)
            self.mean.copy_(mean.detach())
            self.variance.copy_(variance.detach())
        return mish((mapped - mean) * torch.rsqrt(variance + EPSILON) * self.gain + self.offset)


class DeepHashSide(nn.Module):
    """The network of one side, and the encoded ids, (n, k) float32 in [-1, 1], which are in no state."""

    encoded: Tensor

    def __init__(self, coefficients: np.ndarray, num_ids: int, widths: list[int], dim: int):
        super().__init__()
        multipliers, offsets = coefficients
        hashed = (np.arange(num_ids)[:, None] * multipliers + offsets) % PRIME % BINS
        encoded = torch.as_tensor((hashed * (2 / (BINS - 1)) - 1).astype(np.float32))
        self.register_buffer("encoded", encoded, persistent=False)
        inputs = [encoded.shape[1], *widths[:-1]]
        self.hidden = nn.ModuleList(HiddenLayer(*shape) for shape in zip(inputs, widths, strict=True))
        self.matrix = nn.Parameter(torch.zeros(widths[-1], dim))
        self.offset = nn.Parameter(torch.zeros(dim))

    def forward(self, fixed: bool) -> Tensor:
        """(n, dim)."""
        values = self.encoded
        for layer in self.hidden:
            values = layer(values, fixed)
        return torch.addmm(self.offset, values, self.matrix)

    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        for layer in cast(Iterable[HiddenLayer], self.hidden):
            layer.reset_parameters(generator)
        scale = std / (MISH_RMS * math.sqrt(len(self.matrix)))
        self.matrix.copy_(torch.randn(self.matrix.shape, generator=generator) * scale)
        self.offset.zero_()


@register_tables("DeepHashTables")
class DeepHashTables(EmbeddingTables):
    """`DeepHash`'s tables.

    Parameters
    ----------
    coefficients : (2, k) int64
        a and b of each hash.
    sizes : two of int
        The numbers of users and of items.
    widths : two lists of int
        Of the hidden layers of both sides.
    dim : int
    fixed : bool
        Whether means and variances are those of a training that has ended.
    """

    def __init__(
        self, coefficients: np.ndarray, sizes: Sequence[int], widths: list[list[int]], dim: int, fixed: bool = False
    ):
        super().__init__()
        self.coefficients, self.fixed = coefficients, fixed
        self.settings = {"sizes": list(sizes), "widths": widths, "dim": dim}
        self.users, self.items = (DeepHashSide(coefficients, *side, dim) for side in zip(sizes, widths, strict=True))

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.users(self.fixed), self.items(self.fixed)

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        return embedding(ids, getattr(self, side)(self.fixed))

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        self.users.reset_parameters(std, generator)
        self.items.reset_parameters(std, generator)

    def ledger(self) -> Ledger:
        floats = sum(parameter.numel() for parameter in self.parameters())
        stored = sum(values.numel() for values in self.state_dict().values())  # means and variances, too
        return Ledger(parameters=floats, bytes=FLOAT_BYTES * stored + self.coefficients.nbytes, training_floats=floats)

    @torch.no_grad()
    def export(self) -> dict[str, np.ndarray]:
        self()  # means and variances become those of the parameters as they are
        arrays = {name: values.cpu().numpy() for name, values in self.state_dict().items()}
        return {"header": json_array(self.settings), "coefficients": self.coefficients} | arrays

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> DeepHashTables:
        """The tables whose `export` these arrays are."""
        tables = cls(arrays["coefficients"], **from_json_array(arrays["header"]), fixed=True)
        tables.load_state_dict({name: torch.as_tensor(arrays[name]) for name in tables.state_dict()})
        return tables


def widths_of(total: int, num_layers: int) -> list[int]:
    """The widths of layers with so many units in all, which differ by one at most, the wider ones last."""
    return [(total + layer) // num_layers for layer in range(num_layers)]


def cost_of(widths: list[int], unit: str, num_hashes: int, dim: int) -> int:
    """What a network costs, its hashes aside."""
    inputs, units = [num_hashes, *widths], sum(widths)
    floats = sum(i * o for i, o in zip(inputs, [*widths, dim], strict=True)) + 2 * units + dim
    return floats if unit == "parameters" else FLOAT_BYTES * (floats + 2 * units)


def widths_within(amount: int, unit: str, num_hashes: int, num_layers: int, dim: int) -> list[int] | None:
    """The widest layers that cost an amount of the budget's unit or less. None: not even those of one unit do."""

    def too_dear(total: int) -> bool:
        return cost_of(widths_of(total, num_layers), unit, num_hashes, dim) > amount

    total = num_layers - 1 + bisect_left(range(num_layers, max(num_layers, amount) + 1), True, key=too_dear)
    return widths_of(total, num_layers) if total >= num_layers else None
