"""Users who were not in training, by several rules: `python scripts/bench_fold_in.py beauty method=full,baco_plus`.

Some users are taken out of a dataset. Half of the interactions of each are given, the others are to be found. Prints
recall@20 of

- fold-in, as `baco recommend --interactions` does it (docs/use.md);
- the mean of the final embeddings of a user's items;
- a step of iALS (arXiv 2110.14044): the embedding x with the least sum of (x v_i - 1)^2 over its items, a weight times
  the sum of (x v_j)^2 over all items, and a weight times |x|^2; the weights are chosen on as many other users;
- a model that was trained anew, with the half that is given;
- popularity.
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np
import pandas as pd
import torch
from _common import configuration, load, run_script
from torch import Tensor
from torch.nn.functional import normalize

from baco.cli.console import log_to_console
from baco.data.interactions import SPLITS, Interactions
from baco.device import resolve_device
from baco.evaluation.evaluator import tie_order
from baco.evaluation.ranking import rank_items
from baco.graph import Biadjacency
from baco.runs.run import Plan, prepare
from baco.serving.users import FoldIn, Users

K = 20
FEWEST = 4  # interactions of a user who is taken out
ALL_ITEMS, SIZE = (0.001, 0.003, 0.01, 0.03), (0.01, 0.1, 1.0)  # weights of a step of iALS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("overrides", nargs="*", help="of the runs; method= may list several")
    parser.add_argument("--users", type=int, default=2000, help="how many are tested")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of users and interactions")
    arguments = parser.parse_intermixed_args()
    log_to_console()
    data = load(arguments.dataset)
    rng = np.random.default_rng(arguments.seed)
    pairs, kind = divided(data, 2 * arguments.users, rng)
    tested, others = np.split(rng.permutation(np.unique(pairs[0, kind > 0])), 2)
    given, wanted = (Biadjacency.from_pairs(*pairs[:, kind == part], data.num_users, data.num_items) for part in (1, 2))
    methods = [text for text in arguments.overrides if text.startswith("method=")] or ["method=full"]
    rest = [text for text in arguments.overrides if not text.startswith("method=")]
    popularity = np.bincount(pairs[1, kind == 0], minlength=data.num_items).astype(np.float32)
    alike = torch.ones(data.num_users, 1), torch.as_tensor(popularity)[:, None]
    print(f"popularity: {recall(*alike, tested, given, wanted):.2f}")
    for method in methods[0].removeprefix("method=").split(","):
        overrides = [f"dataset={arguments.dataset}", f"method={method}", *rest]
        old = dataset(data, pairs[:, kind == 0], rng)
        without, score = trained(old, overrides)
        items = without[1]
        found = {"fold-in": folded(old, without, score, given)}
        found["mean of its items"] = torch.as_tensor(given.to_matrix() @ items.numpy())
        steps = {weights: als_step(items, given, *weights) for weights in product(ALL_ITEMS, SIZE)}
        best = max(steps, key=lambda weights: recall(steps[weights], items, others, given, wanted))
        found[f"iALS step {best}"] = steps[best]
        lines = {name: recall(rows, items, tested, given, wanted) for name, rows in found.items()}
        anew, _ = trained(dataset(data, pairs[:, kind < 2], rng), overrides)
        lines["trained anew"] = recall(*anew, tested, given, wanted)
        print(f"{method}: " + ", ".join(f"{name} {value:.2f}" for name, value in lines.items()), flush=True)


def divided(data: Interactions, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(2, E) all interactions, and of what kind each is: 0 of users who stay, 1 given, 2 to be found."""
    graph = data.union(SPLITS)
    pairs = np.stack([graph.users, graph.items]).astype(np.int64)
    out = np.zeros(data.num_users, bool)
    out[rng.choice(np.flatnonzero(graph.user_degrees >= FEWEST), count, replace=False)] = True
    order = np.lexsort((rng.random(pairs.shape[1]), pairs[0]))
    rank = np.empty(pairs.shape[1], np.int64)
    rank[order] = np.arange(pairs.shape[1]) - graph.by_user.indptr[pairs[0, order]]
    kind = np.where(2 * rank < graph.user_degrees[pairs[0]], 1, 2)
    return pairs, np.where(out[pairs[0]], kind, 0)


def dataset(data: Interactions, pairs: np.ndarray, rng: np.random.Generator) -> Interactions:
    """These interactions as a dataset; a twentieth chooses the epoch, and the test is a formality."""
    part = np.digitize(rng.random(pairs.shape[1]), [0.94, 0.99])
    splits = {split: pairs[:, part == number] for number, split in enumerate(SPLITS)}
    return Interactions.from_pairs(data.name, splits, data.num_users, data.num_items)


def trained(data: Interactions, overrides: list[str]) -> tuple[tuple[Tensor, Tensor], str]:
    """Final embeddings of users and items, on the CPU, and the score that they are for."""
    config = configuration(overrides)
    plan = Plan.of(config, data)
    prepared = prepare(config, config.method, data, plan.budget, resolve_device(config.device))
    prepared.trainer.fit(prepared.tables)
    with torch.no_grad():
        users, items = prepared.trainer.backbone.final_embeddings(prepared.tables)
    return (users.cpu(), items.cpu()), config.loss.score


def folded(old: Interactions, model: tuple[Tensor, Tensor], score: str, given: Biadjacency) -> Tensor:
    """(num_users, dim): `FoldIn` of those who were taken out, zeros for others."""
    rule = FoldIn(old, Users(np.arange(old.num_users), model[0], old.train.by_user, old.name), score)
    served = rule(pd.DataFrame({"user": [f"new {user}" for user in given.users], "item": given.items}))
    rows = torch.zeros_like(model[0])
    rows[[int(name.removeprefix("new ")) for name in served.ids]] = served.rows
    return rows


def als_step(items: Tensor, given: Biadjacency, all_items: float, size: float) -> Tensor:
    """(num_users, dim): see the top of the file."""
    common = all_items * items.T @ items + size * torch.eye(items.shape[1])
    rows = torch.zeros(given.num_users, items.shape[1])
    for user in np.flatnonzero(given.user_degrees):
        own = items[given.by_user.indices[slice(*given.by_user.indptr[user : user + 2])]]
        rows[user] = torch.linalg.solve(common + own.T @ own, own.sum(0))
    return rows


def recall(users: Tensor, items: Tensor, tested: np.ndarray, given: Biadjacency, wanted: Biadjacency) -> float:
    """Recall@K in percent, over min(K, relevant); what is given is not ranked."""
    rows = normalize(users)  # lengths change no ranking, and keep scores of one size
    ranked = rank_items(rows, items, tested, given.by_user, tie_order(len(items)), K)
    relevant = wanted.to_matrix()[tested].toarray()
    hits = np.take_along_axis(relevant, ranked.astype(np.int64), axis=1).sum(1)
    return 100 * float((hits / np.minimum(K, relevant.sum(1))).mean())


if __name__ == "__main__":
    run_script(main)
