"""Methods that give each id codes into learned centroids, of a size that the budget decides."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.compressors.runner import Runner
from baco.embedding.bits import code_dtype
from baco.embedding.codes import SIDES
from baco.embedding.cost import Ledger
from baco.embedding.product_codes import MOST_CODE_BITS, USUAL_BITS, CodeQuantizer, finest_within
from baco.embedding.quantized import QuantizedTables
from baco.embedding.tables import Embeddings, EmbeddingTables
from baco.errors import UserError
from baco.files import from_json_array, json_array
from baco.graph import Biadjacency
from baco.numerics.kmeans import compile_kmeans
from baco.rng import stream
from baco.validation import Validated, setting
from baselines.full import full_tables, trained_full

log = logging.getLogger(__name__)


class CentroidCodebook(nn.Module):
    """The centroids that the ids of one side share, and their codes.

    A subclass gives `forward`: what `decode` of its quantizer computes, for all ids or for some.

    Attributes
    ----------
    stored : tuple of str
        The names of what the quantizer learns, which are attributes here.
    """

    stored: ClassVar[tuple[str, ...]] = ("centroids", "codes")
    codes: Tensor

    def __init__(self, quantizer: CodeQuantizer, num_ids: int, dim: int, rng: np.random.Generator):
        super().__init__()
        self.quantizer = quantizer
        codes = rng.integers(2**quantizer.bits, size=(num_ids, quantizer.num_codes), dtype=code_dtype(quantizer.bits))
        self.centroids = nn.Parameter(torch.zeros(quantizer.num_centroids, dim))
        self.register_buffer("codes", torch.from_numpy(codes))  # (n, num_codes)

    def forward(self, ids: Tensor | None = None) -> Tensor:
        """(n, dim), or (len(ids), dim) for some ids only."""
        raise NotImplementedError

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        self.centroids.copy_(torch.randn(self.centroids.shape, generator=generator) * std)

    def learned(self) -> dict[str, np.ndarray]:
        """As `learn` of the quantizer gives it."""
        return {name: getattr(self, name).detach().cpu().numpy() for name in self.stored}

    def packed(self) -> dict[str, np.ndarray]:
        """The same, as it is exported."""
        return self.quantizer.pack_codes(self.learned())

    @staticmethod
    def unpacked(quantizer: CodeQuantizer, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What was `learned`, from what was `packed`."""
        return quantizer.unpack_codes(arrays)

    @torch.no_grad()
    def take_over(self, learned: dict[str, np.ndarray]) -> None:
        """The inverse of `learned`: what was learned elsewhere."""
        for name in self.stored:
            getattr(self, name).copy_(torch.tensor(learned[name]))


class CentroidTables(EmbeddingTables):
    """Centroids that are trained, under codes that are not. A subclass names its quantizer and its codebooks.

    Parameters
    ----------
    quantizer : CodeQuantizer
    num_users, num_items, dim : int
    rng : numpy.random.Generator
        Of the first codes, random ones that `search` replaces.
    rate : float
        The part of the protocol's learning rate at which centroids are trained.
    """

    Quantizer: ClassVar[Callable[..., CodeQuantizer]]
    Codebook: ClassVar[type[CentroidCodebook]]

    def __init__(
        self,
        quantizer: CodeQuantizer,
        num_users: int,
        num_items: int,
        dim: int,
        rng: np.random.Generator,
        rate: float = 1.0,
    ):
        super().__init__()
        self.quantizer = quantizer
        self.dim = dim
        self.rate = rate
        self.users = self.Codebook(quantizer, num_users, dim, rng)
        self.items = self.Codebook(quantizer, num_items, dim, rng)

    @property
    def sides(self) -> dict[str, CentroidCodebook]:
        return {side: getattr(self, side) for side in SIDES}

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.users(), self.items()

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        return self.sides[side](ids)

    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        for codebook in self.sides.values():
            codebook.reset_parameters(std, generator)

    def start_near(self, embeddings: Embeddings, rms: float) -> None:
        """Nothing: the full model starts there, and its centroids replace these."""

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        return super().param_groups(lr * self.rate, weight_decay)

    def ledger(self) -> Ledger:
        return centroid_ledger(self.quantizer, len(self.users.codes), len(self.items.codes), self.dim)

    def export(self) -> dict[str, np.ndarray]:
        arrays = {"header": json_array({"settings": asdict(self.quantizer)})}
        for side, codebook in self.sides.items():
            arrays |= {f"{side}.{name}": array for name, array in codebook.packed().items()}
        return arrays

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> CentroidTables:
        """The tables whose `export` these arrays are."""
        quantizer = cls.Quantizer(**from_json_array(arrays["header"])["settings"])
        users, items = (
            cls.Codebook.unpacked(
                quantizer,
                {name.removeprefix(f"{side}."): array for name, array in arrays.items() if name.startswith(f"{side}.")},
            )
            for side in SIDES
        )
        dim = users["centroids"].shape[1]
        tables = cls(quantizer, len(users["codes"]), len(items["codes"]), dim, np.random.default_rng(0))
        tables.users.take_over(users)
        tables.items.take_over(items)
        return tables


