"""Product quantization of the full model, under a budget."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.compressors.runner import Runner
from baco.embedding.bits import code_dtype, pack_bits, unpack_bits
from baco.embedding.codes import SIDES
from baco.embedding.cost import Ledger
from baco.embedding.quantized import QuantizedTables
from baco.embedding.quantizers import MOST_CODE_BITS, ProductQuantizer
from baco.embedding.tables import Embeddings, EmbeddingTables
from baco.errors import SettingError, UserError
from baco.files import from_json_array, json_array
from baco.graph import Biadjacency
from baco.numerics.kmeans import compile_kmeans
from baco.registry import register_method, register_tables
from baco.rng import stream
from baco.validation import Validated, setting
from baselines.full import full_tables, trained_full

log = logging.getLogger(__name__)

MOST_BITS = 8  # of codes whose size is left to the budget: a byte


@register_tables("ProductTables")
class ProductTables(EmbeddingTables):
    """Centroids that are trained, under product codes that are not.

    Parameters: dim * 2^bits per side, plus (blocks - 1) codes per id.

    Parameters
    ----------
    quantizer : ProductQuantizer
    num_users, num_items, dim : int
    rng : numpy.random.Generator
        Of the first codes, random ones that `search` replaces.
    rate : float
        The part of the protocol's learning rate at which centroids are trained.
    """

    def __init__(
        self,
        quantizer: ProductQuantizer,
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
        self.users = ProductCodebook(quantizer, num_users, dim, rng)
        self.items = ProductCodebook(quantizer, num_items, dim, rng)

    @property
    def sides(self) -> dict[str, ProductCodebook]:
        return {side: getattr(self, side) for side in SIDES}

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.users(), self.items()

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        return self.sides[side](ids)

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        for codebook in self.sides.values():
            codebook.centroids.copy_(torch.randn(codebook.centroids.shape, generator=generator) * std)

    def start_near(self, embeddings: Embeddings, rms: float) -> None:
        """Nothing: the full model starts there, and its centroids replace these."""

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        return super().param_groups(lr * self.rate, weight_decay)

    def ledger(self) -> Ledger:
        return product_ledger(self.quantizer, len(self.users.codes), len(self.items.codes), self.dim)

    def export(self) -> dict[str, np.ndarray]:
        header = {"settings": asdict(self.quantizer)}
        arrays = {"header": json_array(header)}
        for side, codebook in self.sides.items():
            arrays[f"{side}.centroids"] = codebook.centroids.detach().cpu().numpy()
            arrays[f"{side}.codes"] = pack_bits(codebook.codes.cpu().numpy(), self.quantizer.bits)
        return arrays

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> ProductTables:
        """The tables whose `export` these arrays are."""
        quantizer = ProductQuantizer(**from_json_array(arrays["header"])["settings"])
        num_users, num_items = (len(arrays[f"{side}.codes"]) for side in SIDES)
        dim = arrays["users.centroids"].shape[1]
        tables = cls(quantizer, num_users, num_items, dim, np.random.default_rng(0))
        for side, codebook in tables.sides.items():
            codes = unpack_bits(arrays[f"{side}.codes"], quantizer.bits, quantizer.blocks)
            codebook.take_over(arrays[f"{side}.centroids"], codes)
        return tables


class ProductCodebook(nn.Module):
    """The centroids that the ids of one side share, and their codes."""

    codes: Tensor
    block_of_column: Tensor

    def __init__(self, quantizer: ProductQuantizer, num_ids: int, dim: int, rng: np.random.Generator):
        super().__init__()
        num_centroids = 2**quantizer.bits
        codes = rng.integers(num_centroids, size=(num_ids, quantizer.blocks), dtype=code_dtype(quantizer.bits))
        blocks = torch.from_numpy(quantizer.block_of_column(dim))
        self.centroids = nn.Parameter(torch.zeros(num_centroids, dim))  # those of all blocks side by side
        self.register_buffer("codes", torch.from_numpy(codes))  # (n, blocks)
        self.register_buffer("block_of_column", blocks, persistent=False)  # (dim,)

    def forward(self, ids: Tensor | None = None) -> Tensor:
        """(n, dim), or (len(ids), dim) for some ids only."""
        codes = self.codes if ids is None else self.codes[ids]
        return torch.gather(self.centroids, 0, codes[:, self.block_of_column].long())

    @torch.no_grad()
    def take_over(self, centroids: np.ndarray, codes: np.ndarray) -> None:
        """What was learned elsewhere, as `ProductQuantizer.learn` gives it."""
        self.centroids.copy_(torch.tensor(centroids))
        self.codes.copy_(torch.tensor(codes))


@dataclass(frozen=True)
class ProductSettings(Validated):
    """Settings of the methods that use product quantization.

    blocks : codes per id; None: the budget decides.
    bits : of a code; None: the budget decides, up to 8 as is usual, though the paper's rule counts longer ones alike.
    rate : the part of the protocol's learning rate at which centroids are trained under their codes.
    """

    blocks: int | None = setting(None, at_least=1)
    bits: int | None = setting(None, at_least=1, at_most=MOST_CODE_BITS)
    rate: float = setting(0.1, above=0)


class ProductMethod(Compressor):
    """A method that gives each id a product code, of a size that the budget decides."""

    has_start = True
    config: ProductSettings

    def warm_up(self) -> None:
        compile_kmeans()

    def quantizer_within(self, train: Biadjacency, budget: Budget) -> ProductQuantizer:
        """The product quantizer with the most bits per id that the budget allows, eight at most for a code unless
        `bits` asks for more; with fewer blocks among equals.

        So ordered, the distortion of k-means falls: by a factor of four for each bit per dimension, and a little by
        wider blocks.

        Raises
        ------
        UserError
            When not even the smallest is within the budget.
        """
        config = self.config
        if config.blocks is not None and config.blocks > budget.dim:
            raise SettingError("blocks", config.blocks, f"is more than the embedding width dim={budget.dim}")
        choices = [
            ProductQuantizer(blocks, bits)
            for blocks, bits in product(
                range(1, budget.dim + 1) if config.blocks is None else [config.blocks],
                range(1, MOST_BITS + 1) if config.bits is None else [config.bits],
            )
        ]
        costs = [
            budget.amount(product_ledger(choice, train.num_users, train.num_items, budget.dim)) for choice in choices
        ]
        if min(costs) > budget.limit:
            raise UserError(
                f"method '{self.name}' needs {min(costs):,} {budget.unit} at least, over the budget of "
                f"{budget.limit:,}; raise the budget"
            )
        fitting = [choice for choice, cost in zip(choices, costs, strict=True) if cost <= budget.limit]
        best = max(fitting, key=lambda choice: (choice.blocks * choice.bits, choice.bits))
        log.info("%s: %d codes of %d bits per id", self.name, best.blocks, best.bits)
        return best

    def tables(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> ProductTables:
        """Tables of that size, whose codes `search` will learn."""
        quantizer = self.quantizer_within(train, budget)
        return ProductTables(quantizer, train.num_users, train.num_items, budget.dim, rng, self.config.rate)

    def learn(
        self, quantizer: ProductQuantizer, rows: np.ndarray, degrees: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Centroids and codes of the trained (n, dim) rows of one side, see `ProductQuantizer.learn`."""
        raise NotImplementedError

    def search(self, tables: EmbeddingTables, runner: Runner) -> EmbeddingTables:
        """Train the full model, and give its product codes to the tables that `fit` has made for them."""
        if not isinstance(tables, ProductTables):
            return tables
        train, rng = runner.train, stream(runner.seed, "quantize")
        full, _ = trained_full(runner, tables.dim)
        sides = (tables.users, full.users, train.user_degrees), (tables.items, full.items, train.item_degrees)
        for codebook, trained, degrees in sides:
            rows = trained.rows.detach().cpu().numpy()
            codebook.take_over(*self.learn(tables.quantizer, rows, degrees, rng))
        tables.learned = True
        return tables


