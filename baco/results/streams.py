"""The table of streams: a row for each record, with what it reached on the test of each segment."""

from __future__ import annotations

import numpy as np
import pandas as pd

from baco.results.runs import FORMATS, to_text, variants
from baco.runs.record import lookup

PHASES = ("clustering", "search", "training", "validation")  # of an update


def per_segment(records: list[dict]) -> pd.DataFrame:
    """Recall at 20 on the test of each segment, its mean and that of NDCG, in percent; budget and seconds.

    A segment is named by its number, that of the last one that was trained on. The part of the budget is that after the
    last segment; the seconds are the mean over all updates, of which the first segment has none.
    Columns in which the records do not differ are left out, but for method and update.
    """
    table = pd.DataFrame(
        {
            **{key: [record["names"][key] for record in records] for key in ("dataset", "backbone")},
            **{key: [record["config"][key]["name"] for record in records] for key in ("protocol", "loss")},
            "budget": [" ".join(map(str, record["config"]["budget"] or ["none"])) for record in records],
            "seed": [record["config"]["seed"] for record in records],
            "settings": variants(records),
            "method": [record["labels"]["method"] for record in records],
            "update": [_update(record) for record in records],
        }
    )
    table = table[[name for name in table if name in ("method", "update") or table[name].nunique() > 1]]
    recalls = [_tests(record, "recall@20") for record in records]
    for segment in range(max(map(len, recalls))):
        table[str(segment)] = [recall[segment] if segment < len(recall) else np.nan for recall in recalls]
    table["R@20"] = [recall.mean() for recall in recalls]
    table["N@20"] = [_tests(record, "ndcg@20").mean() for record in records]
    table["budget used"] = [record["segments"][-1]["size"].get("budget_used", np.nan) for record in records]
    table["s per update"] = [_seconds(record) for record in records]
    return table


def to_terminal(records: list[dict]) -> str:
    """The table as text."""
    table = per_segment(records)
    two_decimals = {name: "{:.2f}" for name in map(str, table) if name.isdigit() or name == "s per update"}
    return to_text(table, FORMATS | two_decimals)


def _update(record: dict) -> str:
    epochs = lookup(record, "config.stream.epochs")
    return record["names"]["update"] if epochs is None else f"{record['names']['update']}, {epochs} epochs"


def _tests(record: dict, metric: str) -> np.ndarray:
    return np.array([100 * row["metrics"]["test"][metric] for row in record["segments"]])


def _seconds(record: dict) -> float:
    later = record["segments"][1:]
    return float(np.mean([sum(row["seconds"].get(phase, 0.0) for phase in PHASES) for row in later]))