@dataclass(frozen=True)
class CentroidSettings(Validated):
    """Settings of all methods whose ids have codes into centroids.

    bits : of a code; None: the budget decides, up to 8 as is usual, though the paper's rule counts longer ones alike.
    """

    bits: int | None = setting(None, at_least=1, at_most=MOST_CODE_BITS)

    @property
    def num_codes(self) -> int | None:
        """Codes per id; None: the budget decides."""
        raise NotImplementedError


class CentroidMethod(Compressor):
    """A method that gives each id codes into centroids, of a size that the budget decides."""

    Tables: ClassVar[type[CentroidTables]]
    config: CentroidSettings

    def quantizer_within(self, train: Biadjacency, budget: Budget) -> CodeQuantizer:
        """The finest quantizer within the budget, of eight bits a code at most unless `bits` asks for more.

        Raises
        ------
        UserError
            When not even the smallest is within the budget.
        """
        config = self.config
        choices = [
            self.Tables.Quantizer(num_codes, bits)
            for num_codes, bits in product(
                range(1, budget.dim + 1) if config.num_codes is None else [config.num_codes],
                range(1, USUAL_BITS + 1) if config.bits is None else [config.bits],
            )
        ]

        def cost(choice: CodeQuantizer) -> int:
            return budget.amount(self.cost(choice, train, budget.dim))

        best = finest_within(choices, cost, budget.limit)
        if best is None:
            raise UserError(
                f"method '{self.name}' needs {min(map(cost, choices)):,} {budget.unit} at least, over the budget of "
                f"{budget.limit:,}; raise the budget"
            )
        log.info("%s: %d codes of %d bits per id", self.name, best.num_codes, best.bits)
        return best

    def cost(self, quantizer: CodeQuantizer, train: Biadjacency, dim: int) -> Ledger:
        """What tables with this quantizer cost, before they are made."""
        return centroid_ledger(quantizer, train.num_users, train.num_items, dim)


@dataclass(frozen=True)
class FromFullSettings(CentroidSettings):
    """rate : the part of the protocol's learning rate at which centroids are trained under their codes."""

    rate: float = setting(0.1, above=0)


class FromFull(CentroidMethod):
    """A method that learns the codes from a trained full model, and trains the centroids under them."""

    has_start = True
    config: FromFullSettings

    def warm_up(self) -> None:
        compile_kmeans()

    def tables(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> CentroidTables:
        """Tables of that size, whose codes `search` will learn."""
        quantizer = self.quantizer_within(train, budget)
        return self.Tables(quantizer, train.num_users, train.num_items, budget.dim, rng, self.config.rate)

    def learn(
        self, quantizer: CodeQuantizer, rows: np.ndarray, degrees: np.ndarray, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Centroids and codes of the trained (n, dim) rows of one side, see `CodeQuantizer.learn`."""
        raise NotImplementedError

    def search(self, tables: EmbeddingTables, runner: Runner) -> EmbeddingTables:
        """Train the full model, and give what is learned from it to the tables that `fit` has made for it."""
        if not isinstance(tables, CentroidTables):
            return tables
        train, rng = runner.train, stream(runner.seed, "quantize")
        full, _ = trained_full(runner, tables.dim)
        sides = (tables.users, full.users, train.user_degrees), (tables.items, full.items, train.item_degrees)
        for codebook, trained, degrees in sides:
            rows = trained.rows.detach().cpu().numpy()
            codebook.take_over(self.learn(tables.quantizer, rows, degrees, rng))
        tables.learned = True
        return tables


@dataclass(frozen=True)
class AfterTrainingSettings(FromFullSettings):
    """The settings of methods that only pack what the full model has learned, unless they are told to train on.

    popularity : an id's weight in k-means is the number of its interactions to this power.
    finetune : train the centroids under their codes.
    """

    popularity: float = setting(0.0, at_least=0)
    finetune: bool = False


class AfterTraining(FromFull):
    """A method whose codes and centroids are those of k-means of each side of the full model.

    With `finetune` the centroids are then trained under the frozen codes, by a second training of the same length.
    """

    config: AfterTrainingSettings

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> EmbeddingTables:
        if self.config.finetune:
            return self.tables(train, budget, rng)
        full, seed = full_tables(train, budget.dim), int(rng.integers(2**31))
        weights = {"users/rows": self.weights(train.user_degrees), "items/rows": self.weights(train.item_degrees)}
        return QuantizedTables(full, self.quantizer_within(train, budget), seed, weights)

    def learn(
        self, quantizer: CodeQuantizer, rows: np.ndarray, degrees: np.ndarray, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        return quantizer.learn(rows, rng, self.weights(degrees))

    def weights(self, degrees: np.ndarray) -> np.ndarray:
        """(n,) float64: how much the error of an id matters."""
        return np.maximum(1.0, degrees) ** self.config.popularity


def centroid_ledger(quantizer: CodeQuantizer, num_users: int, num_items: int, dim: int) -> Ledger:
    """What codes of all ids and their centroids cost. The full model is trained for them."""
    cost, sizes = quantizer.format(dim), (num_users, num_items)
    return Ledger(
        parameters=sum(map(cost.parameters, sizes)),
        bytes=sum(map(cost.bytes, sizes)),
        training_floats=sum(sizes) * dim,
        extra_codes=sum(sizes) * (quantizer.num_codes - 1),
    )