@register_method("pq")
class ProductQuantization(ProductMethod):
    """The full model, its rows then replaced by product codes (Jégou, Douze, Schmid, TPAMI 2011; `ProductQuantizer`).

    Parameters: 2 dim * 2^bits, plus (blocks - 1) codes per id. Centroids are those of k-means of each side. With
    `finetune` they are then trained under the frozen codes, by a second training of the same length.
    """

    label = "Full, PQ"

    @dataclass(frozen=True)
    class Config(ProductSettings):
        """The settings of product quantization, and two more.

        popularity : an id's weight in k-means is the number of its interactions to this power.
        finetune : train the centroids under their codes.
        """

        popularity: float = setting(0.0, at_least=0)
        finetune: bool = False

    config: Config

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> EmbeddingTables:
        if self.config.finetune:
            return self.tables(train, budget, rng)
        full, seed = full_tables(train, budget.dim), int(rng.integers(2**31))
        weights = {"users/rows": self.weights(train.user_degrees), "items/rows": self.weights(train.item_degrees)}
        return QuantizedTables(full, self.quantizer_within(train, budget), seed, weights)

    def learn(
        self, quantizer: ProductQuantizer, rows: np.ndarray, degrees: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        return quantizer.learn(rows, rng, self.weights(degrees))

    def weights(self, degrees: np.ndarray) -> np.ndarray:
        """(n,) float64: how much the error of an id matters."""
        return np.maximum(1.0, degrees) ** self.config.popularity


def product_ledger(quantizer: ProductQuantizer, num_users: int, num_items: int, dim: int) -> Ledger:
    """What product codes of all ids cost. The full model is trained for them."""
    cost, sizes = quantizer.format(dim), (num_users, num_items)
    return Ledger(
        parameters=sum(map(cost.parameters, sizes)),
        bytes=sum(map(cost.bytes, sizes)),
        training_floats=sum(sizes) * dim,
        extra_codes=sum(sizes) * (quantizer.blocks - 1),
    )
