"""BACO's alternating solver in SQL: interactions stay in the engine, what there is one of per node is here.

A half-round joins the labels of neighbours, groups links by node and label, joins the volumes of the other side, and
takes the best by score and rank (`baco.coclustering.objective`). Labels are those of the compiled solver, to the last
one: volumes are sums of integers; a score is the same float64 expression, evaluated in the same order; and ties go by
the same ranks. In the engine a label is called by its rank, so that the lowest label wins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from baco.coclustering.cocluster import CoClusters, Settings, label_ranks
from baco.coclustering.objective import balance
from baco.coclustering.weights import NodeWeights, weights_of
from baco.engines.engine import Engine
from baco.engines.log import PAIRS, SIDES, number_ids


@dataclass(frozen=True, eq=False)
class SqlGraph:
    """The distinct pairs of a log: `baco_edges` (user_node, item_node), with the numbers of `log.number_ids`.

    Attributes
    ----------
    engine : Engine
    user_degrees, item_degrees : (num_users,) and (num_items,) int64
    """

    engine: Engine
    user_degrees: np.ndarray
    item_degrees: np.ndarray

    @classmethod
    def of_log(cls, engine: Engine, log: str, user: str = "user", item: str = "item") -> SqlGraph:
        """Number the ids of a log, and store its pairs.

        Raises
        ------
        UserError
            When the log cannot be read, is empty, or lacks a column or an id.
        """
        num_users, num_items, _ = number_ids(engine, log, user, item)
        engine.create("baco_edges", f"SELECT DISTINCT user_node, item_node FROM ({PAIRS}) AS pairs")
        degrees = np.zeros(num_users + num_items, np.int64)
        for side in SIDES:
            nodes, counts = engine.fetch(f"SELECT {side}_node, count(*) AS degree FROM baco_edges GROUP BY {side}_node")
            degrees[nodes] = counts
        return cls(engine, degrees[:num_users], degrees[num_users:])

    @property
    def num_users(self) -> int:
        return len(self.user_degrees)

    @property
    def num_items(self) -> int:
        return len(self.item_degrees)

    @property
    def joint_degrees(self) -> np.ndarray:
        """(num_nodes,) int64, users first."""
        return np.concatenate([self.user_degrees, self.item_degrees])


@dataclass(frozen=True, eq=False)
class SqlSolver:
    """What `cocluster.cocluster` and `cocluster.of_labels` do with the alternating solver and `NodeWeights`, in SQL.

    Attributes
    ----------
    num_rounds : int
        Most rounds; it stops earlier when one changes no label.
    seed : int
        Of the ranks of labels.
    """

    graph: SqlGraph
    weights: NodeWeights
    num_rounds: int
    seed: int

    @classmethod
    def of(cls, graph: SqlGraph, settings: Settings, seed: int) -> SqlSolver:
        """With the weights and the rounds of the settings."""
        weights = weights_of(graph.user_degrees, graph.item_degrees, settings.user_weight, settings.item_weight)
        return cls(graph, weights, settings.rounds, seed)

    def labels(self, resolution: float) -> np.ndarray:
        """(num_nodes,) int32, users first. A label is the number of the node that it was born at."""
        engine, penalty = self.graph.engine, resolution / self.weights.normaliser
        ranks = label_ranks(len(self.weights.joint), self.seed)
        self._upload(ranks)
        for _ in range(self.num_rounds):
            moved = 0
            for side, other in (("item", "user"), ("user", "item")):
                engine.create(f"baco_{side}_labels", half_round(side, other, penalty, engine.pair))
                moved += engine.value(f"SELECT count_if(moved) AS number FROM baco_{side}_labels")
            if moved == 0:
                break
        found = np.empty(len(ranks), np.int64)
        for side in SIDES:
            nodes, labels = engine.fetch(f"SELECT node, label FROM baco_{side}_labels")
            found[nodes] = labels
        return np.argsort(ranks)[found].astype(np.int32)

    def solve(self, resolution: float) -> CoClusters:
        """The co-clustering at a resolution."""
        return self.complete(self.labels(resolution), resolution)

    def complete(self, labels: np.ndarray, resolution: float) -> CoClusters:
        """The co-clustering of given labels, (num_nodes,) int32, with second ones for users."""
        engine, penalty = self.graph.engine, resolution / self.weights.normaliser
        self._upload(labels)
        inside = engine.value(
            "SELECT count(*) AS number FROM baco_edges JOIN baco_user_labels AS users ON users.node = user_node "
            "JOIN baco_item_labels AS items ON items.node = item_node AND items.label = users.label"
        )
        users, found = engine.fetch(second_labels(penalty, engine.pair))
        second = labels[: self.graph.num_users].copy()
        second[users] = found
        return CoClusters(labels, second, inside - penalty * balance(labels, self.weights))

    def _upload(self, labels: np.ndarray) -> None:
        nodes, middle = np.arange(len(labels), dtype=np.int32), self.graph.num_users
        for side, weights, part in (
            ("user", self.weights.users, slice(None, middle)),
            ("item", self.weights.items, slice(middle, None)),
        ):
            columns = {"node": nodes[part], "weight": weights, "label": labels[part].astype(np.int32)}
            self.graph.engine.upload(f"baco_{side}_labels", columns)


def half_round(side: str, other: str, penalty: float, pair: str) -> str:
    """SQL of the best label of each node of one side (node, weight, label, moved).

    The node's own label is a candidate without links, too; where it has some, the row with them scores higher.
    """
    return f"""
        WITH {_links(side, other)}, best AS (
            SELECT own.node, any_value(own.weight) AS weight, any_value(own.label) AS before,
                {_best("found", penalty, pair)} AS label
            FROM (SELECT node, label, links FROM links UNION ALL SELECT node, label, 0 FROM baco_{side}_labels) AS found
            JOIN baco_{side}_labels AS own ON own.node = found.node
            LEFT JOIN volumes ON volumes.label = found.label
            GROUP BY own.node
        )
        SELECT node, weight, label, label <> before AS moved FROM best"""


def second_labels(penalty: float, pair: str) -> str:
    """SQL of the best label of each user but its own (node, label), of those that some user holds."""
    return f"""
        WITH {_links("user", "item")}
        SELECT own.node, {_best("links", penalty, pair)} AS label
        FROM links
        JOIN baco_user_labels AS own ON own.node = links.node AND own.label <> links.label
        JOIN volumes ON volumes.label = links.label
        WHERE links.label IN (SELECT label FROM baco_user_labels)
        GROUP BY own.node"""


def _links(side: str, other: str) -> str:
    """How often each node's neighbours have each label, and the volumes of labels on their side."""
    return f"""
        links AS (
            SELECT {side}_node AS node, label, count(*) AS links
            FROM baco_edges JOIN baco_{other}_labels ON node = {other}_node GROUP BY {side}_node, label
        ), volumes AS (
            SELECT label, CAST(sum(weight) AS BIGINT) AS volume FROM baco_{other}_labels GROUP BY label
        )"""


def _best(candidates: str, penalty: float, pair: str) -> str:
    """The label of the highest score; the lowest among equals. The order of operations is that of compiled code."""
    scale = f"CAST('{float(penalty)!r}' AS DOUBLE) * own.weight"
    score = f"{candidates}.links - {scale} * coalesce(volume, 0)"
    return f"max_by({candidates}.label, {pair}({score}, -{candidates}.label))"
