"""Time training steps and full-ranking evaluation, side by side: `python scripts/bench_training.py beauty gowalla`.

Three LightGCN trainers take steps on the same batches in turn: ours, a plain version that leaves everything to torch's
autograd and sparse product, and the same with a hand-written symmetric backward pass. Prints medians and ratios.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable

import numpy as np
import torch
from _common import load
from torch import Tensor

from baco.backbones import LightGCN
from baco.budget import Budget
from baco.data.interactions import Interactions
from baco.evaluation.evaluator import Evaluator
from baco.machine import resolve_device, synchronize
from baco.rng import stream, torch_stream
from baco.scores import Batch
from baco.training.loss import bpr_loss
from baco.training.sampler import Sampler
from baselines.full import Full

DIM = 64


class SymmetricProduct(torch.autograd.Function):
    """A x for a symmetric A: the backward pass is the forward pass."""

    @staticmethod
    def forward(ctx, matrix: Tensor, x: Tensor) -> Tensor:
        ctx.matrix = matrix
        return matrix @ x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor]:
        return None, ctx.matrix @ gradient


def plain_differences(
    rows: Tensor, matrix: Tensor, product: Callable[[Tensor, Tensor], Tensor], num_users: int, batch: Batch
) -> Tensor:
    """Two-layer LightGCN as it is usually written."""
    layers = [rows]
    for _ in range(2):
        layers.append(product(matrix, layers[-1]))
    users, items = torch.stack(layers).mean(0).tensor_split([num_users])
    chosen, positives, negatives = (part.long() for part in batch)
    return (users[chosen] * (items[positives] - items[negatives])).sum(1)


def steppers(data: Interactions, device: torch.device) -> dict[str, Callable[[Batch], float]]:
    """One training step by each trainer, by name; each returns its loss."""
    budget = Budget.parse(None, "parameters", data.num_users, data.num_items, DIM)
    tables = Full().fit(data.train, budget, stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    tables.to(device)
    backbone = LightGCN(data.train, LightGCN.Config(num_layers=2))
    matrix = backbone.adjacency.on(device)
    ours = torch.optim.Adam(tables.parameters(), lr=0.01, fused=True)

    def our_step(batch: Batch) -> float:
        return step(lambda: backbone.score_differences(tables, batch), ours)

    found = {"ours": our_step}
    for name, product in (("plain", torch.sparse.mm), ("plain, symmetric backward", SymmetricProduct.apply)):
        rows = torch.cat(tables()).detach().clone().requires_grad_()
        adam = torch.optim.Adam([rows], lr=0.01)

        def plain_step(batch: Batch, rows=rows, adam=adam, product=product) -> float:
            return step(lambda: plain_differences(rows, matrix, product, data.num_users, batch), adam)

        found[name] = plain_step
    return found


def step(differences: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> float:
    loss = bpr_loss(differences())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("datasets", nargs="*", default=["synthetic"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1024, 131072])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    for name in arguments.datasets:
        data = load(name)
        print(f"\n{name}: {data.train.num_nodes} nodes, {data.train.num_edges} interactions, {device.type}")
        for batch_size in arguments.batch_sizes:
            runs = steppers(data, device)
            seconds: dict[str, list[float]] = {run: [] for run in runs}
            losses: dict[str, list[float]] = {run: [] for run in runs}
            sampler = Sampler(data.train, batch_size, torch_stream(0, "sampling", device))
            batches = itertools.chain.from_iterable(sampler.epoch() for _ in itertools.count())
            for number, batch in enumerate(itertools.islice(batches, arguments.steps + 2)):
                for run, take in runs.items():
                    synchronize(device)
                    start = time.perf_counter()
                    losses[run].append(take(batch))
                    synchronize(device)
                    if number >= 2:  # the first steps compile and warm the caches
                        seconds[run].append(time.perf_counter() - start)
            print(f"batch {batch_size:<26}{'ms a step':>10}{'s an epoch':>12}{'ratio':>8}{'last loss':>11}")
            for run in runs:
                median = np.median(seconds[run])
                ratio = median / np.median(seconds["ours"])
                print(
                    f"  {run:<30}{1000 * median:>10.1f}{median * sampler.num_batches:>12.1f}{ratio:>8.2f}"
                    f"{losses[run][-1]:>11.5f}"
                )
        generator = torch.Generator().manual_seed(0)
        users, items = (torch.randn(size, DIM, generator=generator) for size in (data.num_users, data.num_items))
        evaluator = Evaluator(data)
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            evaluator.evaluate(users.to(device), items.to(device), "test", 50)
            taken.append(time.perf_counter() - start)
        print(f"full-ranking evaluation of {data.num_users} x {data.num_items}, k = 50: {np.median(taken):.2f} s")


if __name__ == "__main__":
    main()
