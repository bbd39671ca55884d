"""The Pareto front of a figure: which points are on it, and their names beside them."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

BESIDE = (  # where a name may stand: offset in points, and what of it is there; first where no better point can be
    ((-3, 2), "right", "bottom"),
    ((0, 4), "center", "bottom"),
    ((3, 2), "left", "bottom"),
    ((-5, 0), "right", "center"),
    ((5, 0), "left", "center"),
    ((0, -4), "center", "top"),
)


def pareto(points: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Costs and values of the points that no other one beats: none is cheaper and as good, or as cheap and better."""
    costs: list[float] = []
    values: list[float] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not values or value > values[-1]:
            costs.append(cost)
            values.append(value)
    return costs, values


def choose_labels(front: list[tuple[float, float]], names: dict[tuple[float, float], str]) -> list[tuple[str, tuple]]:
    """The points of a front that get their names written beside them: each name once, and of points that cost about
    the same the best."""
    first: dict[str, tuple[float, float]] = {}
    for point, dearer in zip(front, [*front[1:], (float("inf"), 0.0)], strict=True):
        if dearer[0] > 1.1 * point[0]:
            first.setdefault(names[point], point)
    return list(first.items())


def write_names(figure: Figure, names: list[tuple[Axes, str, tuple[float, float]]]) -> None:
    """Write names beside points, within the panel and over none of the others; without a place the legend must do."""
    figure.draw_without_rendering()  # the layout decides where points are
    margin = 3 * figure.dpi / 72  # a saved figure is laid out again, for its own resolution
    radius = mpl.rcParams["lines.markersize"] / 2 * figure.dpi / 72
    centers = [axes.transData.transform(point) for axes, _, point in names]
    taken = [Bbox([center - radius, center + radius]) for center in centers]
    for axes, text, point in sorted(names, key=lambda name: -name[2][1]):
        for offset, horizontal, vertical in BESIDE:
            note = axes.annotate(
                text, point, offset, textcoords="offset points", ha=horizontal, va=vertical, fontsize=6
            )
            note.set_in_layout(False)
            box = note.get_window_extent()
            inside = axes.bbox.x0 + margin < box.x0 and box.x1 < axes.bbox.x1 - margin
            if inside and not any(map(box.overlaps, taken)):
                taken.append(box)
                break
            note.remove()
