"""The tables of results/tables: a pure function of the records, so that the same records give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from baco.experiments import CONF, Experiment, experiment_names, load_experiment
from baco.files import write_text
from baco.results.reference import authors_split, published, published_result
from baco.results.render import FORMATS, SIGNIFICANT, Cell, Table
from baco.results.runs import RANKING, RUNS, SECONDS, frame
from baco.results.summary import OURS, Row, Section, joined, sections

ALPHA = 0.05
WITHOUT_TABLE = {"all", "smoke"}  # the others again; and numbers without a meaning
MISSING = "—"
METRICS = [(path.split(".")[-1].partition("@")[0], int(path.partition("@")[2])) for path in RANKING.values()]

# Columns of numbers: where a record keeps them, and how they are printed.
COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "parameters": ("size.parameters", "{:,.0f}".format),
    "bytes": ("size.bytes", "{:,.0f}".format),
    "ratio": ("size.parameter_ratio", "{:.1%}".format),
    "clustering s": (SECONDS["clustering s"], "{:.2f}".format),
    "training s": (SECONDS["training s"], "{:.1f}".format),
    "s per epoch": ("seconds.epoch", "{:.3f}".format),
    "epochs": ("training.epochs", "{:.0f}".format),
    "validation s": ("seconds.validation", "{:.1f}".format),
    "test s": ("seconds.test", "{:.2f}".format),
    "host MB": ("memory.host_peak_bytes", lambda value: f"{value / 1e6:,.0f}"),
    "GPU MB": ("memory.device_peak_bytes", lambda value: f"{value / 1e6:,.0f}"),
    "user rows": ("size.user_rows", "{:,.0f}".format),
    "item rows": ("size.item_rows", "{:,.0f}".format),
    "clusters": ("assignment.clusters.count", "{:,.0f}".format),
    "largest": ("assignment.clusters.largest", "{:,.0f}".format),
    "single": ("assignment.clusters.singletons", "{:,.0f}".format),
    "Gini": ("assignment.clusters.gini", "{:.3f}".format),
    "links inside": ("assignment.clusters.internal_share", "{:.1%}".format),
    "ACCL": ("assignment.clusters.accl", "{:.3g}".format),
    "users": ("distance.users", "{:.3f}".format),
    "items": ("distance.items", "{:.3f}".format),
    "all": ("distance.all", "{:.3f}".format),
    "rotated users": ("distance.rotated_users", "{:.3f}".format),
    "rotated items": ("distance.rotated_items", "{:.3f}".format),
    "rotated all": ("distance.rotated_all", "{:.3f}".format),
}
COMPARED = ("parameters", "bytes", "ratio", "clustering s", "training s")
CLUSTERS = ("user rows", "item rows", "clusters", "largest", "single", "Gini", "links inside", "ACCL")
DISTANCES = ("users", "items", "all", "rotated users", "rotated items", "rotated all")
SHOWN = {"cluster_sizes": CLUSTERS, "distance": DISTANCES}  # what other experiments show is COMPARED
TIMED = ("clustering s", "training s", "s per epoch", "epochs", "validation s", "test s", "host MB", "GPU MB")


@dataclass(frozen=True)
class Document:
    """What goes into the files of one name: tables for reading, and all numbers in full for machines."""

    name: str
    title: str
    about: str
    tables: tuple[Table, ...]
    data: pd.DataFrame


def documents(records: list[dict], folder: Path, conf: Path = CONF) -> list[Document]:
    """One document for each experiment, and the comparison with the published numbers.

    Parameters
    ----------
    folder : Path
        Where the records lie, with their per-user values.
    """
    made, found = {}, {}
    for name in sorted(set(experiment_names(conf)) - WITHOUT_TABLE, key=lambda name: (name != "main_table", name)):
        experiment = load_experiment(name, conf)
        found[name] = sections(experiment, records, folder, conf)
        made[name] = (speed if name == "speed" else comparison)(experiment, found[name])
    main = made.pop("main_table")
    return [main, beside_published(joined(found["main_table"] + found["protocols"])), *made.values()]


def write_tables(records: list[dict], folder: Path, record_folder: Path, conf: Path = CONF) -> list[Path]:
    """Write all documents as Markdown, LaTeX and CSV, and the list of runs as runs.csv."""
    written = []
    for document in documents(records, record_folder, conf):
        heads = {"md": f"# {document.title}\n\n{document.about}\n\n", "tex": "% needs the package booktabs\n"}
        for suffix, form in FORMATS.items():
            text = heads[suffix] + "\n".join(form(table) for table in document.tables)
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


# The comparison ------------------------------------------------------------------------------------------------------


def comparison(experiment: Experiment, found: list[Section]) -> Document:
    """Quality, size and time of each row, section by section."""
    about = (
        f"{experiment.about} Recall (over min(k, relevant)) and NDCG are in percent, on the test split; mean ± "
        "standard deviation over seeds. Bold is the best within the budget, underlined the runner-up. "
        f"{SIGNIFICANT}: differs from BACO (the first such row of the same budget), by a two-sided t-test paired over "
        f"users, each user's value the mean over seeds, at p < {ALPHA} after Holm's correction for the rows of the "
        "table. †: a method that keeps to no budget; it has the size that it has."
    ).strip()
    tables = [_comparison_table(section) for section in found if section.records]
    tables += _nothing_recorded(found)
    return Document(experiment.name, experiment.title, about, tuple(tables), comparison_data(found))


def _comparison_table(section: Section) -> Table:
    shown = SHOWN.get(section.experiment.name, COMPARED)
    budgets = any(row.budget for row in section.rows)
    places = {name: section.ranked(path) for name, path in RANKING.items()}
    tested = section.tested(METRICS)
    rows = []
    for row in (row for row in section.rows if row.known):
        cells = [Cell(_label(row)), *([Cell(row.budget)] if budgets else []), Cell(str(len(row.records) or MISSING))]
        for number, (name, path) in enumerate(RANKING.items()):
            significant = row in tested and tested[row][number][1] < ALPHA
            cells.append(Cell(_percent(row, path), places[name].get(row), SIGNIFICANT if significant else ""))
        rows.append((*cells, *(_number(row, name) for name in shown), Cell(row.devices or MISSING)))
    columns = ("method", *(("budget",) if budgets else ()), "seeds", *RANKING, *shown, "device")
    return Table(section.name, tuple(_notes(section)), columns, 1 + budgets, tuple(rows))


def comparison_data(found: list[Section]) -> pd.DataFrame:
    """All rows with all their numbers, unrounded; recall and NDCG in percent."""
    lines = []
    for section in found:
        tested = section.tested(METRICS)
        for row in section.rows:
            line = _keys(section, row)
            for number, (name, path) in enumerate(RANKING.items()):
                line |= {name: 100 * row.mean(path), f"{name} sd": 100 * row.deviation(path)}
                against, p = tested[row][number] if row in tested else (None, math.nan)
                line[f"{name} - {OURS}"] = math.nan if against is None else 100 * against.difference
                line |= {f"{name} effect": math.nan if against is None else against.effect, f"{name} p": p}
            lines.append(line | {name: row.mean(path) for name, (path, _) in COLUMNS.items()})
    return pd.DataFrame(lines)


# Time ----------------------------------------------------------------------------------------------------------------


def speed(experiment: Experiment, found: list[Section]) -> Document:
    """Seconds and memory; clustering also as a multiple of BACO's."""
    about = (
        f"{experiment.about} Means over seeds. A table has the runs of one device only; clustering is on the CPU "
        "everywhere. Threads and other load are as they were: see results/README.md."
    )
    tables, lines = [], []
    for section in found:
        for device in sorted({_device(record) for record in section.records}):
            rows = [_only(row, device) for row in section.rows if row.known]
            ours = next((row.mean("seconds.clustering") for row in rows if row.method == OURS), math.nan)
            cells = []
            for row in rows:
                times = row.mean("seconds.clustering") / ours if ours else math.nan
                cells.append(
                    (
                        Cell(_label(row)),
                        Cell(_percent(row, RANKING["R@20"])),
                        *(_number(row, name) for name in TIMED),
                        Cell(MISSING if math.isnan(times) else f"{times:,.1f}"),
                    )
                )
                numbers = {name: row.mean(COLUMNS[name][0]) for name in TIMED}
                lines.append(_keys(section, row) | {"device": device, "times": times} | numbers)
            columns = ("method", "R@20", *TIMED, "clustering, BACO = 1")
            tables.append(Table(f"{section.name}, {device}", tuple(_notes(section)), columns, 1, tuple(cells)))
    tables += _nothing_recorded(found)
    return Document(experiment.name, experiment.title, about, tuple(tables), pd.DataFrame(lines))


