"""What all tables of results share: the columns of numbers, the text of a cell, the notes below a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from baco.evaluation.groups import QUARTILES
from baco.results.published import authors_split
from baco.results.render import CUT_OFF, Cell, Table
from baco.results.runs import SECONDS
from baco.results.summary import Row, Section
from baco.runs.tuned import TUNED_PROTOCOL, tuned_file

MISSING = "—"

# R@20 of the users with the fewest interactions to those with the most, and where a record has it.
ACTIVITY = {f"R@20 {part}": f"metrics.test_by_activity.{part}.recall@20" for part in QUARTILES}

UNTRUNCATED = {"R@20 untruncated": "metrics.test.recall_untruncated@20"}  # over all relevant items, as LightGCN's
FRACTIONS = ACTIVITY | UNTRUNCATED  # shown in percent

# Columns of numbers: where a record keeps them, and how they are printed.
COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "parameters": ("size.parameters", "{:,.0f}".format),
    "bytes": ("size.bytes", "{:,.0f}".format),
    "ratio": ("size.parameter_ratio", "{:.1%}".format),
    "clustering s": (SECONDS["clustering s"], "{:.2f}".format),
    "search s": (SECONDS["search s"], "{:.1f}".format),
    "training s": (SECONDS["training s"], "{:.1f}".format),
    "s per epoch": ("seconds.epoch", "{:.3f}".format),
    "epochs": ("training.epochs", "{:.0f}".format),
    "cut off": ("training.convergence.cut_off", "{:.0%}".format),
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
    **{name: (path, lambda value: f"{100 * value:.2f}") for name, path in FRACTIONS.items()},
}


def section_notes(section: Section) -> list[str]:
    """What the rows of a section share, and what is missing of them."""
    notes = []
    if section.records:
        data = section.records[0]["dataset"]
        short = data["fingerprint"][:8]
        own = authors_split(data["name"]) == data["fingerprint"]
        split = f"the authors' own split, {short}" if own else f"split {short}"
        notes.append(
            f"{data['num_users']:,} users, {data['num_items']:,} items, {data['train']:,} / {data['val']:,} / "
            f"{data['test']:,} interactions ({split})."
        )
    about = section.about
    groups = ("backbone", "protocol", "loss")
    shared = {f"{group}.{key}": value for group in groups for key, value in about.run.untuned[group].items()}
    settings = ", ".join(f"{key}={value}" for key, value in shared.items() if not key.endswith(".name"))
    if settings:  # of a training
        notes.append(f"Settings: dim={about.config['dim']}, loss={about.config['loss']['name']}, {settings}.")
    notes += tuning_notes(section)
    unknown = [row.label for row in section.rows if not row.known]
    gaps: dict[str, list[str]] = {}  # by the experiment that fills them
    for row in section.rows:
        if row.missing and row.known:
            name = ", ".join(part for part in (row.label, row.budget) if part)
            seeds = ", ".join(str(run.get("seed", 0)) for run in row.missing)
            gaps.setdefault(row.experiment, []).append(f"{name} (seed {seeds})")
    for experiment, missing in gaps.items():
        notes.append(f"Missing: {'; '.join(missing)}. `{section.command_of(experiment)}` runs them.")
    if unknown:
        notes.append(f"Not in this version (‡): {', '.join(dict.fromkeys(unknown))}.")
    return notes + cut_off_notes(section.rows)


def tuning_notes(section: Section) -> list[str]:
    """Whether methods have settings of their own in place of the protocol's, and which have none."""
    about = section.about
    if about.config["protocol"]["name"] != TUNED_PROTOCOL:
        return []
    groups = about.dataset["name"], about.config["backbone"]["name"], about.config["loss"]["name"]
    untuned = [row.label for row in section.rows if row.known and not tuned_file((*groups, row.method)).exists()]
    notes = ["Each method has the settings that were tuned for it by validation (conf/tuned) in place of these."]
    return notes + ([f"Not tuned: {', '.join(dict.fromkeys(untuned))}."] if untuned else [])


def cut_off_notes(rows: Iterable[Row]) -> list[str]:
    """The legend of the mark for trainings that were cut off, where one of the rows has it."""
    if not any(row.cut_off for row in rows):
        return []
    return [
        f"{CUT_OFF}: cut off: validation recall still rose over the last quarter of the epochs, which are all that the "
        "protocol allows, in at least half of the runs (least squares, one-sided t-test at 2.5 %). Without the mark "
        "longer training may gain, too: see results/README.md."
    ]


def nothing_recorded(found: list[Section]) -> list[Table]:
    """A line for each section of which nothing is recorded yet."""
    return [
        Table(section.name, (f"Nothing is recorded yet. `{section.command}` runs it.",), (), 0, ())
        for section in found
        if not section.records
    ]


def row_keys(section: Section, row: Row) -> dict:
    """What says which row of which section a line of a CSV file is."""
    about = section.about
    return {
        "dataset": about.dataset["name"],
        "split": section.fingerprint or "",
        "backbone": about.config["backbone"]["name"],
        "protocol": about.config["protocol"]["name"],
        "changed": section.changed,
        "dim": about.config["dim"],
        "method": row.method,
        "settings": row.variant,
        "budget": row.budget,
        "limited": row.limited,
        "seeds": len(row.records),
    }


def row_label(row: Row) -> str:
    full = row.records and row.records[0]["size"].get("parameter_ratio") == 1
    return row.label + ("" if row.limited or full else " †") + ("" if row.known else " ‡")


def label_cell(row: Row) -> Cell:
    return Cell(row_label(row), mark=CUT_OFF if row.cut_off else "")


def percent(row: Row, path: str) -> str:
    mean, deviation = 100 * row.mean(path), 100 * row.deviation(path)
    return decimal(mean) + ("" if math.isnan(deviation) else f" ± {deviation:.2f}")


def decimal(value: float, sign: str = "") -> str:
    return MISSING if math.isnan(value) else f"{value:{sign}.2f}".replace("-", "−")


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def number_cell(row: Row, name: str) -> Cell:
    path, form = COLUMNS[name]
    value = row.mean(path)
    return Cell(MISSING if math.isnan(value) else form(value))


def device_of(record: dict) -> str:
    return record["environment"].get("gpu") or record["environment"].get("cpu") or record["environment"]["device"]


def devices(row: Row) -> str:
    """What a row was run on: GPUs or CPUs by name."""
    return ", ".join(sorted({device_of(record) for record in row.records}))


def of_device(row: Row, device: str) -> Row:
    """The row with its records of one device."""
    kept = [record for record in row.records if device_of(record) == device]
    return replace(row, records=kept)


def of_one_device(section: Section) -> Section:
    """The section with the records of the device that most were made on: only their seconds can be compared."""
    (device, _), *_ = Counter(sorted(map(device_of, section.records))).most_common(1)
    return replace(section, rows=[of_device(row, device) for row in section.rows])
