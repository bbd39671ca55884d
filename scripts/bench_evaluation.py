"""Time full-ranking evaluation side by side: `python scripts/bench_evaluation.py beauty gowalla`.

Ours ranks all users of the test split, propagation and metrics included. The peers whose folders are named rank some
blocks of users of the size that they rank at once (32 and 100; each propagates anew for every block), and the time for
all users is worked out from those.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from _common import load, run_script
from _peers import DIM, LAYERS, add_arguments, evaluator_of, models

from baco.backbones.backbone import LightGCN
from baco.data.interactions import Interactions
from baco.device import peak_memory, reset_peak_memory, resolve_device, synchronize
from baco.evaluation.evaluator import Evaluator
from baco.rng import torch_stream
from baselines.full import full_tables


def our_evaluation(data: Interactions, device: torch.device, k: int) -> Callable[[], None]:
    tables = full_tables(data.train, DIM)
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    tables.to(device)
    backbone, evaluator = LightGCN(data.train, LightGCN.Config(num_layers=LAYERS)), Evaluator(data)

    @torch.no_grad()
    def evaluate() -> None:
        evaluator.evaluate(*backbone.final_embeddings(tables), "test", k).means()

    return evaluate


def seconds_of(work: Callable[[], None], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("datasets", nargs="*", default=["synthetic"])
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    add_arguments(parser)
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    for name in arguments.datasets:
        data = load(name)
        users = np.flatnonzero(data.test.user_degrees)
        evaluate = our_evaluation(data, device, arguments.k)
        evaluate()  # compiles
        reset_peak_memory(device)
        rankers = {
            peer: evaluator_of(peer, arguments, model, data, device, arguments.k)
            for peer, model in models(arguments, data, device).items()
        }
        seconds: dict[str, list[float]] = {run: [] for run in ("ours", *rankers)}
        with torch.no_grad():
            for repeat in range(arguments.repeats):
                seconds["ours"].append(seconds_of(evaluate, device))
                for peer, (block, rank) in rankers.items():
                    start = repeat * block % max(1, len(users) - block)
                    chosen = users[start : start + block]
                    per_user = seconds_of(lambda rank=rank, chosen=chosen: rank(chosen), device) / len(chosen)
                    seconds[peer].append(per_user * len(users))
        print(f"\n{name}: {len(users)} users x {data.num_items} items, k = {arguments.k}, {device.type}")
        print(f"{'':<28}{'s for all users':>16}{'ratio':>8}")
        for run, taken in seconds.items():
            print(f"  {run:<26}{np.median(taken):>16.2f}{np.median(taken) / np.median(seconds['ours']):>8.1f}")
        if not rankers:
            peaks = {place: peak for place, peak in peak_memory(device).items() if peak is not None}
            print("  " + ", ".join(f"{place} {peak / 2**30:.2f} GiB" for place, peak in peaks.items()))


if __name__ == "__main__":
    run_script(main)
