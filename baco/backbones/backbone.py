"""Backbones: from layer-0 embeddings to the final ones whose dot products are the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from baco.backbones.lookup import Differences, Lookup, Refresh
from baco.backbones.propagation import Propagation, bipartite_adjacency, normalise
from baco.backbones.propagation_gpu import score_differences
from baco.embedding.tables import EmbeddingTables
from baco.graph import Biadjacency
from baco.numerics.triples import Batch
from baco.registry import register_backbone
from baco.validation import Validated, setting

SCORES = ("dot", "cosine")


class Backbone:
    """Turns embedding tables into final embeddings by linear propagation. It has no trainable parameters of its own.

    Parameters
    ----------
    score : str
        'dot', or 'cosine': final embeddings have length 1, so that their dot products are cosines.

    Attributes
    ----------
    num_layers : int
        L, the number of propagation steps.
    refresh : function, optional
        Called before rows of a table are read for a batch, see `Lookup`; for backbones that do not propagate, on a CPU.
        The gradients of the tables are then sparse. It counts from the next `attach` on.
    """

    name: ClassVar[str]  # set by register_backbone
    label: ClassVar[str]
    num_layers: int = 0
    refresh: Refresh | None = None

    @dataclass(frozen=True)
    class Config(Validated):
        """No settings."""

    def __init__(self, train: Biadjacency, config: Config, score: str = "dot"):
        self.train = train
        self.config = config
        self.score = score
        self._attached: EmbeddingTables | None = None
        self._lookup: Lookup | None = None

    @property
    def own_share(self) -> float:
        """The weight of a layer-0 embedding in its own final embedding, its neighbours' part aside."""
        return 1 / (self.num_layers + 1)

    def attach(self, tables: EmbeddingTables) -> None:
        """Prepare for these tables: to be called again whenever their codes or their graph have changed."""
        adjacency, pooling = normalise(tables.augment_graph(bipartite_adjacency(self.train))), tables.pooling()
        self._propagation = Propagation(adjacency, self.num_layers, self.train.num_users, pooling)
        self._lookup = None if self.refresh is None else Lookup(pooling, self.refresh)
        self._attached = tables

    def propagation(self, tables: EmbeddingTables) -> Propagation:
        """The propagation for the pooling and the graph of these tables."""
        if self._attached is not tables:
            self.attach(tables)
        return self._propagation

    def final_embeddings(self, tables: EmbeddingTables) -> tuple[Tensor, Tensor]:
        """((num_users, dim), (num_items, dim)): the embeddings that rank."""
        users, items, _ = self.propagate(tables)
        return self._scored(users), self._scored(items)

    def rows(self, tables: EmbeddingTables, nodes: Tensor) -> Tensor:
        """(len(nodes), dim): the rows of `final_embeddings` of some nodes, items after users; differentiable.

        Parameters
        ----------
        nodes : (_,) int32
            Distinct, in ascending order.
        """
        propagation = self.propagation(tables)
        rows = propagation.rows if self._lookup is None else self._lookup.rows
        return self._scored(rows(nodes, *tables.shared_rows()))

    def propagate(self, tables: EmbeddingTables) -> tuple[Tensor, Tensor, Tensor]:
        """(n, dim) sums of layers of users, of items, and of the nodes that the tables added, whatever the score."""
        nodes = self.propagation(tables)(*tables.shared_rows())
        users, items, added = nodes.tensor_split([self.train.num_users, self.train.num_nodes])
        return users, items, added

    def score_differences(self, tables: EmbeddingTables, batch: Batch) -> Tensor:
        """(batch,): the score of each positive item minus that of its negative, differentiable in the tables."""
        if self.refresh is not None:
            distinct, triples = np.unique(batch.as_nodes(self.train.num_users), return_inverse=True)
            rows = self.rows(tables, torch.from_numpy(distinct))
            return Differences.apply(rows, triples.reshape(3, -1).astype(np.int32))
        if self.score == "dot":
            return self.propagation(tables).score_differences(batch, *tables.shared_rows())
        nodes = self._scored(self.propagation(tables)(*tables.shared_rows()))
        return score_differences(nodes, batch, self.train.num_users)

    def _scored(self, rows: Tensor) -> Tensor:
        return rows if self.score == "dot" else normalize(rows)


@register_backbone("mf")
class MF(Backbone):
    """Matrix factorisation: the score is the dot product of the tables' embeddings."""

    label = "MF"


@register_backbone("lightgcn")
class LightGCN(Backbone):
    """The mean of layers 0..L of the symmetrically normalised propagation (He et al., SIGIR 2020, eq. 7-9).

    The graph is the full graph of users and items, whatever the codes: users who share a row at layer 0 still differ
    after propagation. A node without interactions ends as 1 / (L + 1) of its layer-0 embedding.
    """

    label = "LightGCN"

    @dataclass(frozen=True)
    class Config(Backbone.Config):
        """num_layers: L, the number of propagation steps; 0 is MF."""

        num_layers: int = setting(2, at_least=0)

    def __init__(self, train: Biadjacency, config: Config, score: str = "dot"):
        super().__init__(train, config, score)
        self.num_layers = config.num_layers
