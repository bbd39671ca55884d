"""Time training steps side by side: `python scripts/bench_training.py beauty gowalla`.

LightGCN trainers take steps on the same batches in turn: ours with the full model under BPR and every other loss, and
under BPR with random codes, BACO's and BACO+'s in the dataset's budget; a plain version that leaves everything to
torch's autograd and sparse product; the same with a symmetric backward pass; and the peers whose folders are named.
Peers get their batches ready-made, although their own sampling takes longer still. Prints medians, ratios to our full
model, and how far a step is from its bound: its memory traffic at the bandwidth measured, and the multiply-adds of its
scores at the speed of matrix products measured.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from _common import configuration, load, run_script
from _peers import DIM, LAYERS, add_arguments, loss_of, models
from numba import njit, prange
from torch import Tensor

from baco.backbones.backbone import LightGCN
from baco.backbones.chains import Chains
from baco.backbones.propagation import bipartite_adjacency, normalise
from baco.compressors.budget import Budget
from baco.data.interactions import Interactions
from baco.device import resolve_device, synchronize
from baco.embedding.tables import EmbeddingTables
from baco.losses.bpr import BPR
from baco.losses.ccl import CosineContrastive
from baco.losses.directau import DirectAU
from baco.losses.ials import SquaredLoss
from baco.losses.loss import Loss
from baco.losses.ssm import SampledSoftmax
from baco.numerics.sparse import Csr
from baco.numerics.triples import Batch
from baco.registry import method_class
from baco.rng import stream, torch_stream
from baco.training.sampler import Sampler

OURS = "ours, full"
METHODS = ("full", "random", "baco", "baco_plus")
QUADRATIC = 8192  # pairs in a batch from where DirectAU, whose cost grows with their square, is left out


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
    """LightGCN as it is usually written."""
    layers = [rows]
    for _ in range(LAYERS):
        layers.append(product(matrix, layers[-1]))
    users, items = torch.stack(layers).mean(0).tensor_split([num_users])
    chosen, positives, negatives = (part.long() for part in batch)
    return (users[chosen] * (items[positives] - items[negatives])).sum(1)


def tables_of(name: str, data: Interactions, budget: float | None, device: torch.device) -> EmbeddingTables:
    """A method's tables under the dataset's budget, with first values."""
    method = method_class(name)()
    limit = budget if method.has_budget else None
    limit = Budget.parse(limit, "parameters", data.num_users, data.num_items, DIM)
    tables = method.fit(data.train, limit, stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    return tables.to(device)


def step_bytes(chains: Chains, batch_size: int, parameters: int) -> int:
    """What a step has to read and write at least, when every row that an entry of a matrix names is fetched anew.

    Each entry: a row of floats, an index and a value; each result: a row written. A batch that touches a part of the
    nodes skips that part's complement in the last product of the way forward (see `propagation_cpu`). Scores: three
    rows a triple, and their gradient as a product with four entries a triple. Adam reads four numbers a parameter and
    writes three.
    """
    touched = min(1.0, 3 * batch_size / chains.num_nodes)

    def product(matrix: Csr, share: float = 1.0) -> float:
        return share * (len(matrix.indices) * (4 * DIM + 8) + matrix.shape[0] * 4 * DIM)

    whole = [*(chains.pooling or ()), *chains.forward[:-1], *chains.backward]
    products = sum(map(product, whole)) + product(chains.forward[-1], touched)
    scores = batch_size * (3 * 4 * DIM + 4 * (4 * DIM + 8)) + touched * chains.num_nodes * 4 * DIM
    return round(products + scores + 7 * 4 * parameters)


@njit(parallel=True)
def _triad(a, b, c):
    for i in prange(len(a)):
        a[i] = b[i] + np.float32(2) * c[i]


def bandwidth(device: torch.device) -> float:
    """Bytes a second of a + 2 b over arrays that fit no cache, all cores or the device."""
    size = 2**26
    if device.type == "cpu":
        arrays = [np.ones(size, np.float32) for _ in range(3)]
        run = lambda: _triad(*arrays)  # noqa: E731
    else:
        tensors = [torch.ones(size, device=device) for _ in range(3)]
        run = lambda: torch.add(tensors[1], tensors[2], alpha=2, out=tensors[0])  # noqa: E731
    times = []
    for _ in range(6):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 3 * 4 * size / min(times)


def product_speed(device: torch.device) -> float:
    """Floating-point operations a second of the product of 4,096 x 64 and 64 x 1,024 numbers."""
    x, y = torch.randn(4096, 64, device=device), torch.randn(64, 1024, device=device)
    out, times = torch.empty(4096, 1024, device=device), []
    for _ in range(20):
        synchronize(device)
        start = time.perf_counter()
        torch.mm(x, y, out=out)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * 4096 * 1024 * 64 / min(times)


def score_operations(loss: Loss, batch: Batch, num_nodes: int) -> int:
    """Floating-point operations of the products between many users and many items, value and gradients."""
    users, items = (len(torch.unique(part)) for part in batch[:2])
    if isinstance(loss, SampledSoftmax | CosineContrastive):
        return 6 * users * loss.negatives * DIM
    if isinstance(loss, DirectAU):
        return 4 * (users**2 + items**2) * DIM
    if isinstance(loss, SquaredLoss):
        return 4 * num_nodes * DIM**2
    return 0


def steppers(
    data: Interactions, budget: float | None, device: torch.device, peers: dict, batch_size: int
) -> tuple[dict, dict]:
    """One training step by each trainer, by name; and of ours the loss, the chains and the parameters."""
    found, ours = {}, {}
    losses = [SampledSoftmax(), CosineContrastive(), SquaredLoss(), *[DirectAU()] * (batch_size <= QUADRATIC)]
    for name, loss in [*((name, BPR()) for name in METHODS), *(("full", loss) for loss in losses)]:
        tables = tables_of(name, data, budget, device)
        backbone = LightGCN(data.train, LightGCN.Config(num_layers=LAYERS), loss.score)
        adam = torch.optim.Adam(tables.parameters(), lr=0.01, fused=True)
        label = f"ours, {name}" + ("" if loss.name == "bpr" else f", {loss.name}")
        found[label] = stepper(partial(loss, backbone, tables), adam)
        ours[label] = loss, backbone.propagation(tables).chains, tables.ledger().training_floats
    full = tables_of("full", data, None, device)
    adjacency = Csr.from_scipy(normalise(bipartite_adjacency(data.train))).on(device)
    for name, product in (("plain", torch.sparse.mm), ("plain, symmetric backward", SymmetricProduct.apply)):
        rows = torch.cat(full()).detach().clone().requires_grad_()
        found[name] = stepper(
            lambda batch, rows=rows, product=product: BPR().of_differences(
                plain_differences(rows, adjacency, product, data.num_users, batch)
            ),
            torch.optim.Adam([rows], lr=0.01, fused=True),
        )
    for name, model in peers.items():
        found[name] = stepper(loss_of(name, model), torch.optim.Adam(model.parameters(), lr=0.01))
    return found, ours


def stepper(loss_of_batch: Callable[[Batch], Tensor], optimizer: torch.optim.Optimizer) -> Callable[[Batch], float]:
    def step(batch: Batch) -> float:
        loss = loss_of_batch(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("datasets", nargs="*", default=["synthetic"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1024, 131072])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="auto")
    add_arguments(parser)
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    speed, flops = bandwidth(device), product_speed(device)
    print(f"{device.type}, {torch.get_num_threads()} threads, {speed / 1e9:.1f} GB/s, {flops / 1e9:.0f} GFLOP/s")
    for name in arguments.datasets:
        data, budget = load(name), configuration([f"dataset={name}"]).budget
        codes = tables_of("baco", data, budget, device).assignment
        peers = models(arguments, data, device, codes)
        print(f"\n{name}: {data.train.num_nodes} nodes, {data.train.num_edges} interactions")
        for batch_size in arguments.batch_sizes:
            runs, ours = steppers(data, budget, device, peers, batch_size)
            seconds: dict[str, list[float]] = {run: [] for run in runs}
            losses: dict[str, float] = {}
            sampler = Sampler(data.train, batch_size, torch_stream(0, "sampling", device))
            batches = itertools.chain.from_iterable(sampler.epoch() for _ in itertools.count())
            for number, batch in enumerate(itertools.islice(batches, arguments.steps + 2)):
                for run, take in runs.items():
                    wanted = ours[run][0].num_negatives(len(batch.users)) if run in ours else len(batch.negatives)
                    given = batch._replace(negatives=batch.negatives[:wanted])
                    synchronize(device)
                    start = time.perf_counter()
                    losses[run] = take(given)
                    synchronize(device)
                    if number >= 2:  # the first steps compile and warm the caches
                        seconds[run].append(time.perf_counter() - start)
            print(f"batch {batch_size:<24}{'ms a step':>10}{'s an epoch':>12}{'ratio':>8}{'bound':>10}{'loss':>10}")
            for run in runs:
                median = np.median(seconds[run])
                ratio = median / np.median(seconds[OURS])
                bound = "-"
                if run in ours:
                    loss, chains, parameters = ours[run]
                    seconds_at_least = step_bytes(chains, batch_size, parameters) / speed
                    seconds_at_least += score_operations(loss, batch, data.train.num_nodes) / flops
                    bound = f"{median / seconds_at_least:.1f} x"
                print(
                    f"  {run:<28}{1000 * median:>10.1f}{median * sampler.num_batches:>12.1f}{ratio:>8.2f}{bound:>10}"
                    f"{losses[run]:>10.5f}"
                )


if __name__ == "__main__":
    run_script(main)
