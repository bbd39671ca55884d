"""The figures of results/figures: like the tables a pure function of the records, in PDF and PNG.

Colours are those of Okabe and Ito, which the colour-blind can tell apart; markers tell methods apart in print.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from baco.evaluation.groups import QUARTILES
from baco.files import write_bytes
from baco.results.columns import ACTIVITY, of_one_device, row_label
from baco.results.front import choose_labels, pareto, write_names
from baco.results.published import method_label, published, published_result
from baco.results.runs import RANKING, SECONDS
from baco.results.summary import Row, Section, join_sections, sections
from baco.runs.experiments import CONF, load_experiment
from baco.runs.record import record_arrays

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X<>"
FILLS = ("full", "none", "left", "right", "bottom", "top")
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "lines.markersize": 5,
    "pdf.fonttype": 42,
}
HIGHLIGHTED = ("full", "one_sided", "baco", "baco_plus", "graphhash", "pq", "random", "su", "qat")
FULL_MODEL = COLORS[HIGHLIGHTED.index("full")]
RECALL = RANKING["R@20"]
RANKED = RANKING["R@10"]  # which the paper's Table 8 has
PANEL = (3.2, 2.5)  # inches


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure with its file name and caption; `figure` is None as long as nothing is recorded for it."""

    name: str
    caption: str
    experiment: str
    figure: Figure | None

    @property
    def command(self) -> str:
        """The command that runs what it shows."""
        return f"python run.py +grid={self.experiment}"


