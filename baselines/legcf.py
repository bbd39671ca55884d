"""LEGCF: one codebook for users and items, its rows nodes of the graph, its codes solved for while it trains."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.sparse import block_array, csr_array
from torch import Tensor, nn

from baco.backbones.propagation import normalise
from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.embedding.codebook import Codebook
from baco.embedding.codes import Codes
from baco.embedding.cost import FLOAT_BYTES, Ledger, RowFormat
from baco.embedding.tables import EmbeddingTables, FinalEmbeddings
from baco.errors import UserError
from baco.files import from_json_array, json_array
from baco.graph import Biadjacency
from baco.optional import optional_package
from baco.registry import register_method, register_tables
from baco.validation import setting
from baselines.support.schedule import CodeUpdates

RESCALES = ("none", "layer0")
GRAPHS = ("expanded", "plain")
BLOCK = 2048  # ids whose weights for all rows are in memory at once


@dataclass(frozen=True)
class Settings(CodeUpdates):
    """The settings of `legcf`.

    codes_per_id : t, codebook rows of an id.
    own_weight : weight of the row of an id's part before the first update; the other rows share the rest.
    rescale : 'none', the published update, or 'layer0', where the weights that it keeps are fitted once more.
    graph : 'expanded', codebook rows are nodes of the propagated graph, as published; 'plain', they are not.
    """

    codes_per_id: int = setting(2, at_least=1)
    own_weight: float = setting(0.9, above=0, below=1)
    rescale: str = setting("layer0", one_of=RESCALES)
    graph: str = setting("plain", one_of=GRAPHS)
    update_until: int = setting(0, at_least=0)

    @property
    def learned(self) -> bool:
        """Whether weights will differ between ids."""
        return self.update_from <= self.update_until

    @property
    def scales_edges(self) -> bool:
        """Whether the weights of the graph are a multiple of those of layer 0 that has to be stored."""
        return self.learned and self.rescale == "layer0" and self.graph == "expanded"


@register_method("legcf")
class Legcf(Compressor):
    """Lightweight embeddings for graph collaborative filtering (Liang et al., SIGIR 2024, arXiv 2403.18479).

    Users and items share one codebook E of c rows; layer 0 is tanh(S E) with a sparse S, t weights per id. At first an
    id has the row of its part in a METIS partition of the graph, with most of the weight, and others at random. An
    expanded graph has the rows of E as further nodes,

        [[A, S], [S^T, 0]],  normalised once more, with A the normalised adjacency of users and items.

    An update gives S the t largest entries of each row of H E_H^+, where H and E_H are the final embeddings of ids and
    codebook rows and ^+ is the pseudo-inverse. Parameters: dim c + (2 t - 1) (num_users + num_items), of which
    t (num_users + num_items) are weights, and 1 for the scale of the graph's; without updates weights are constants and
    cost nothing.

    By default the graph is plain and S stays what METIS gave, since the published graph and update cost it much on
    Beauty (results/README.md). `graph=expanded update_until=1 rescale=none` is the published comparison's, which
    updates S once, after the first epoch; the method's authors do it after each epoch from the one on in which
    validation stalls. Deviations beside that: the pseudo-inverse spreads an id over all rows, and keeping t of its
    weights loses nearly all of the embedding when rows are many, so that an update with `rescale=layer0` fits these t
    weights to H again, in layer 0 only: the edges to codebook rows, which would drown out the interactions, are scaled
    to the sum that they have as published; negative weights, with which the graph has no normalisation, become zero;
    codes and weights are paid from the budget; parts that METIS leaves empty get an id of the largest one; scores are
    dot products, where the authors' have biases per id. With MF, H is layer 0 and E_H is E.
    """

    label = "LEGCF"
    Config = Settings
    config: Settings

    def fit(self, train: Biadjacency, budget: Budget, rng: np.random.Generator) -> LegcfTables:
        settings, num_ids = self.config, train.num_nodes
        t, row = settings.codes_per_id, budget.row_format()

        def over_budget(rows: int) -> bool:
            index = np.broadcast_to(np.arange(t, dtype=np.int32), (num_ids, t))
            codes = Codes(index, rows, self._weights(num_ids))
            ledger = joint_ledger(codes, budget.dim, settings.scales_edges, row)
            return budget.amount(ledger) > budget.limit

        rows = t - 1 + bisect_left(range(t, num_ids + 1), True, key=over_budget)
        if rows < t:
            raise UserError(
                f"the budget of {budget.limit:,} {budget.unit} does not buy 'legcf' the {t} codebook rows that it "
                "needs beside codes and weights; raise the budget or lower codes_per_id"
            )
        parts = metis_parts(train, rows, int(rng.integers(2**31)))
        others = np.sort(rng.integers(rows - t + 1, size=(num_ids, t - 1)), axis=1) + np.arange(1, t)
        index = (np.concatenate([parts[:, None], parts[:, None] + others], axis=1) % rows).astype(np.int32)
        return LegcfTables(Codes(index, rows, self._weights(num_ids)), budget.dim, train.num_users, settings)

    def _weights(self, num_ids: int) -> np.ndarray:
        """The first weights: (num_ids, t) float32 where updates will make them differ, (t,) where they will not."""
        settings = self.config
        t, own = settings.codes_per_id, settings.own_weight
        weights = np.array([own] + [(1 - own) / (t - 1)] * (t - 1) if t > 1 else [1], np.float32)
        return np.tile(weights, (num_ids, 1)) if settings.learned else weights


@register_tables("LegcfTables")
class LegcfTables(EmbeddingTables):
    """Layer 0 is tanh(S E), users first.

    Parameters
    ----------
    codes : Codes
        S, of users and items together.
    num_users : int
    settings : Settings
    """

    edge_scale: Tensor

    def __init__(self, codes: Codes, dim: int, num_users: int, settings: Settings):
        super().__init__()
        self.codebook = Codebook(codes, dim)
        self.register_buffer("edge_scale", torch.ones(()))  # weights of edges to codebook rows, by those of layer 0
        self.num_users = num_users
        self.settings = settings

    def forward(self) -> tuple[Tensor, Tensor]:
        nodes = self.codebook().tanh()
        return nodes[: self.num_users], nodes[self.num_users :]

    def lookup(self, side: str, ids: Tensor) -> Tensor:
        return self.codebook(ids if side == "users" else ids + self.num_users).tanh()

    @torch.no_grad()
    def reset_parameters(self, std: float, generator: torch.Generator) -> None:
        weights = self.weights.reshape(-1, self.codebook.codes.shape[1])[0]
        self.codebook.reset_parameters(std / weights.norm().item(), generator)  # S E has the deviation that is wanted

    @property
    def weights(self) -> Tensor:
        """Those of S: (num_ids, t), or (t,) where all ids have the same."""
        assert self.codebook.weights is not None  # codes without weights are no S
        return self.codebook.weights

    def codes(self) -> Codes:
        """S as it is now, a copy."""
        rows, codes, weights = self.codebook.rows, self.codebook.codes, self.weights
        return Codes(codes.cpu().numpy().copy(), len(rows), weights.cpu().numpy().copy())

    def ledger(self) -> Ledger:
        return joint_ledger(self.codes(), self.codebook.rows.shape[1], self.settings.scales_edges)

    def quantizable(self) -> dict[str, nn.Parameter]:
        return {"rows": self.codebook.rows}

    def export(self) -> dict[str, np.ndarray]:
        codes = self.codes()
        header = {"codes": codes.header(), "num_users": self.num_users, "settings": asdict(self.settings)}
        arrays = {"header": json_array(header), "rows": self.codebook.rows.detach().cpu().numpy()} | codes.pack()
        return arrays | ({"edge_scale": self.edge_scale.cpu().numpy()} if self.settings.scales_edges else {})

    @classmethod
    def from_export(cls, arrays: dict[str, np.ndarray]) -> LegcfTables:
        """The tables whose `export` these arrays are."""
        header, rows = from_json_array(arrays["header"]), arrays["rows"]
        codes = Codes.unpack(header["codes"], arrays)
        tables = cls(codes, rows.shape[1], header["num_users"], Settings(**header["settings"]))
        with torch.no_grad():
            tables.codebook.rows.copy_(torch.as_tensor(rows))
            if "edge_scale" in arrays:
                tables.edge_scale.copy_(torch.as_tensor(arrays["edge_scale"]))
        return tables

    def augment_graph(self, adjacency: csr_array) -> csr_array:
        if self.settings.graph == "plain":
            return adjacency
        assignment = self.codebook.pooling() * np.float32(self.edge_scale.item())
        return block_array([[normalise(adjacency), assignment], [assignment.T, None]], format="csr")

    def graph_rows(self) -> tuple[Tensor, ...]:
        return () if self.settings.graph == "plain" else (self.codebook.rows,)

    @torch.no_grad()
    def on_epoch_end(self, epoch: int, final_embeddings: FinalEmbeddings) -> list[nn.Parameter] | None:
        if not self.settings.due(epoch):
            return None
        codebook = self.codebook
        users, items, rows = final_embeddings()
        ids, rows = torch.cat([users, items]), rows if len(rows) else codebook.rows
        if not (ids.isfinite().all() and rows.isfinite().all()):
            return None  # the next validation stops the training
        codes, weights = closest_rows(ids, rows, codebook.codes.shape[1])
        weights = weights.clamp(min=0)
        if self.settings.rescale == "layer0":
            published, weights = weights.sum(), refit_weights(ids, rows, codes)
            self.edge_scale.copy_(published / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny))
        codebook.codes.copy_(codes)
        self.weights.copy_(weights)
        return []  # the rows are as they were, and so is what Adam knows of them


def joint_ledger(codes: Codes, dim: int, edge_scale: bool, row: RowFormat | None = None) -> Ledger:
    """What one codebook for users and items costs, in float32 or another format; its rows are counted as the users'.

    Every code counts, also where an update has left it no weight: it is stored all the same. So does the scale of
    edges, where there is one.
    """
    row = row or RowFormat.float32(dim)
    extra_codes = codes.num_ids * (codes.codes_per_id - 1)
    return Ledger(
        parameters=row.parameters(codes.num_rows) + extra_codes + codes.num_stored_weights + edge_scale,
        bytes=row.bytes(codes.num_rows) + codes.packed_bytes + FLOAT_BYTES * edge_scale,
        training_floats=codes.num_rows * dim,
        user_rows=codes.num_rows,
        extra_codes=extra_codes,
    )


def closest_rows(nodes: Tensor, rows: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """The t largest entries of each row of `nodes @ pinv(rows)`, never more than a block of which is in memory.

    Returns
    -------
    (n, t) int64 and (n, t) : which rows, and their weights, the largest first
    """
    inverse = torch.linalg.pinv(rows)  # (dim, c)
    best = [(block @ inverse).topk(t) for block in nodes.split(BLOCK)]
    return torch.cat([found.indices for found in best]), torch.cat([found.values for found in best])


def refit_weights(nodes: Tensor, rows: Tensor, codes: Tensor) -> Tensor:
    """(n, t) weights of at least 0 with which the rows that `codes` (n, t) names come close to the (n, dim) nodes.

    Least squares; where it has negative weights, they become zero and the others are scaled to the best multiple.
    """
    kept = rows[codes]  # (n, t, dim)
    inverse = torch.linalg.pinv(kept @ kept.mT, hermitian=True)
    weights = (inverse @ (kept @ nodes[:, :, None]))[:, :, 0].clamp(min=0)
    fitted = (weights[:, :, None] * kept).sum(1)
    norms = (fitted * fitted).sum(1)
    factors = torch.where(norms > 0, (fitted * nodes).sum(1) / norms, 0)
    return weights * factors.clamp(min=0)[:, None]


def metis_parts(graph: Biadjacency, num_parts: int, seed: int) -> np.ndarray:
    """(num_nodes,) int64 in [0, num_parts): parts of about equal size with few interactions between them, none empty.

    Raises
    ------
    UserError
        When the package is missing.
    """
    pymetis = optional_package("pymetis", "the method 'legcf'", "pymetis>=2025.2")
    if num_parts == 1:
        return np.zeros(graph.num_nodes, np.int64)
    indptr, indices = (array.astype(np.int32) for array in graph.joint)
    adjacency = pymetis.CSRAdjacency(indptr, indices)
    _, found = pymetis.part_graph(num_parts, adjacency, options=pymetis.Options(seed=seed))
    parts = np.array(found)
    give_to_empty(parts, graph.joint_degrees, num_parts)
    return parts


def give_to_empty(parts: np.ndarray, degrees: np.ndarray, num_parts: int) -> None:
    """Give every empty part, in place, the node of the highest degree of the part that is the largest then."""
    sizes = np.bincount(parts, minlength=num_parts)
    for empty in np.flatnonzero(sizes == 0):
        largest = sizes.argmax()
        members = np.flatnonzero(parts == largest)
        parts[members[degrees[members].argmax()]] = empty
        sizes[largest] -= 1
        sizes[empty] = 1
