"""Figures and the page that holds everything."""

import math
import re
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.results.figures import STYLE, Gallery, Picture, as_bytes, write_figures
from baco.results.front import pareto
from baco.results.published import published_result
from baco.results.report import report
from baco.runs.record import load_records, pack_hits, record_name, save_record
from tests.results.test_tables import FULL, a_record, full


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_is_what_no_point_beats(points):
    front = set(zip(*pareto(points), strict=True))
    beaten = {(x, y) for x, y in points if any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)}
    assert front == set(points) - beaten


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the records lie."""
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def records(folder) -> list[dict]:
    """Runs for every figure."""
    made = [full(), a_record(0.10, method="baco"), a_record(0.05, method="random")]
    for rounds in (1, 5):
        fixed = {"method.profile": "reference", "method.seed": 2025, "method.resolution": 0.1308, "budget": 1}
        made.append(a_record(0.02 * rounds, method="baco", **fixed, **{"method.num_rounds": rounds}))
    for record in made:
        record["metrics"]["test_by_activity"] = {"0-25%": {"recall@20": 0.1}}
        names = record["names"]
        name = record_name(names["dataset"], names["backbone"], names["method"], record["id"])
        sizes = {f"{side}_per_row": np.array([5, 3, 1], np.int32) for side in ("users", "items")}
        hits = pack_hits(np.arange(4), np.ones(4), np.zeros((4, 50), bool))
        save_record(folder, name, record, hits | sizes)
    return load_records(folder)


@pytest.fixture(scope="module")
def pictures(records, folder) -> dict[str, Picture]:
    return {picture.name: picture for picture in Gallery(records, folder).pictures()}


def test_every_picture_can_be_drawn(pictures):
    drawn = [picture.figure for picture in pictures.values() if picture.figure is not None]
    for figure in drawn:
        figure.draw_without_rendering()
    assert len(drawn) >= 4


def test_points_and_lines_are_the_records(pictures):
    (axes,) = pictures["recall_over_ratio"].figure.axes
    points = {line.get_label(): line.get_xydata()[0].tolist() for line in axes.lines if line.get_label()[0] != "_"}
    assert points["FULL"] == pytest.approx([100, 20]) and points["BACO"] == pytest.approx([100 * 529088 / FULL, 10])
    front = next(line for line in axes.lines if line.get_label()[0] == "_")
    assert front.get_xydata()[:, 1].tolist() == pytest.approx([10, 20]), "random hashing is beaten"
    size, recall = pictures["rounds"].figure.axes
    lines = {line.get_label(): line.get_xydata() for line in recall.lines}
    assert lines["beauty"].tolist() == [[1, 2], [5, 10]]
    assert {line.get_label() for line in size.lines} == {"beauty", "beauty, paper"}
    users, items = pictures["cluster_sizes"].figure.axes
    assert users.lines[0].get_ydata().tolist() == [5, 3, 1] and items.get_ylabel() == "items per row"
    (axes,) = pictures["ranking"].figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["RANDOM", "BACO", "FULL"], "the best on top"
    ours = [line.get_xydata()[0].tolist() for line in axes.lines if line.get_marker() == "o"]
    paper = [line.get_xydata()[0].tolist() for line in axes.lines if line.get_marker() == "D"]
    assert ours == [[pytest.approx(5), 0], [pytest.approx(10), 1], [pytest.approx(20), 2]]
    assert paper == [[3.054, 0], [6.308, 1], [7.619, 2]], "the paper's Table 8, Beauty, R@10"
    assert pictures["curves"].figure is None and "+grid=best" in pictures["curves"].command


def test_curves_are_of_validation_over_seconds(tmp_path):
    record = a_record(0.2, method="full", protocol="best")
    record["seconds"] |= {"clustering": 3.0, "search": 1.0, "epoch": 2.0}
    record["training"]["history"] = [[1, 0.7, 0.1], [5, 0.6, 0.15]]
    (axes,) = Gallery([record], tmp_path).curves().figure.axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[6, pytest.approx(10)], [14, pytest.approx(15)]]]


def test_budgets_of_a_method_are_a_line_and_the_front_is_named(tmp_path):
    runs = (("baco", 0.1, 0.06), ("baco", 0.2, 0.08), ("random", 0.1, 0.03))
    made = [full(), *(a_record(recall, int(FULL * part), method=method, budget=part) for method, part, recall in runs)]
    (axes,) = Gallery(made, tmp_path).recall_over_ratio().figure.axes
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    assert lines["BACO"] == pytest.approx(np.array([[10, 6], [20, 8]]), rel=1e-4)
    assert [text.get_text() for text in axes.texts] == ["FULL", "BACO"], "the best first"


def test_names_stand_within_the_panel_and_cover_no_other_name(tmp_path):
    sizes = {"random": (1.00, 0.070), "baco": (1.15, 0.071), "lp": (1.35, 0.072), "brim": (1.6, 0.073)}
    made = [a_record(recall, int(4000 * size), method=method) for method, (size, recall) in sizes.items()]
    figure = Gallery([full(), *made], tmp_path).recall_over_ratio().figure
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert {"FULL", "BRIM", "LP"} <= {text.get_text() for text in axes.texts}, "there is room on both sides"
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1 for box in boxes)


def test_a_result_of_the_paper_stands_for_a_run_like_it():
    assert published_result("beauty", "baco", "", "recall", 10) == 6.308
    assert math.isnan(published_result("beauty", "baco", "secondary=false", "recall", 10))
    assert published_result("beauty", "baco", "profile=reference, seed=2025", "recall", 10) == 6.308
    assert math.isnan(published_result("beauty", "infomap", "", "recall", 10)), "its size is its own in the paper"
    assert published_result("beauty", "infomap", "matched=false", "ndcg", 50) == 2.893
    assert math.isnan(published_result("beauty", "baco_plus", "", "recall", 10))


def test_bytes_show_quantized_runs_beside_the_others(records, folder):
    spent = {"budget_unit": "bytes", "budget": 0.06, "backbone": "lightgcn", "method": "baco_plus"}
    packed = [a_record(0.07, 130_000, **spent), a_record(0.15, 120_000, **spent, quantize="int4")]
    gallery = Gallery([*records, a_record(0.05, method="baco_plus"), *packed], folder)
    by_bytes, by_ratio = gallery.recall_over_bytes(), gallery.recall_over_ratio()
    (axes,) = by_bytes.figure.axes
    lines = [line for line in axes.lines if line.get_label() == "BACO_PLUS + INT"]
    assert [line.get_xydata().tolist() for line in lines] == [[pytest.approx([0.48, 15])]]
    (plain,) = (line for line in axes.lines if line.get_label() == "BACO_PLUS")
    assert plain.get_xydata()[:, 0].tolist() == pytest.approx([0.52, 4 * 0.529088]), "one line over both budgets"
    assert plain.get_fillstyle() == "full"
    assert lines[0].get_marker() == plain.get_marker() and lines[0].get_fillstyle() != "full"
    front = next(line for line in axes.lines if line.get_label()[0] == "_")
    assert front.get_xydata()[:, 1].tolist() == pytest.approx([15, 20])
    assert "BACO_PLUS + INT" not in [line.get_label() for line in by_ratio.figure.axes[0].lines]


def test_seconds_are_of_one_device(records, folder):
    other = a_record(0.07, method="graphhash")
    other["environment"] = {"device": "cpu", "cpu": "another CPU", "gpu": None}
    (axes,) = Gallery([*records, other], folder).recall_over_seconds().figure.axes
    labels = {line.get_label() for line in axes.lines}
    assert "BACO" in labels and "GRAPHHASH" not in labels


def test_records_without_sizes_are_named_below_the_picture(records, folder):
    picture = Gallery([*records, a_record(0.07, method="graphhash")], folder).cluster_sizes()
    assert picture.caption.endswith("Not kept in older records: GRAPHHASH (beauty, LightGCN, protocol quick).")


def test_files_are_the_same_for_the_same_records(pictures, records, folder, tmp_path):
    with mpl.rc_context(STYLE):
        first, again = (Gallery(records, folder).rounds() for _ in range(2))
    written = write_figures([first, pictures["curves"]], tmp_path)
    assert [path.name for path in written] == ["rounds.pdf", "rounds.png"], "nothing is recorded for the other"
    for path in written:
        assert as_bytes(again.figure, path.suffix[1:]) == path.read_bytes()


class Page(HTMLParser):
    """Checks that every element is closed; counts them, and collects what they refer to."""

    def __init__(self):
        super().__init__()
        self.open, self.count, self.references = [], {}, []

    def handle_starttag(self, tag, attributes):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.references += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_from_outside(committed, pictures):
    made = list(committed.values())
    text = report(made, [pictures[name] for name in ("ranking", "recall_over_ratio", "curves")])
    assert "`" not in text  # what Markdown shows as code is <code> here
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.count["table"] == sum(bool(table.rows) for document in made for table in document.tables)
    assert page.count["img"] == 2 and page.count["script"] == 1
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in page.references)
    assert set(re.findall(r'href="#(\w+)"', text)) <= set(re.findall(r'id="(\w+)"', text))
    assert "10.44 ± 0.22" in text