class Gallery:
    """Makes the pictures.

    Parameters
    ----------
    records : list of dict
    folder : Path
        Where they lie, with what was kept beside them.
    """

    def __init__(self, records: list[dict], folder: Path, conf: Path = CONF):
        self.records, self.folder, self.conf = records, folder, conf
        order = dict.fromkeys(run["method"] for run in load_experiment("all", conf).runs)
        self.look = {method: _look(place) for place, method in enumerate(order)}

    def pictures(self) -> list[Picture]:
        """All of them, in the order of the report."""
        makers = (
            self.ranking,
            self.recall_over_ratio,
            self.recall_over_bytes,
            self.recall_over_seconds,
            self.curves,
            self.rounds,
            self.user_groups,
            self.cluster_sizes,
        )
        with mpl.rc_context(STYLE):
            return [make() for make in makers]

    def found(self, *experiments: str) -> list[Section]:
        """The sections of some experiments that have records, those that share everything joined."""
        found = [
            section
            for name in experiments
            for section in sections(load_experiment(name, self.conf), self.records, self.folder, self.conf)
        ]
        return join_sections([section for section in found if section.records])

    # Quality against cost --------------------------------------------------------------------------------------------

    def ranking(self) -> Picture:
        """All methods at the paper's budget, beside the paper's Table 8."""
        found = self.found("main_table", "paper")
        ranked = [sorted((row for row in section.rows if row.records), key=_mean(RANKED, 100)) for section in found]
        figure, panels = _panels(len(found), [_height(rows) for rows in ranked])
        for axes, section, rows in zip(panels, found, ranked, strict=True):
            dataset, backbone = section.about.dataset["name"], section.about.config["backbone"]["name"]
            for place, row in enumerate(rows):
                value, spread = 100 * row.mean(RANKED), np.nan_to_num(100 * row.deviation(RANKED))
                axes.errorbar(value, place, xerr=spread, label="ours", fmt="o", color=COLORS[0], ms=4, lw=1)
                if backbone == "lightgcn":
                    theirs = published_result(dataset, row.method, row.variant, "recall", 10)
                    axes.plot(
                        theirs, place, label="the paper's Table 8", ls="", marker="D", mfc="none", color=COLORS[1], ms=4
                    )
            _name_lines(axes, map(row_label, rows))
            axes.set(title=section.name, xlabel="Recall@10, %")
        caption = (
            "Recall@10, mean and standard deviation over seeds, beside the paper's (its protocol; for Gowalla and "
            "Yelp2018 other splits of the same kind). All are at the paper's budget but the full model, also in fewer "
            "bits, and those with a †, which keep to no budget."
        )
        return self._picture("ranking", caption, "main_table", figure, panels)

    def recall_over_ratio(self) -> Picture:
        caption = "Recall@20 against the ratio of parameters to the full model's; the line is the Pareto front."
        found, ratio = self.found("main_table", "budgets"), _mean("size.parameter_ratio", 100)
        return self._against("recall_over_ratio", caption, "parameters, % of the full model", ratio, found)

    def recall_over_bytes(self) -> Picture:
        caption = "Recall@20 against the bytes of tables and codes at inference; the line is the Pareto front."
        found = self.found("main_table", "bytes")
        return self._against("recall_over_bytes", caption, "bytes at inference, MB", _mean("size.bytes", 1e-6), found)

    def recall_over_seconds(self) -> Picture:
        caption = (
            "Recall@20 against the seconds of clustering, search and training together; the line is the Pareto front. "
            "A panel has the runs of one kind of CPU or GPU, that of most of them; what else ran there differs: see "
            "results/README.md."
        )

        def seconds(row: Row) -> float:
            return sum(row.mean(path) for path in SECONDS.values())

        found = [of_one_device(section) for section in self.found("main_table")]
        return self._against("recall_over_seconds", caption, "clustering + search + training, s", seconds, found)

    def curves(self) -> Picture:
        """How fast each method learns, when every one is trained to its end."""
        found = self.found("best")
        figure, panels = _panels(len(found))
        places = {label: place for place, label in enumerate(dict.fromkeys(row.label for s in found for row in s.rows))}
        for axes, section in zip(panels, found, strict=True):
            for row in (row for row in section.rows if row.records):
                record = row.records[0]
                seconds, (epochs, _, recalls) = record["seconds"], np.transpose(record["training"]["history"])
                times = seconds["clustering"] + seconds["search"] + seconds["epoch"] * epochs
                axes.plot(times, 100 * recalls, label=row.label, lw=0.8, ms=3, **_look(places[row.label]))
            axes.set(
                title=section.name, xlabel="clustering + search + training, s", ylabel="Recall@20 in validation, %"
            )
        caption = (
            "Recall@20 in validation over the seconds of clustering, search and training, without those of validating; "
            "one seed. Every method has settings that were tuned for it; trainings had one thread each beside others, "
            "so that seconds of different runs can be compared roughly only."
        )
        return self._picture("curves", caption, "best", figure, panels)

    def _against(
        self, name: str, caption: str, label: str, cost: Callable[[Row], float], found: list[Section]
    ) -> Picture:
        """Recall over a cost: the full model as a line, the methods that matter most in colours, the others grey."""
        figure, panels = _panels(len(found))
        fills, names = {"": "full"}, []  # by variant of a method
        for axes, section in zip(panels, found, strict=True):
            points = {row: (cost(row), 100 * row.mean(RECALL)) for row in section.rows if row.records}
            front = pareto(points.values())
            axes.step(*front, where="post", color="#888888", lw=0.8, zorder=1)
            for row in (row for row in points if row.method == "full" and not row.variant):
                recalls = 100 * row.values(RECALL)
                axes.axhspan(recalls.min(), recalls.max(), color=FULL_MODEL, alpha=0.25, lw=0)
                axes.axhline(points[row][1], color=FULL_MODEL, lw=0.8, ls="--", zorder=1)
            for rows in _alike(points):
                line = list(zip(*sorted(points[row] for row in rows), strict=True))
                if rows[0].method in HIGHLIGHTED:
                    fill = fills.setdefault(rows[0].variant, FILLS[len(fills) % len(FILLS)])
                    look = _look(HIGHLIGHTED.index(rows[0].method)) | {"zorder": 3}
                    axes.plot(*line, lw=0.8, fillstyle=fill, label=rows[0].label, **look)
                else:
                    axes.plot(*line, ls="", marker=".", ms=4, color="#aaaaaa", label="other methods", zorder=2)
            labels = {point: row.label for row, point in points.items()}
            names += [(axes, *one) for one in choose_labels(list(zip(*front, strict=True)), labels)]
            axes.margins(0.12)
            axes.set(title=textwrap.fill(section.name, 44), xlabel=label, ylabel="Recall@20, %", xscale="log")
            wide = max(point[0] for point in points.values()) > 500 * min(point[0] for point in points.values())
            axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
        caption += " Dashed: the full model, the band from the lowest to the highest of its seeds."
        picture = self._picture(name, caption, "main_table", figure, panels)
        write_names(figure, names)
        return picture

    # One setting of BACO ---------------------------------------------------------------------------------------------

    def rounds(self) -> Picture:
        """The paper's Figure 4, and what the rounds are worth."""
        found = self.found("rounds")
        figure, panels = _panels(2 if found else 0)
        paper = published("figure4")
        for (left, right), (place, section) in ((panels, one) for one in enumerate(found)):
            name = section.about.dataset["name"]
            look = _look(place)
            theirs = paper[paper["dataset"] == name]
            left.plot(theirs["iteration"], theirs["value"], ls=":", mfc="none", label=f"{name}, paper", **look)
            for axes, path in ((left, "size.parameter_ratio"), (right, RECALL)):
                axes.plot(*_line(section.rows, "method.num_rounds", path), label=name, **look)
        for axes, label in zip(panels, ("parameters, % of the full model", "Recall@20, %"), strict=False):
            axes.set(xlabel="rounds T", ylabel=label)
        caption = "Size and recall of BACO after T rounds; dotted: the paper's Figure 4, of its splits."
        return self._picture("rounds", caption, "rounds", figure, panels)

    # Who, and how evenly ---------------------------------------------------------------------------------------------

    def user_groups(self) -> Picture:
        """The paper's Figure 5."""
        found = self.found("user_groups")
        figure, panels = _panels(len(found))
        paper = published("figure5").query("metric == 'recall' and k == 20")
        for axes, section in zip(panels, found, strict=True):
            for row in (row for row in section.rows if row.records):
                recalls = [100 * row.mean(path) for path in ACTIVITY.values()]
                axes.plot(QUARTILES, recalls, label=row.label, **self.look[row.method])
            self._published(axes, paper[paper["dataset"] == section.about.dataset["name"]], "user_group")
            axes.set(title=section.name, xlabel="users by training interactions", ylabel="Recall@20, %")
        caption = (
            "Recall@20 by the quartile of users' training interactions; dotted: the paper's Figure 5 (its protocol and "
            "splits)."
        )
        return self._picture("user_groups", caption, "user_groups", figure, panels)

    def cluster_sizes(self) -> Picture:
        """The paper's Figure 7; needs what is kept beside newer records."""
        found, without = [], []
        for section in self.found("cluster_sizes"):
            for side in ("users", "items"):
                kept = [(row, record_arrays(row.records[0], self.folder)) for row in section.rows if row.records]
                without += [f"{row.label} ({section.name})" for row, arrays in kept if f"{side}_per_row" not in arrays]
                sizes = [(row, arrays[f"{side}_per_row"]) for row, arrays in kept if f"{side}_per_row" in arrays]
                if sizes:
                    found.append((section, side, sizes))
        figure, panels = _panels(len(found))
        for axes, (section, side, sizes) in zip(panels, found, strict=True):
            for row, counts in sizes:
                share = np.arange(1, len(counts) + 1) / len(counts)
                axes.plot(share, counts, label=row.label, markevery=0.1, **self.look[row.method])
            axes.set(
                title=section.name, xlabel="share of the rows, largest first", ylabel=f"{side} per row", yscale="log"
            )
        caption = "How many users and items share a row, each counted at its first code (the paper's Figure 7)."
        if without:
            caption += f" Not kept in older records: {'; '.join(dict.fromkeys(without))}."
        return self._picture("cluster_sizes", caption, "cluster_sizes", figure, panels)

    def _published(self, axes: Axes, curves: pd.DataFrame, x: str) -> None:
        """The paper's curves, one for each method, dotted."""
        for method, points in curves.groupby("method"):
            label, look = f"{method_label(str(method))}, paper", self.look[str(method)]
            axes.plot(points[x], points["value"], ls=":", mfc="none", label=label, **look)

    def _picture(self, name: str, caption: str, experiment: str, figure: Figure, panels: list[Axes]) -> Picture:
        if not panels:
            return Picture(name, caption, experiment, None)
        entries = {
            label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        columns = min(len(entries), 5)
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, frameon=False)
        return Picture(name, caption, experiment, figure)


