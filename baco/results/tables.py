"""The tables of results/tables: a pure function of the records, so that the same records give the same bytes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from baco.files import write_text
from baco.results.columns import (
    ACTIVITY,
    COLUMNS,
    FRACTIONS,
    MISSING,
    cut_off_notes,
    decimal,
    device_of,
    devices,
    label_cell,
    nothing_recorded,
    number_cell,
    of_device,
    p_value,
    percent,
    row_keys,
    row_label,
    section_notes,
)
from baco.results.published import published, published_result
from baco.results.render import CUT_OFF, FORMATS, SIGNIFICANT, Cell, Table
from baco.results.runs import RANKING, RUNS, SECONDS, frame
from baco.results.summary import OURS, Row, Section, Tests, first_of, join_sections, sections
from baco.runs.experiments import CONF, Experiment, experiment_names, load_experiment

ALPHA = 0.05
ONE_SIDED, NEAR = "one_sided", ("full", "pq", "opq", "mec", "rq", "dpq", "su", "bet", "baco_plus", "baco")
WITHOUT_TABLE = {"all", "smoke"}  # the others again; and numbers without a meaning
RECALL = RANKING["R@20"]
METRICS = [(path.split(".")[-1].partition("@")[0], int(path.partition("@")[2])) for path in RANKING.values()]

COMPARED = ("parameters", "bytes", "ratio", *SECONDS)
CLUSTERS = ("user rows", "item rows", "clusters", "largest", "single", "Gini", "links inside", "ACCL")
DISTANCES = ("users", "items", "all", "rotated users", "rotated items", "rotated all")
SHOWN = {  # what other experiments show is COMPARED
    "cluster_sizes": CLUSTERS,
    "distance": DISTANCES,
    "user_groups": (*ACTIVITY, "parameters"),
}
TIMED = (*SECONDS, "s per epoch", "epochs", "validation s", "test s", "host MB", "GPU MB")


@dataclass(frozen=True)
class Document:
    """What goes into the files of one name: tables for reading, and all numbers in full for machines."""

    name: str
    title: str
    about: str
    tables: tuple[Table, ...]
    data: pd.DataFrame


def documents(records: list[dict], folder: Path, conf: Path = CONF) -> list[Document]:
    """An overview, one document for each experiment, and the comparison with the published numbers.

    Parameters
    ----------
    folder : Path
        Where the records lie, with their per-user values.
    """
    made, found = {}, {}  # by experiment
    for name in sorted(set(experiment_names(conf)) - WITHOUT_TABLE, key=lambda name: (name != "main_table", name)):
        experiment = load_experiment(name, conf)
        found[name] = sections(experiment, records, folder, conf)
        made[name] = OWN.get(name, comparison)(experiment, found[name])
    main, compared = made.pop("main_table"), found["main_table"]
    published_beside = beside_published(join_sections(compared + found["paper"]))
    ahead = against_one_sided(join_sections(found["best"] + found["other_logs"] + compared))
    return [overview(compared), main, ahead, published_beside, *made.values()]


def write_tables(records: list[dict], folder: Path, record_folder: Path, conf: Path = CONF) -> list[Path]:
    """Write all documents as Markdown, LaTeX and CSV, and the list of runs as runs.csv."""
    written = []
    for document in documents(records, record_folder, conf):
        heads = {
            "md": f"# {document.title}\n\n{document.about}\n\n",
            "tex": "% packages: booktabs, graphicx\n",
        }
        for suffix, form in FORMATS.items():
            text = heads[suffix] + "\n".join(form(table, document.name) for table in document.tables)
            written.append(folder / f"{document.name}.{suffix}")
            write_text(written[-1], text)
        written.append(folder / f"{document.name}.csv")
        write_text(written[-1], document.data.to_csv(index=False, lineterminator="\n"))
    written.append(folder / "runs.csv")
    ordered = sorted(
        records, key=lambda record: (*(record["names"][key] for key in ("dataset", "backbone")), record["id"])
    )
    write_text(written[-1], frame(ordered, RUNS).to_csv(index=False, lineterminator="\n"))
    return written


# All at a glance -----------------------------------------------------------------------------------------------------


def overview(found: list[Section]) -> Document:
    """R@20 of every method, a column for each dataset and backbone, the best of the first column on top."""
    shown = [section for section in found if section.records]
    rows = [{tuple(row.settings.items()): row for row in section.rows if row.records} for section in shown]
    places = [section.ranked(RECALL) for section in shown]
    names = {key: row_label(row) for of_section in reversed(rows) for key, row in of_section.items()}

    def cells(key: tuple) -> list[Cell]:
        found = [of_section.get(key) for of_section in rows]
        return [
            Cell(MISSING) if row is None else Cell(percent(row, RECALL), place.get(row), CUT_OFF if row.cut_off else "")
            for row, place in zip(found, places, strict=True)
        ]

    def value(key: tuple) -> tuple[float, ...]:
        return tuple(of_section[key].mean(RECALL) if key in of_section else -1.0 for of_section in rows)

    ordered = sorted(names, key=value, reverse=True)
    notes = [f"{section.name}: {_budget(section)}" for section in shown]
    notes += cut_off_notes(row for section in shown for row in section.rows)
    lines = [
        row_keys(section, row) | {"R@20": 100 * row.mean(RECALL), "R@20 sd": 100 * row.deviation(RECALL)}
        for section, of_section in zip(shown, rows, strict=True)
        for row in of_section.values()
    ]
    columns = ("method", *(", ".join(section.name.split(", ")[:2]) for section in shown))
    table = Table("R@20", tuple(notes), columns, 1, tuple((Cell(names[key]), *cells(key)) for key in ordered))
    about = (
        "Recall@20 in percent, on the test split, of every method of the main comparison: mean ± standard deviation "
        "over seeds, or one seed. Bold is the best within the budget, underlined the runner-up. †: a method that keeps "
        "to no budget. All numbers, with sizes, times and significance, are in main_table."
    )
    tables = [table] if shown else []
    return Document("overview", "Overview", about, (*tables, *nothing_recorded(found)), pd.DataFrame(lines))


def _budget(section: Section) -> str:
    """The budget that most methods of a section have."""
    size = next((row.records[0]["size"] for row in section.rows if row.records and row.limited), None)
    if size is None:
        return "without a budget"
    share = size["budget_limit"] / size["full_parameters"]
    return f"{size['budget_limit']:,} parameters, {share:.1%} of the full model's."


# The comparison ------------------------------------------------------------------------------------------------------


def comparison(experiment: Experiment, found: list[Section]) -> Document:
    """Quality, size and time of each row, section by section."""
    about = (
        f"{experiment.about} Recall (over min(k, relevant)) and NDCG are in percent, on the test split; mean ± "
        "standard deviation over seeds. Bold is the best within the budget, underlined the runner-up. "
        f"{SIGNIFICANT}: differs from BACO (the first such row of the same budget), by a two-sided t-test paired over "
        f"users, each user's value the mean over the seeds that both have, at p < {ALPHA} after Holm's correction; its "
        "family is the rows of that budget in a table, each metric by itself. The CSV file has the differences, half "
        "of their 95 % intervals over users (margin; uncorrected) and their deviation over seeds (seed sd). Search is "
        "what a method does before the training itself: trainings of another model, or finding where rows start. †: a "
        "method that keeps to no budget; it has the size that it has."
    ).strip()
    tests = [section.tested(METRICS) for section in found]
    tables = [_comparison_table(*pair) for pair in zip(found, tests, strict=True) if pair[0].records]
    tables += nothing_recorded(found)
    data = pd.DataFrame([line for pair in zip(found, tests, strict=True) for line in _comparison_lines(*pair)])
    return Document(experiment.name, experiment.title, about, tuple(tables), data)


def _comparison_table(section: Section, tested: Tests) -> Table:
    shown = SHOWN.get(section.experiment.name, COMPARED)
    budgets = any(row.budget for row in section.rows)
    places = {name: section.ranked(path) for name, path in RANKING.items()}
    rows = []
    for row in (row for row in section.rows if row.known):
        cells = [label_cell(row), *([Cell(row.budget)] if budgets else []), Cell(str(len(row.records) or MISSING))]
        for number, (name, path) in enumerate(RANKING.items()):
            significant = row in tested and tested[row][number][1] < ALPHA
            cells.append(Cell(percent(row, path), places[name].get(row), SIGNIFICANT if significant else ""))
        rows.append((*cells, *(number_cell(row, name) for name in shown), Cell(devices(row) or MISSING)))
    columns = ("method", *(("budget",) if budgets else ()), "seeds", *RANKING, *shown, "device")
    return Table(section.name, tuple(section_notes(section)), columns, 1 + budgets, tuple(rows))


def _comparison_lines(section: Section, tested: Tests) -> Iterator[dict]:
    """All rows with all their numbers, unrounded; recall and NDCG in percent."""
    for row in section.rows:
        line = row_keys(section, row)
        group = next(group for group in section.groups if row in group)
        ours = first_of(OURS, group)
        line[f"seeds with {OURS}"] = 0 if ours is None else len(row.seeds_with(ours))
        for number, (name, path) in enumerate(RANKING.items()):
            line |= {name: 100 * row.mean(path), f"{name} sd": 100 * row.deviation(path)}
            against, p = tested[row][number] if row in tested else (None, math.nan)
            line[f"{name} - {OURS}"] = math.nan if against is None else 100 * against.difference
            line[f"{name} margin"] = math.nan if against is None else 100 * against.margin
            line[f"{name} seed sd"] = math.nan if ours is None or row is ours else _seed_deviation(row, ours, path)
            line |= {f"{name} effect": math.nan if against is None else against.effect, f"{name} p": p}
        yield line | {name: row.mean(path) * (100 if name in FRACTIONS else 1) for name, (path, _) in COLUMNS.items()}


def _seed_deviation(row: Row, other: Row, path: str) -> float:
    """Of the difference of two rows over the seeds that both have, in points of percent; NaN for fewer than two."""
    differences = row.differences(other, path)
    return 100 * statistics.stdev(differences) if len(differences) > 1 else math.nan


# One-sided tables against what comes near them ------------------------------------------------------------------------


def against_one_sided(found: list[Section]) -> Document:
    """What one-sided tables have more than the full model and the methods that come nearest, and how sure that is."""
    tables, lines = [], []
    for section in found:
        ours = next((row for row in section.rows if row.method == ONE_SIDED and not row.variant and row.records), None)
        if ours is None:
            continue
        near = [row for row in section.rows if row.method in NEAR and not row.variant]
        near += [row for row in section.rows if row.method == ONE_SIDED and row is not ours]
        same = [row for row in near if row.budget == ours.budget and row.records]
        chosen = replace(section, rows=[replace(row, missing=[]) for row in (ours, *same)])
        rows = []
        for row, tests in chosen.tested(METRICS, ONE_SIDED).items():
            seeds = len(row.seeds_with(ours))
            line, cells = row_keys(chosen, row) | {"seeds": seeds}, [label_cell(row), Cell(str(seeds))]
            for (name, path), (test, p) in zip(RANKING.items(), tests, strict=True):
                ahead, margin = -100 * test.difference, 100 * test.margin
                line |= {f"{ONE_SIDED} - {name}": ahead, f"{name} margin": margin}
                line |= {f"{name} seed sd": _seed_deviation(ours, row, path), f"{name} p": p}
                text = f"{decimal(ahead, '+')} ± {margin:.2f} ({p_value(p)})"
                cells.append(Cell(text, mark=SIGNIFICANT if p < ALPHA else ""))
            cells.append(Cell(", ".join(decimal(100 * one, "+") for one in ours.differences(row, RECALL))))
            rows.append(tuple(cells))
            lines.append(line)
        columns = (f"one-sided{CUT_OFF if ours.cut_off else ''} minus", "seeds", *RANKING, "R@20, each seed")
        family = (
            "±: half of the 95 % interval over users, uncorrected. "
            f"Family of Holm's correction: all rows ({len(rows)}), each metric by itself."
        )
        tables.append(Table(section.name, (*section_notes(chosen), family), columns, 1, tuple(rows)))
    about = (
        "What one-sided tables have more than each row, in points of percent, on the test split, ± half of its 95 % "
        "interval over users (Student's t, paired, without a correction), and in brackets the p-value of the same "
        "two-sided test. Each user's value is the mean over the seeds that both have; their number is shown, and what "
        "they give one by one, which the interval does not have in it. The p-values are after Holm's correction, whose "
        f"family is the rows of a table, each metric by itself; {SIGNIFICANT}: p < {ALPHA}."
    )
    title = "One-sided tables against what comes near them"
    return Document("against_one_sided", title, about, tuple(tables), pd.DataFrame(lines))


# Time ----------------------------------------------------------------------------------------------------------------


def speed(experiment: Experiment, found: list[Section]) -> Document:
    """Seconds and memory; clustering also as a multiple of BACO's."""
    about = (
        f"{experiment.about} Means over seeds. A table has the runs of one device only; clustering is on the CPU "
        "everywhere. Threads and other load are as they were: see results/README.md."
    )
    tables, lines = [], []
    for section in found:
        for device in sorted({device_of(record) for record in section.records}):
            there = replace(section, rows=[of_device(row, device) for row in section.rows])
            rows = [row for row in there.rows if row.records]
            ours = next((row.mean("seconds.clustering") for row in rows if row.method == OURS), math.nan)
            cells = []
            for row in rows:
                times = row.mean("seconds.clustering") / ours if ours else math.nan
                cells.append(
                    (
                        label_cell(row),
                        Cell(percent(row, RANKING["R@20"])),
                        *(number_cell(row, name) for name in TIMED),
                        Cell(MISSING if math.isnan(times) else f"{times:,.1f}"),
                    )
                )
                numbers = {name: row.mean(COLUMNS[name][0]) for name in TIMED}
                lines.append(row_keys(section, row) | {"device": device, "times": times} | numbers)
            columns = ("method", "R@20", *TIMED, "clustering, BACO = 1")
            tables.append(Table(f"{section.name}, {device}", tuple(section_notes(there)), columns, 1, tuple(cells)))
    tables += nothing_recorded(found)
    return Document(experiment.name, experiment.title, about, tuple(tables), pd.DataFrame(lines))


