"""Tables of records: a pure function of them, so that the same records give the same bytes."""

from __future__ import annotations

import hashlib
import json
from functools import reduce
from pathlib import Path

import pandas as pd

from baco.files import write_text

RANKING = {
    f"{letter}@{k}": f"metrics.test.{name}@{k}"
    for k in (10, 20, 50)
    for letter, name in (("R", "recall"), ("N", "ndcg"))
}
SIZE = {"parameters": "size.parameters", "bytes": "size.bytes"}
SECONDS = {"clustering s": "seconds.clustering", "training s": "seconds.training"}

# Columns by name, and where a record keeps them.
COMPARISON = {"method": "labels.method", **SIZE, "R@20": RANKING["R@20"], "N@20": RANKING["N@20"], **SECONDS}
OVERVIEW = {
    "dataset": "labels.dataset",
    "backbone": "labels.backbone",
    **COMPARISON,
    "protocol": "config.protocol.name",
    "seed": "config.seed",
    "device": "environment.device",
    "id": "id",
}
MAIN_TABLE = {
    "method": "labels.method",
    "seed": "config.seed",
    "parameters": "size.parameters",
    "ratio": "size.parameter_ratio",
    "bytes": "size.bytes",
    "budget used": "size.budget_used",
    **RANKING,
    **SECONDS,
    "epochs": "training.epochs",
    "device": "environment.device",
}

FORMATS = {
    "parameters": "{:,}",
    "bytes": "{:,}",
    "ratio": "{:.1%}",
    "budget used": "{:.2%}",
    "clustering s": "{:.2f}",
    "training s": "{:.1f}",
}


def frame(records: list[dict], columns: dict[str, str]) -> pd.DataFrame:
    """One row per record; a value that a record lacks is missing. Recall and NDCG are in percent.

    Where records of one method differ in its settings, a column tells them apart.
    """
    rows = [[_value(record, path) for path in columns.values()] for record in records]
    table = pd.DataFrame(rows, columns=list(columns))
    for column in table.columns.intersection(RANKING):
        table[column] *= 100
    variants = _variants(records)
    if any(variants):
        table.insert(table.columns.get_loc("method") + 1, "settings", variants)
    return table


def comparison(records: list[dict]) -> pd.DataFrame:
    """The short table at the end of a sweep, with the columns in which its runs differ first."""
    table = frame(records, OVERVIEW)
    varying = [name for name in ("dataset", "backbone", "protocol", "seed") if table[name].nunique() > 1]
    return table[[*varying, *(name for name in table if name in COMPARISON or name == "settings")]]


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """The same table as text: thousands separated, percentages with two decimals, missing values as a dash."""

    def text(column: str, value) -> str:
        if pd.isna(value):
            return "—"
        return FORMATS.get(column, "{:.2f}" if column in RANKING else "{}").format(value)

    return pd.DataFrame({column: [text(column, value) for value in table[column]] for column in table}, dtype=str)


def to_text(table: pd.DataFrame) -> str:
    """A table for the terminal: words to the left, numbers to the right."""
    cells = [list(table.columns), *formatted(table).to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    words = [not pd.api.types.is_numeric_dtype(table[column]) for column in table]
    lines = [
        "  ".join(
            cell.ljust(width) if word else cell.rjust(width)
            for cell, width, word in zip(row, widths, words, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def to_markdown(table: pd.DataFrame) -> str:
    """The same as a Markdown table."""
    words = [not pd.api.types.is_numeric_dtype(table[column]) for column in table]
    rows = [list(table.columns), ["---" if word else "---:" for word in words], *formatted(table).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def write_tables(records: list[dict], folder: Path) -> list[Path]:
    """Write one table of all methods, budgets and seeds for each setting they share, as Markdown and CSV.

    Runs on other data or another split, with another backbone, protocol or width, or with any setting of these
    changed, never share a table; each table says what it is about.
    """
    groups: dict[tuple[str, str], list[dict]] = {}
    for record in records:
        shared = _shared_settings(record) | {"split": record["dataset"]["fingerprint"]}
        digest = hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:6]
        names = record["names"]
        groups.setdefault((f"{names['dataset']}-{names['backbone']}-{names['protocol']}", digest), []).append(record)
    written = []
    for (name, digest), members in sorted(groups.items()):
        members.sort(
            key=lambda record: (
                record["labels"]["method"],
                record["size"]["budget_limit"],
                record["config"]["seed"],
                record["id"],
            )
        )
        table = frame(members, MAIN_TABLE)
        dataset, names = members[0]["dataset"], members[0]["names"]
        settings = ", ".join(f"{key}={value}" for key, value in _shared_settings(members[0]).items())
        title = f"# {names['dataset']}, {members[0]['labels']['backbone']}, protocol {names['protocol']}\n\n"
        about = (
            f"{dataset['num_users']:,} users, {dataset['num_items']:,} items, "
            f"{dataset['train']:,} / {dataset['val']:,} / {dataset['test']:,} interactions "
            f"(split {dataset['fingerprint'][:8]}). Recall is over min(k, relevant); recall and NDCG are in "
            f"percent, on the test split. One row per run.\n\nSettings: {settings}.\n\n"
        )
        for suffix, text in (
            ("md", title + about + to_markdown(table)),
            ("csv", table.to_csv(index=False, lineterminator="\n")),
        ):
            written.append(folder / f"{name}-{digest}.{suffix}")
            write_text(written[-1], text)
    return written


def _variants(records: list[dict]) -> list[str]:
    """For each record the method settings in which the records of its method differ."""
    settings: dict[str, list[dict]] = {}
    for record in records:
        settings.setdefault(record["names"]["method"], []).append(record["config"]["method"])
    texts = []
    for record in records:
        own, all_of_method = record["config"]["method"], settings[record["names"]["method"]]
        differing = [key for key in own if any(other.get(key) != own[key] for other in all_of_method)]
        texts.append(", ".join(f"{key}={own[key]}" for key in differing))
    return texts


def _shared_settings(record: dict) -> dict:
    """What the runs of one table have in common beside their data, as `key: value`."""
    config = record["config"]
    nested = {
        f"{group}.{key}": value
        for group in ("backbone", "protocol")
        for key, value in config[group].items()
        if key != "name"
    }
    return {"dim": config["dim"]} | nested


def _value(record: dict, path: str):
    keys = path.split(".", 2) if path.startswith("metrics.") else path.split(".")
    return reduce(lambda level, key: level.get(key) if isinstance(level, dict) else None, keys, record)
