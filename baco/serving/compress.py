"""One's own model with compressed embeddings of users and items: `baco.compress`, and the same for factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.embedding.codebook import Codebook, CodebookTables
from baco.embedding.codes import SIDES
from baco.embedding.cost import FLOAT_BYTES
from baco.embedding.module import CompressedEmbedding, CompressedEmbeddingBag, without
from baco.embedding.quantized import QuantizedTables
from baco.embedding.start import STARTS, first_values
from baco.embedding.tables import EmbeddingTables
from baco.errors import SettingError, UserError, keys_under
from baco.files import check_writable
from baco.graph import Biadjacency
from baco.registry import method_class
from baco.rng import stream
from baco.serving.export import write_tables
from baco.validation import Limits, build_settings

FITTED = "fitted"


@dataclass(frozen=True, eq=False)
class Compression:
    """Compressed tables, and what there was before.

    Attributes
    ----------
    tables : EmbeddingTables
        `CodebookTables`, or `QuantizedTables` of such. Layers of a model that was compressed share their rows.
    method : str
    dense_parameters : int
        Of the dense embeddings.
    padding : dict
        From 'users' and 'items' to an id without embedding, or None.
    """

    tables: EmbeddingTables
    method: str
    dense_parameters: int
    padding: Mapping[str, int | None]

    def __str__(self) -> str:
        ledger, dense_bytes = self.tables.ledger(), FLOAT_BYTES * self.dense_parameters
        return (
            f"{self.method}: {self.dense_parameters:,} parameters and {dense_bytes:,} bytes before, "
            f"{ledger.parameters:,} and {ledger.bytes:,} after ({ledger.bytes / dense_bytes:.1%} of the bytes)"
        )

    def embeddings(self) -> tuple[np.ndarray, np.ndarray]:
        """(num_users, dim) and (num_items, dim) float32, ids for padding left out: what the tables stand for."""
        users, items = (side.detach().float().cpu().numpy() for side in self.tables())
        return users, items

    def pack(self) -> Compression:
        """Bring the rows to what they are stored as, once, when training is over; itself.

        It changes rows of methods that store them in fewer bits (`one_sided`, `pq`, `int8`), and no others; a model
        then gives what the packed tables give.
        """
        self.tables.on_training_end()
        return self

    def save(self, path: str | Path) -> None:
        """Write what a server needs, for `baco.serving.packed.PackedTables`: with packed rows, whether `pack` was
        called or not.
        """
        path = Path(path)
        check_writable(path, "path")
        write_tables(path, self.tables, {"padding": {side: self.padding[side] for side in SIDES}})


def compress(
    model: nn.Module,
    interactions: Any,
    budget: float = 0.25,
    tables: Mapping[str, str] | None = None,
    method: str = "baco_plus",
    *,
    settings: Mapping[str, Any] | None = None,
    unit: str = "parameters",
    start: str = FITTED,
    padding_idx: int | None = None,
    seed: int = 0,
) -> Compression:
    """Replace the embeddings of users and items in a model, in place, by compressed ones within a budget.

    The new layers are called as the old ones. A trained model is compressed with `start='fitted'`. A model that is to
    be trained begins with `start='normal'` or `'spectral'`; its optimizer is made afterwards, as parameters are new.

    Parameters
    ----------
    model : nn.Module
    interactions : SciPy sparse matrix, dense array or Biadjacency, users x items
        Of the training. Nonzero entries count. Ids for padding have an empty row and column, or none.
    budget, unit : see `Budget.parse`
    tables : dict
        From the names of two `nn.Embedding` or `nn.EmbeddingBag` in the model to 'users' and 'items'. By default those
        of RecBole, `user_embedding` and `item_embedding`.
    method, settings : see baselines/README.md
        A method whose ids have codes into rows.
    start : str
        'fitted' brings the embeddings as close to the dense ones as the codes allow and packs rows as they are stored.
        'normal' draws rows at random, as wide as the dense ones are, and 'spectral' near singular vectors.
    padding_idx : int, optional
        An id that both tables have and nobody interacts with, as RecBole's 0. A layer with a `padding_idx` of its own
        needs none.
    seed : int

    Raises
    ------
    UserError
        When a table is not there or does not fit the interactions, the method gives no codes and rows, or the budget
        cannot be met.
    """
    names = {side: name for name, side in (tables or {"user_embedding": "users", "item_embedding": "items"}).items()}
    if tables is not None and (len(tables) != len(SIDES) or names.keys() != set(SIDES)):
        raise UserError("tables must name one embedding of 'users' and one of 'items'; call again for others")
    layers = {side: _layer(model, names[side]) for side in SIDES}
    padding = {side: padding_idx if layers[side].padding_idx is None else layers[side].padding_idx for side in SIDES}
    dense = {side: layer.weight.detach() for side, layer in layers.items()}
    found = _compressed(dense, interactions, padding, budget, unit, method, settings, start, seed)
    codebooks = found.tables.inner if isinstance(found.tables, QuantizedTables) else found.tables
    for side, old in layers.items():
        new = _replacement(old, getattr(codebooks, side), padding[side])
        for parent in model.modules():  # wherever the layer is used
            for name, child in parent._modules.items():
                if child is old:
                    parent._modules[name] = new
    return found


def compress_factors(
    users: Any,
    items: Any,
    interactions: Any,
    budget: float = 0.25,
    method: str = "pq",
    *,
    settings: Mapping[str, Any] | None = None,
    unit: str = "parameters",
    seed: int = 0,
) -> Compression:
    """The same for (num_users, dim) and (num_items, dim) trained factors, arrays or tensors, of any library."""
    dense = {side: torch.as_tensor(np.asarray(rows)) for side, rows in zip(SIDES, (users, items), strict=True)}
    for side, rows in dense.items():
        if rows.ndim != 2 or not rows.is_floating_point():
            raise UserError(f"factors of {side} must be a matrix of floats; got {rows.dtype} {tuple(rows.shape)}")
    padding: dict[str, int | None] = dict.fromkeys(SIDES)
    return _compressed(dense, interactions, padding, budget, unit, method, settings, FITTED, seed)


def _compressed(
    dense: Mapping[str, Tensor],
    interactions: Any,
    padding: dict[str, int | None],
    budget: float,
    unit: str,
    method: str,
    settings: Mapping[str, Any] | None,
    start: str,
    seed: int,
) -> Compression:
    Limits(one_of=(FITTED, *STARTS)).check("start", start)
    Limits(at_least=0).check("seed", seed)
    users, items = dense.values()
    if users.shape[1] != items.shape[1]:
        raise UserError(f"embeddings of users are {users.shape[1]} wide and those of items {items.shape[1]}")
    train = _graph(interactions, dense, padding)
    rows = [without(dense[side], padding[side]).float().cpu().numpy() for side in SIDES]
    for side, own in zip(SIDES, rows, strict=True):
        if not np.isfinite(own).all():
            raise UserError(f"the embeddings of {side} hold NaN or infinite values")
    compressor = _compressor(method, settings)
    limit = Budget.parse(budget, unit, train.num_users, train.num_items, users.shape[1])
    tables = compressor.fit(train, limit, stream(seed, "assign"))
    codebooks = tables.inner if type(tables) is QuantizedTables else tables
    if type(codebooks) is not CodebookTables:
        raise UserError(
            f"method '{method}' gives no codes into rows that a layer could look up; take one that does, such as "
            "baco_plus, one_sided, pq or int8"
        )
    if compressor.has_budget:
        limit.check(tables.ledger(), method)
    if start == FITTED:
        codebooks.inherit(*rows)
        tables.on_training_end()
    else:
        first_values(tables, train, float(np.std(np.concatenate(rows))), start, seed)
    return Compression(tables, method, users.numel() + items.numel(), padding)


def _compressor(name: str, settings: Mapping[str, Any] | None) -> Compressor:
    cls = method_class(name)
    if not issubclass(cls, Compressor):
        raise UserError(f"method '{name}' has no embeddings; it scores items from the interactions")
    with keys_under("settings."):
        return cls(build_settings(cls.Config, settings or {}))


def _graph(interactions: Any, dense: Mapping[str, Tensor], padding: Mapping[str, int | None]) -> Biadjacency:
    """The interactions of all ids but those for padding."""
    graph = interactions if isinstance(interactions, Biadjacency) else Biadjacency.from_matrix(interactions)
    pairs, sizes = [], []
    for side, size, degrees in zip(
        SIDES, (graph.num_users, graph.num_items), (graph.user_degrees, graph.item_degrees), strict=True
    ):
        embeddings, pad, numbers = len(dense[side]), padding[side], getattr(graph, side)
        if pad is not None and not 0 <= pad < embeddings:
            raise SettingError("padding_idx", pad, f"must be one of the {embeddings} ids of {side}")
        if pad is not None and size == embeddings:
            if degrees[pad]:
                raise UserError(f"id {pad} of {side} is for padding, but has {degrees[pad]} interactions")
            numbers, size = numbers - (numbers > pad), size - 1
        wanted = embeddings - (pad is not None)
        if size != wanted:
            raise UserError(f"the interactions have {size} {side}, but the table has {embeddings} embeddings")
        pairs.append(numbers)
        sizes.append(size)
    return Biadjacency.from_pairs(*pairs, *sizes)


def _layer(model: nn.Module, name: str) -> nn.Embedding | nn.EmbeddingBag:
    """The layer of a name, which must be one that a compressed layer can take the place of."""
    modules = dict(model.named_modules())
    kinds = (nn.Embedding, nn.EmbeddingBag)
    if not isinstance(modules.get(name), kinds):
        known = ", ".join(own for own, module in modules.items() if isinstance(module, kinds)) or "none"
        raise UserError(f"the model has no embedding '{name}' (its embeddings: {known})")
    layer = modules[name]
    assert isinstance(layer, kinds)
    refused = {"max_norm": layer.max_norm is not None, "scale_grad_by_freq": layer.scale_grad_by_freq}
    refused |= {"sparse": layer.sparse, "mode='max'": getattr(layer, "mode", None) == "max"}
    for option, given in refused.items():
        if given:
            raise UserError(f"the embedding '{name}' has {option}, which compressed embeddings do not have")
    others = [
        f"{own}.{key}" if own else key
        for own, module in modules.items()
        for key, parameter in module._parameters.items()
        if parameter is layer.weight and module is not layer
    ]
    if others:
        raise UserError(f"the weight of '{name}' is that of {others[0]}, too; the model would keep it")
    return layer


def _replacement(old: nn.Embedding | nn.EmbeddingBag, codebook: Codebook, padding: int | None) -> CompressedEmbedding:
    arguments = (old.num_embeddings, old.embedding_dim, codebook, padding)
    options: dict[str, Any] = {"device": old.weight.device, "dtype": old.weight.dtype}
    new: CompressedEmbedding
    if isinstance(old, nn.EmbeddingBag):
        new = CompressedEmbeddingBag(*arguments, mode=old.mode, include_last_offset=old.include_last_offset, **options)
    else:
        new = CompressedEmbedding(*arguments, **options)
    new.codebook.rows.requires_grad_(old.weight.requires_grad)
    return new.train(old.training)
