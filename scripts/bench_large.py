"""Seconds and memory of a training on a large log, stage by stage.

    python scripts/bench_large.py 1e7 --folder /large/disk backbone=mf method=baco lazy_rows=true

makes a log of so many rows as `bench_scale.py` does, unless it is there, and goes from it to an export as `baco run`
does with the settings that follow. Each stage prints its seconds, those of all its threads on a CPU, and the peak of
resident memory since it began as it ends; and what part of the peak, beyond what the process had at first, falls to a
training interaction. What an earlier call has imported is there, and so are its codes: then the first stage only reads
the prepared file, and the time of `codes` is that of reading them.

A few steps are trained, and a few users ranked. The last lines say what the rest comes to at that speed, in seconds on
a CPU: nothing of it is run. With LightGCN `bound` is what a step takes at least, see `bench_training.py`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from _common import run_script
from bench_scale import Stages, generate
from bench_training import bandwidth, product_speed, score_operations, step_bytes

from baco.device import CPU, set_threads
from baco.embedding.tables import EmbeddingTables
from baco.evaluation.metrics import CUTOFFS, relevant_hits
from baco.evaluation.ranking import rank_items
from baco.rng import torch_stream
from baco.runs.run import Plan, fit_tables, item_scale, trainer_of, warm_up
from baco.runs.settings import RunConfig, configuration
from baco.serving.export import export_model
from baco.training.lazy_adamw import LazyAdamW
from baco.training.sampler import Sampler
from baco.training.trainer import Trainer

COMPILING = 2  # steps that are not counted: they compile, and draw in the memory


def measure(config: RunConfig, steps: int, users: int, folder: Path) -> None:
    """From a log to an export, with a part of the training between."""
    set_threads(config.threads)
    warm_up(config, CPU)
    stages = Stages()
    data = config.load_dataset()
    size = data.train.num_edges
    stages.end("data", size, f"{size:,} for training, {data.num_users:,} users, {data.num_items:,} items")
    plan = Plan.of(config, data)
    stages.end("fingerprint", size)
    scale = item_scale(config, config.method, data.train)
    tables, _, _ = fit_tables(config, config.method, data.train, plan.budget, CPU, scale)
    stages.end("codes", size, f"{plan.budget.share(tables.ledger()):.2%} of the budget")
    trainer = trainer_of(config, data, CPU, scale=scale)
    tables = trainer.scaled(trainer.initialize(tables))
    stages.end("first values", size)
    step = train(trainer, tables, steps, stages)
    each = rank(trainer, tables, users, stages)
    export_model(folder / "tables.npz", tables, plan.identity, config.dataset, data)
    stages.end("export", size)
    epoch = step * trainer.steps_per_epoch
    num_users = np.count_nonzero(data.val.user_degrees)
    ranking = each * min(num_users, config.ranked_users or num_users)
    protocol = config.protocol
    validations = len({*range(0, protocol.max_epochs, protocol.eval_every), protocol.max_epochs - 1})
    print(f"an epoch of {trainer.steps_per_epoch} steps: {epoch:,.0f} s; a ranking: {ranking:,.0f} s")
    whole = protocol.max_epochs * epoch + (validations + 2) * ranking  # the test, and validation of the best state
    print(f"{protocol.max_epochs} epochs and {validations + 2} rankings: {whole / 3600:.1f} hours")


def train(trainer: Trainer, tables: EmbeddingTables, steps: int, stages: Stages) -> float:
    """Take some steps; returns the CPU seconds of one."""
    train, protocol, loss = trainer.train, trainer.protocol, trainer.loss
    batch_size = protocol.pairs_per_step(train.num_edges)
    sampler = Sampler(train, batch_size, torch_stream(trainer.seed, "sampling"), loss.num_negatives)
    groups = tables.param_groups(protocol.learning_rate, protocol.decay_per_epoch)
    optimizer = LazyAdamW(groups) if trainer.lazy_rows else torch.optim.AdamW(groups, fused=True)
    if isinstance(optimizer, LazyAdamW):
        trainer.backbone.refresh = optimizer.catch_up
    trainer.backbone.attach(tables)
    stages.end("attach", train.num_edges)
    times = []
    for batch in itertools.islice(sampler.epoch(), COMPILING + steps):
        start = time.process_time()
        value = loss(trainer.backbone, tables, batch)
        middle = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        end = time.process_time()
        optimizer.step()
        times.append(np.diff([start, middle, end, time.process_time()]))
    optimizer.zero_grad(set_to_none=True)
    parts = np.mean(times[COMPILING:], axis=0)
    note = (
        f"of {batch_size:,}: each {parts[0]:.2f} s the loss, {parts[1]:.2f} its gradient, {parts[2]:.2f} the optimiser"
    )
    stages.end(f"{COMPILING + steps} steps", train.num_edges, note)
    if isinstance(optimizer, LazyAdamW):
        optimizer.settle()
        stages.end("settle", train.num_edges)
    if trainer.backbone.num_layers:
        chains, speed = trainer.backbone.propagation(tables).chains, bandwidth(CPU)
        traffic = step_bytes(chains, batch_size, tables.ledger().training_floats)
        operations, flops = score_operations(loss, batch, train.num_nodes), product_speed(CPU)
        note = f"{traffic / 1e9:.1f} GB at {speed / 1e9:.1f} GB/s"
        stages.end("bound", note=f"{note}, {operations / 1e9:.0f} GFLOP at {flops / 1e9:.0f} GFLOP/s")
    return parts.sum()


def rank(trainer: Trainer, tables: EmbeddingTables, count: int, stages: Stages) -> float:
    """Rank for some users of the validation; returns the CPU seconds for one of them."""
    data, size = trainer.evaluator.data, trainer.train.num_edges
    with torch.no_grad():
        final = trainer.backbone.final_embeddings(tables)
    stages.end("propagation", size)
    users = np.flatnonzero(data.val.user_degrees)[:count]
    rank_items(*final, users[:1], data.train.by_user, trainer.evaluator.tie_order, max(CUTOFFS))
    stages.end("distinct", size, "items, and a block of users")
    start = time.process_time()
    ranked = rank_items(*final, users, data.train.by_user, trainer.evaluator.tie_order, max(CUTOFFS))
    seconds = time.process_time() - start
    relevant_hits(ranked, users, data.val.by_user, data.num_items)
    stages.end("ranking", size, f"for {len(users):,} users")
    return seconds / len(users)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=float)
    parser.add_argument("settings", nargs="*", help="of `baco run`")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="of the log and what it becomes"
    )
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--users", type=int, default=2048, help="who are ranked")
    arguments = parser.parse_intermixed_args()
    rows, folder = int(arguments.rows), arguments.folder
    path = folder / f"scale-{rows}.parquet"
    generation = get_context("spawn").Process(target=generate, args=(rows, path))  # its memory is not ours
    generation.start()
    generation.join()
    if generation.exitcode:
        sys.exit(1)
    folders = [f"data_dir={folder}", f"runs_dir={folder}", f"results_dir={folder}"]
    config = configuration(["dataset=custom", f"dataset.path={path}", *folders, *arguments.settings])
    measure(config, arguments.steps, arguments.users, folder)


if __name__ == "__main__":
    run_script(main)
