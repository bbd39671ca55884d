"""Tables of records: a pure function of them, so that the same records give the same bytes."""

from __future__ import annotations

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
    """One row per record; a value that a record lacks is missing. Recall and NDCG are in percent."""
    rows = [[_value(record, path) for path in columns.values()] for record in records]
    table = pd.DataFrame(rows, columns=list(columns))
    for column in table.columns.intersection(RANKING):
        table[column] *= 100
    return table


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
    """Write the main table of each dataset, split, backbone, protocol and budget as Markdown and CSV.

    Runs that differ in any of these never share a table; each table says what it is about.
    """
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        config, dataset = record["config"], record["dataset"]
        key = (dataset["name"], dataset["fingerprint"][:8], config["backbone"]["name"], config["protocol"]["name"])
        groups.setdefault(key, []).append(record)
    written = []
    for (name, fingerprint, backbone, protocol), members in sorted(groups.items()):
        members.sort(key=lambda record: (record["size"]["parameters"], record["labels"]["method"], record["id"]))
        table = frame(members, MAIN_TABLE)
        dataset = members[0]["dataset"]
        title = f"# {name}, {members[0]['labels']['backbone']}, protocol {protocol}\n\n"
        about = (
            f"{dataset['num_users']:,} users, {dataset['num_items']:,} items, "
            f"{dataset['train']:,} / {dataset['val']:,} / {dataset['test']:,} interactions (split {fingerprint}). "
            "Recall is over min(k, relevant); recall and NDCG in percent, on the test split. One row per run.\n\n"
        )
        stem = folder / f"{name}-{fingerprint}-{backbone}-{protocol}"
        write_text(stem.with_suffix(".md"), title + about + to_markdown(table))
        write_text(stem.with_suffix(".csv"), table.to_csv(index=False, lineterminator="\n"))
        written += [stem.with_suffix(".md"), stem.with_suffix(".csv")]
    return written


def _value(record: dict, path: str):
    keys = path.split(".", 2) if path.startswith("metrics.") else path.split(".")
    return reduce(lambda level, key: level.get(key) if isinstance(level, dict) else None, keys, record)