# Ours beside the paper's ---------------------------------------------------------------------------------------------


def beside_published(found: list[Section]) -> Document:
    """R and N at 10 and 50 beside the paper's Table 8, with the difference."""
    in_paper, names = set(published("table8")["dataset"]), {"recall": "R", "ndcg": "N"}
    tables, lines = [], []
    for section in found:
        dataset = section.about.dataset["name"]
        if section.about.config["backbone"]["name"] != "lightgcn" or dataset not in in_paper:
            continue
        rows = []
        for row in section.rows:
            cells, line = [label_cell(row)], row_keys(section, row)
            for metric, k in ((metric, k) for k in (10, 50) for metric in names):
                name = f"{names[metric]}@{k}"
                ours = 100 * row.mean(RANKING[name])
                theirs = published_result(dataset, row.method, row.variant, metric, k)
                cells += [
                    Cell(percent(row, RANKING[name])),
                    Cell(decimal(theirs)),
                    Cell(decimal(ours - theirs, "+")),
                ]
                line |= {name: ours, f"{name} paper": theirs, f"{name} difference": ours - theirs}
            rows.append(tuple(cells))
            lines.append(line)
        columns = (
            "method",
            *(f"{letter}@{k}{word}" for k in (10, 50) for letter in "RN" for word in ("", " paper", " −")),
        )
        tables.append(Table(section.name, tuple(section_notes(section)), columns, 1, tuple(rows)))
    about = (
        "Our runs beside Table 8 of the paper (results/reference/table8.csv) with the difference, in percent; ours are "
        "mean ± standard deviation over seeds. The paper's protocol is `paper`; where ours is another, both differ."
    )
    return Document("published", "Beside the published numbers", about, tuple(tables), pd.DataFrame(lines))


OWN = {"speed": speed}  # experiments whose table is no plain comparison