def write_figures(pictures: list[Picture], folder: Path) -> list[Path]:
    """Write each picture that there is as PDF and PNG."""
    written = []
    for picture in pictures:
        if picture.figure is None:
            continue
        for suffix in ("pdf", "png"):
            written.append(folder / f"{picture.name}.{suffix}")
            write_bytes(written[-1], as_bytes(picture.figure, suffix))
    return written


def as_bytes(figure: Figure, suffix: str) -> bytes:
    """A file of the figure, the same for the same figure: without the time and the program's version."""
    metadata = {"pdf": {"CreationDate": None, "Producer": None, "Creator": None}, "png": {"Software": None}}
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=suffix, dpi=200, metadata=metadata[suffix])
    return buffer.getvalue()


def _look(place: int) -> dict[str, Any]:
    """Colour and marker of the method, or curve, at this place of an order."""
    return {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place % len(MARKERS)]}


def _mean(path: str, unit: float) -> Callable[[Row], float]:
    return lambda row: unit * row.mean(path)


def _line(rows: list[Row], setting: str, path: str) -> tuple[list[Any], list[float]]:
    """A setting of the rows that are recorded, and what they have at a path, in percent."""
    recorded = sorted((row.settings[setting], 100 * row.mean(path)) for row in rows if row.records)
    return [x for x, _ in recorded], [y for _, y in recorded]


def _alike(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows that differ in their budget only."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.label, []).append(row)
    return list(groups.values())


def _height(lines: Sized) -> float:
    """Inches that a panel with so many named lines takes."""
    return 0.13 * len(lines) + 0.6


def _name_lines(axes: Axes, labels: Iterable[str]) -> None:
    """Name the lines 0, 1, ... of a panel, from below."""
    short = [textwrap.shorten(label, 30, placeholder=" …") for label in labels]
    axes.set_yticks(range(len(short)), short, fontsize=6)
    axes.set_ylim(-0.7, len(short) - 0.3)


def _panels(count: int, heights: list[float] | None = None) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, two or three side by side; rows as high, in inches, as the highest one in them."""
    columns = 2 if count in (1, 2, 4) else 3
    heights = [PANEL[1]] * count if heights is None else heights
    of_rows = [max(heights[start : start + columns]) for start in range(0, count, columns)] or [PANEL[1]]
    figure = Figure(figsize=(PANEL[0] * columns, sum(of_rows) + 0.6), layout="constrained")
    grid = figure.add_gridspec(len(of_rows), columns, height_ratios=of_rows)
    return figure, [figure.add_subplot(grid[number // columns, number % columns]) for number in range(count)]