# Ours beside the paper's ---------------------------------------------------------------------------------------------


def beside_published(found: list[Section]) -> Document:
    """R and N at 10 and 50 beside the paper's Table 8, with the difference."""
    in_paper, names = set(published("table8")["dataset"]), {"recall": "R", "ndcg": "N"}
    tables, lines = [], []
    for section in found:
        dataset = section.about.dataset["name"]
        if section.about.backbone["name"] != "lightgcn" or dataset not in in_paper:
            continue
        rows = []
        for row in section.rows:
            cells, line = [Cell(_label(row))], _keys(section, row)
            for metric, k in ((metric, k) for k in (10, 50) for metric in names):
                name = f"{names[metric]}@{k}"
                ours = 100 * row.mean(RANKING[name])
                theirs = published_result(dataset, row.method, row.variant, metric, k)
                cells += [
                    Cell(_percent(row, RANKING[name])),
                    Cell(_decimal(theirs)),
                    Cell(_decimal(ours - theirs, "+")),
                ]
                line |= {name: ours, f"{name} paper": theirs, f"{name} difference": ours - theirs}
            rows.append(tuple(cells))
            lines.append(line)
        columns = (
            "method",
            *(f"{letter}@{k}{word}" for k in (10, 50) for letter in "RN" for word in ("", " paper", " −")),
        )
        tables.append(Table(section.name, tuple(_notes(section)), columns, 1, tuple(rows)))
    about = (
        "Our runs beside Table 8 of the paper (results/reference/table8.csv) with the difference, in percent; ours are "
        "mean ± standard deviation over seeds. The paper's protocol is `paper`; where ours is another, both differ."
    )
    return Document("published", "Beside the published numbers", about, tuple(tables), pd.DataFrame(lines))


