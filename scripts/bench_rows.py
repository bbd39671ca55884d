"""Time steps of MF on large tables: `python scripts/bench_rows.py`.

Users and items are drawn with popular and rare ones, each has a row of its own. A few steps are taken with AdamW over
all rows, and an epoch with `lazy_rows`. Prints what the loss, its gradient and the optimiser take of a step (means; in
the loss rows are brought up to date), what bringing all rows up to date takes at the end, and the seconds of an epoch.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np
import torch
from _common import run_script

from baco.backbones.backbone import MF
from baco.device import check_memory
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment
from baco.graph import Biadjacency
from baco.losses.bpr import BPR
from baco.losses.loss import Loss
from baco.losses.ssm import SampledSoftmax
from baco.rng import torch_stream
from baco.training.lazy_adamw import LazyAdamW
from baco.training.sampler import Sampler

RATE, DECAY, COPIES = 0.05, 0.01, 6  # copies of the tables alive at once
LOSSES = {loss.name: loss for loss in (BPR(), SampledSoftmax())}


def generated(num_users: int, num_items: int, num_interactions: int) -> Biadjacency:
    """Pairs drawn independently: the share of the first tenth of the users, or items, is a third."""
    rng = np.random.default_rng(0)
    users, items = ((size * rng.random(num_interactions) ** 2).astype(np.int64) for size in (num_users, num_items))
    return Biadjacency.from_pairs(users, items, num_users, num_items)


def measure(train: Biadjacency, tables: CodebookTables, loss: Loss, batch_size: int, steps: int, lazy: bool) -> str:
    """A line of the table."""
    groups = tables.param_groups(RATE, DECAY)
    optimizer = LazyAdamW(groups) if lazy else torch.optim.AdamW(groups, fused=True)
    backbone = MF(train, MF.Config(), loss.score)
    backbone.refresh = optimizer.catch_up if isinstance(optimizer, LazyAdamW) else None
    backbone.attach(tables)
    sampler = Sampler(train, batch_size, torch_stream(0, "sampling"), loss.num_negatives)
    seconds, rows = [], 0
    for batch in itertools.islice(sampler.epoch(), None if lazy else steps + 2):
        times = [time.perf_counter()]
        value = loss(backbone, tables, batch)
        times.append(time.perf_counter())
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        times.append(time.perf_counter())
        optimizer.step()
        times.append(time.perf_counter())
        seconds.append(np.diff(times))
        if rows == 0:
            rows = len(torch.unique(batch.users)) + len(torch.unique(torch.cat([batch.positives, batch.negatives])))
    start = time.perf_counter()
    if isinstance(optimizer, LazyAdamW):
        optimizer.settle()
    settling = time.perf_counter() - start
    parts = np.mean(seconds[2:], axis=0)  # the first ones compile, and draw in the memory
    epoch = parts.sum() * sampler.num_batches + settling
    optimizer.zero_grad(set_to_none=True)
    cells = "".join(f"{1000 * part:>10.0f}" for part in (*parts, parts.sum()))
    name = "lazy" if lazy else "all"
    return f"{loss.name:<6}{batch_size:>9,}{rows:>10,}  {name:<5}{cells}{settling:>10.1f}{epoch:>10.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=int, default=3_000_000)
    parser.add_argument("--items", type=int, default=2_000_000)
    parser.add_argument("--interactions", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8192, 131072])
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    rows = arguments.users + arguments.items
    check_memory(COPIES * 4 * rows * arguments.dim, f"dim={arguments.dim} for {rows:,} rows", "take fewer")
    train = generated(arguments.users, arguments.items, arguments.interactions)
    tables = CodebookTables(Assignment.of_own_rows(arguments.users, arguments.items), arguments.dim)
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    print(f"{rows:,} rows of {arguments.dim}, {train.num_edges:,} interactions, {torch.get_num_threads()} threads")
    print("loss      batch      rows        ms: loss  gradient optimiser      step  settle s   epoch s")
    for name, batch_size, lazy in itertools.product(arguments.losses, arguments.batch_sizes, (False, True)):
        print(measure(train, tables, LOSSES[name], batch_size, arguments.steps, lazy), flush=True)


if __name__ == "__main__":
    run_script(main)
