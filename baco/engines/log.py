"""The ids of a log, numbered in the engine."""

from __future__ import annotations

from baco.engines.engine import Engine
from baco.errors import UserError
from baco.graph import MOST_NODES

SIDES = ("user", "item")
PAIRS = """
    SELECT CAST(users.node AS INTEGER) AS user_node, CAST(items.node AS INTEGER) AS item_node
    FROM baco_log JOIN baco_users AS users ON users.id = user_id JOIN baco_items AS items ON items.id = item_id"""


def number_ids(engine: Engine, log: str, user: str, item: str) -> tuple[int, int, int]:
    """Make `baco_log` (user_id, item_id), and `baco_users` and `baco_items` (id, node), of which `PAIRS` makes pairs.

    Users are the nodes 0..num_users-1 and items follow, both in ascending order of their ids, which may be of any type.
    Every node has an interaction.

    Parameters
    ----------
    user, item : str
        The columns of the log.

    Returns
    -------
    int, int, int : users, items, and rows of the log, repeated pairs included

    Raises
    ------
    UserError
        When the log cannot be read, is empty, or lacks a column or an id.
    """
    engine.open_log(log, user, item)
    missing, rows = engine.fetch(
        "SELECT count_if(user_id IS NULL OR item_id IS NULL) AS missing, count(*) AS number FROM baco_log"
    )
    if rows[0] == 0:
        raise UserError(f"{log} holds no interactions; there is nothing to cluster")
    if missing[0] > 0:
        raise UserError(f"{log}: {int(missing[0]):,} rows have no '{user}' or no '{item}'; remove these rows")
    num_users = num_nodes = 0
    for side in SIDES:
        engine.create(
            f"baco_{side}s",
            f"SELECT id, row_number() OVER (ORDER BY id) + {num_users - 1} AS node "
            f"FROM (SELECT DISTINCT {side}_id AS id FROM baco_log) AS ids",
        )
        num_nodes = num_users + engine.value(f"SELECT count(*) AS number FROM baco_{side}s")
        num_users = num_users or num_nodes
    if num_nodes > MOST_NODES:
        raise UserError(f"{log}: users and items may be {MOST_NODES:,} together; it has {num_nodes:,}")
    return num_users, num_nodes - num_users, int(rows[0])
