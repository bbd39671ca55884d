"""Place the rows of full tables on devices by every sharder: `python scripts/bench_placement.py gowalla yelp2018`.

Co-clusters are those of the method baco at the dataset's own budget. `--budgets 1000 4000` adds coarser and finer ones,
in codebook rows, placed whole. `--figure FILE.png` draws what they and the other sharders have apart. For generated
data of 10 million training interactions:

    python scripts/bench_placement.py synthetic --set dataset.num_users=400000 dataset.num_items=200000 \\
        dataset.num_interactions=12500000 dataset.num_clusters=2000
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from _common import run_script
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from baco.cli.place import size
from baco.files import check_writable, write_bytes
from baco.placement.cost import Devices
from baco.placement.placing import HEADER, SHARDERS, Placement, place_rows
from baco.placement.sources import rows_of
from baco.results.figures import COLORS, PANEL, STYLE, as_bytes

WHOLE = "coclusters"
DRAWN = ("random", "metis")  # beside co-clusters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("datasets", nargs="*", default=["synthetic"])
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--memory", type=size, default="5GiB")
    parser.add_argument("--budgets", nargs="+", default=[], help="of further co-clusters")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="as for `baco run`")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    if arguments.figure is not None:
        check_writable(arguments.figure, "--figure")
    devices = Devices(arguments.devices, arguments.memory)
    found = {name: compare(name, devices, arguments.set, arguments.budgets) for name in arguments.datasets}
    if arguments.figure is not None:
        with mpl.rc_context(STYLE):
            write_bytes(arguments.figure, as_bytes(draw(found), "png"))


def compare(name: str, devices: Devices, overrides: list[str], budgets: list[str]) -> dict[str | int, Placement]:
    """The placements of a dataset by the names of their sharders, and by their numbers of co-clusters; printed."""
    start = time.perf_counter()
    rows, seed = rows_of(name, overrides)
    own = len(np.unique(rows.groups))
    print(f"\n{name}: {rows.count:,} rows, {rows.graph.num_edges:,} interactions, {own:,} co-clusters", end=" ")
    print(f"({time.perf_counter() - start:.1f} s with the data)\n{HEADER}", flush=True)
    found: dict[str | int, Placement] = {}
    for sharder in SHARDERS:
        found[sharder] = place_rows(rows, devices, sharder, seed)
        print(found[sharder], flush=True)
    found[own] = found[WHOLE]
    for budget in budgets:
        rows, seed = rows_of(name, [*overrides, f"budget={budget}"])
        number = len(np.unique(rows.groups))
        found[number] = replace(place_rows(rows, devices, WHOLE, seed), sharder=f"{number:,} co-clusters")
        print(found[number], flush=True)
    return found


def draw(found: dict[str, dict[str | int, Placement]]) -> Figure:
    """What is apart, over the number of co-clusters."""
    width, height = PANEL
    figure = Figure(figsize=(0.8 * width * len(found), 0.8 * height), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for axes, (name, placements) in zip(panels, found.items(), strict=True):
        numbers = sorted(key for key in placements if isinstance(key, int))
        apart = [100 * placements[number].share_apart for number in numbers]
        axes.plot(numbers, apart, "o-", color=COLORS[0], label="whole co-clusters")
        for sharder, color in zip(DRAWN, COLORS[1:], strict=False):
            axes.axhline(100 * placements[sharder].share_apart, color=color, ls="--", label=sharder)
        decades = 10.0 ** np.floor(np.log10(min(numbers))), 10.0 ** np.ceil(np.log10(max(numbers) + 1))
        axes.set(title=name, xlabel="co-clusters", xscale="log", xlim=decades, ylim=(0, 100))
        axes.xaxis.set_minor_formatter(NullFormatter())
    panels[0].set_ylabel("interactions apart, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


if __name__ == "__main__":
    run_script(main)