# Parts ---------------------------------------------------------------------------------------------------------------


def _notes(section: Section) -> list[str]:
    """What the rows of a section share, and what is missing of them."""
    notes = []
    if section.records:
        data = section.records[0]["dataset"]
        own = authors_split(data["name"]) == section.fingerprint
        split = f"the authors' own split, {section.fingerprint[:8]}" if own else f"split {section.fingerprint[:8]}"
        notes.append(
            f"{data['num_users']:,} users, {data['num_items']:,} items, {data['train']:,} / {data['val']:,} / "
            f"{data['test']:,} interactions ({split})."
        )
    about = section.about
    shared = {
        f"{group}.{key}": value for group in ("backbone", "protocol") for key, value in getattr(about, group).items()
    }
    settings = ", ".join(f"{key}={value}" for key, value in shared.items() if not key.endswith(".name"))
    notes.append(f"Settings: dim={about.dim}, {settings}.")
    unknown = [row.label for row in section.rows if not row.known]
    gaps = []
    for row in section.rows:
        if row.missing and row.known:
            name = ", ".join(part for part in (row.label, row.budget) if part)
            seeds = ", ".join(str(run.get("seed", 0)) for run in row.missing)
            gaps.append(f"{name} (seed {seeds})")
    if gaps:
        notes.append(f"Missing: {'; '.join(gaps)}. `{section.command}` runs them.")
    if unknown:
        notes.append(f"Not in this version (‡): {', '.join(dict.fromkeys(unknown))}.")
    return notes


def _nothing_recorded(found: list[Section]) -> list[Table]:
    """A line for each section of which nothing is recorded yet."""
    return [
        Table(section.name, (f"Nothing is recorded yet. `{section.command}` runs it.",), (), 0, ())
        for section in found
        if not section.records
    ]


def _keys(section: Section, row: Row) -> dict:
    """What says which row of which section a line of a CSV file is."""
    about = section.about
    return {
        "dataset": about.dataset["name"],
        "split": section.fingerprint or "",
        "backbone": about.backbone["name"],
        "protocol": about.protocol["name"],
        "dim": about.dim,
        "method": row.method,
        "settings": row.variant,
        "budget": row.budget,
        "limited": row.limited,
        "seeds": len(row.records),
    }


def _label(row: Row) -> str:
    full = row.records and row.records[0]["size"]["parameter_ratio"] == 1
    return row.label + ("" if row.limited or full else " †") + ("" if row.known else " ‡")


def _percent(row: Row, path: str) -> str:
    mean, deviation = 100 * row.mean(path), 100 * row.deviation(path)
    return _decimal(mean) + ("" if math.isnan(deviation) else f" ± {deviation:.2f}")


def _decimal(value: float, sign: str = "") -> str:
    return MISSING if math.isnan(value) else f"{value:{sign}.2f}".replace("-", "−")


def _number(row: Row, name: str) -> Cell:
    path, form = COLUMNS[name]
    value = row.mean(path)
    return Cell(MISSING if math.isnan(value) else form(value))


def _device(record: dict) -> str:
    return record["environment"].get("gpu") or record["environment"].get("cpu") or record["environment"]["device"]


def _only(row: Row, device: str) -> Row:
    """The row with its records of one device."""
    kept = [record for record in row.records if _device(record) == device]
    return Row(row.settings, row.known, kept, row.missing)
