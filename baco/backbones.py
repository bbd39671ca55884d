"""Backbones: from layer-0 embeddings to the final ones whose dot products are the scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from baco.errors import UserError
from baco.graph import Biadjacency
from baco.propagation import Adjacency
from baco.registry import register_backbone
from baco.scores import Batch, score_differences
from baco.tables import EmbeddingTables


class Backbone:
    """Turns embedding tables into final embeddings. A backbone has no trainable parameters of its own.

    Attributes
    ----------
    own_share : float
        The weight of a layer-0 embedding in its own final embedding, its neighbours' part aside.
    """

    own_share = 1.0

    @dataclass(frozen=True)
    class Config:
        """No settings."""

    def __init__(self, train: Biadjacency, config: Config):
        self.train = train
        self.config = config

    def attach(self, tables: EmbeddingTables) -> None:
        """Prepare for these tables; called before training and whenever the tables replaced their structure."""

    def final_embeddings(self, tables: EmbeddingTables) -> tuple[Tensor, Tensor]:
        """((num_users, dim), (num_items, dim)): the embeddings that rank."""
        raise NotImplementedError

    def score_differences(self, tables: EmbeddingTables, batch: Batch) -> Tensor:
        """(batch,): the score of each positive item minus that of its negative, differentiable in the tables."""
        return score_differences(*self.final_embeddings(tables), *batch)


@register_backbone("mf")
class MF(Backbone):
    """Matrix factorisation: the score is the dot product of the tables' embeddings."""

    label = "MF"

    def final_embeddings(self, tables: EmbeddingTables) -> tuple[Tensor, Tensor]:
        return tables()

    def score_differences(self, tables: EmbeddingTables, batch: Batch) -> Tensor:
        if 3 * len(batch.users) > self.train.num_nodes:
            return super().score_differences(tables, batch)
        items = tables.lookup("items", torch.cat([batch.positives, batch.negatives]))
        positives, negatives = items.chunk(2)
        return (tables.lookup("users", batch.users) * (positives - negatives)).sum(1)


@register_backbone("lightgcn")
class LightGCN(Backbone):
    """The mean of layers 0..L of the symmetrically normalised propagation (He et al., SIGIR 2020, eq. 7-9).

    The graph is the full graph of users and items, whatever the codes: users who share a row at layer 0 still differ
    after propagation. A node without interactions ends as 1 / (L + 1) of its layer-0 embedding.
    """

    label = "LightGCN"

    @dataclass(frozen=True)
    class Config:
        """num_layers: L, the number of propagation steps; 0 is MF."""

        num_layers: int = 2

        def __post_init__(self):
            if self.num_layers < 0:
                raise UserError(f"backbone.params.num_layers={self.num_layers} must be 0 or more")

    def __init__(self, train: Biadjacency, config: Config):
        super().__init__(train, config)
        self.own_share = 1 / (config.num_layers + 1)
        self.bipartite = self.adjacency = Adjacency.from_graph(train)

    def attach(self, tables: EmbeddingTables) -> None:
        self.adjacency = tables.augment_graph(self.bipartite)

    def propagate(self, tables: EmbeddingTables) -> Tensor:
        """(nodes of the graph, dim): users, items, then the nodes that the tables added to the graph."""
        rows = torch.cat([*tables(), *tables.graph_rows()])
        return self.adjacency.mean_of_layers(rows, self.config.num_layers)

    def final_embeddings(self, tables: EmbeddingTables) -> tuple[Tensor, Tensor]:
        nodes = self.propagate(tables)
        num_users, num_items = self.train.num_users, self.train.num_items
        return nodes[:num_users], nodes[num_users : num_users + num_items]
