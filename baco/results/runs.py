"""Lists of runs, one row each, for the terminal and for results/tables/runs.csv."""

from __future__ import annotations

from functools import cache
from itertools import chain

import pandas as pd

from baco.runs.description import DECIDING, Description
from baco.runs.experiments import CONF
from baco.runs.record import lookup

RANKING = {
    f"{letter}@{k}": f"metrics.test.{name}@{k}"
    for k in (10, 20, 50)
    for letter, name in (("R", "recall"), ("N", "ndcg"))
}
SIZE = {"parameters": "size.parameters", "bytes": "size.bytes"}
SECONDS = {"clustering s": "seconds.clustering", "search s": "seconds.search", "training s": "seconds.training"}

# Columns by name, and where a record keeps them.
COMPARISON = {"method": "labels.method", **SIZE, "R@20": RANKING["R@20"], "N@20": RANKING["N@20"], **SECONDS}
OVERVIEW = {
    "dataset": "labels.dataset",
    "backbone": "labels.backbone",
    **COMPARISON,
    "protocol": "config.protocol.name",
    "loss": "config.loss.name",
    "seed": "config.seed",
    "device": "environment.device",
    "id": "id",
}
RUNS = {
    **{key: f"names.{key}" for key in ("dataset", "backbone", "protocol")},
    "loss": "config.loss.name",
    "method": "names.method",
    "label": "labels.method",
    "dim": "config.dim",
    "id": "id",
    "split": "dataset.fingerprint",
    "seed": "config.seed",
    "budget": "size.budget_limit",
    "unit": "size.budget_unit",
    **SIZE,
    "ratio": "size.parameter_ratio",
    "budget used": "size.budget_used",
    **RANKING,
    **SECONDS,
    "epochs": "training.epochs",
    "slope": "training.convergence.slope",
    "slope error": "training.convergence.standard_error",
    "cut off": "training.convergence.cut_off",
    "device": "environment.device",
    "revision": "code.revision",
}

FORMATS = {
    "parameters": "{:,}",
    "bytes": "{:,}",
    "ratio": "{:.1%}",
    "budget used": "{:.2%}",
    "clustering s": "{:.2f}",
    "search s": "{:.1f}",
    "training s": "{:.1f}",
}


def frame(records: list[dict], columns: dict[str, str], hide_defaults: bool = False) -> pd.DataFrame:
    """One row per record; a value that a record lacks is missing. Recall and NDCG are in percent.

    Where records of one method, backbone, protocol, loss or format differ in its settings, a column tells them
    apart; with `hide_defaults` it leaves out what is as in conf/. So does one where a dataset has several splits.
    """
    rows = [[lookup(record, path) for path in columns.values()] for record in records]
    table = pd.DataFrame(rows, columns=list(columns))
    if "budget" in table:  # a method that trains nothing has none, for which the others must not become floats
        table["budget"] = table["budget"].astype("Int64")
    for column in table.columns.intersection(list(RANKING)):
        table[column] *= 100
    settings = variants(records, hide_defaults)
    if any(settings):
        table.insert(list(table.columns).index("method") + 1, "settings", settings)
    splits = {(record["names"]["dataset"], record["dataset"]["fingerprint"]) for record in records}
    if "split" not in columns and len({name for name, _ in splits}) < len(splits):
        table.insert(0, "split", [record["dataset"]["fingerprint"][:8] for record in records])
    return table


def comparison(records: list[dict]) -> pd.DataFrame:
    """The short table at the end of a sweep, with the columns in which its runs differ first.

    Seconds of search are shown where a run has any: drawing first values, which is a part of them, takes milliseconds.
    """
    table = frame(records, OVERVIEW)
    if table["search s"].max() < 0.05:  # all would be printed as 0.0
        table = table.drop(columns="search s")
    varying = [name for name in ("dataset", "backbone", "protocol", "loss", "seed") if table[name].nunique() > 1]
    return table[[*varying, *(name for name in table if name in COMPARISON or name in ("settings", "split"))]]


def formatted(table: pd.DataFrame, formats: dict[str, str] = FORMATS) -> pd.DataFrame:
    """The same table as text: thousands separated, percentages with two decimals, missing values as a dash."""

    def text(column: str, value) -> str:
        if pd.isna(value):
            return "—"
        return formats.get(column, "{:.2f}" if column in RANKING else "{}").format(value)

    return pd.DataFrame(
        {column: [text(column, value) for value in table[column]] for column in map(str, table)}, dtype=str
    )


def to_text(table: pd.DataFrame, formats: dict[str, str] = FORMATS) -> str:
    """A table for the terminal: words to the left, numbers to the right."""
    cells = [list(table.columns), *formatted(table, formats).to_numpy().tolist()]
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


def variants(records: list[dict], hide_defaults: bool = False) -> list[str]:
    """For each record the settings in which it differs from others of its method, backbone and so on."""
    settings = [_settings(record["config"]) for record in records]
    alike: dict[tuple[str, str], list[dict]] = {}
    for own in settings:
        for group, values in own.items():
            alike.setdefault((group, values["name"]), []).append(values)
    differing = {
        which: [key for key in dict.fromkeys(chain(*several)) if len({repr(one.get(key)) for one in several}) > 1]
        for which, several in alike.items()
    }
    texts = []
    for own in settings:
        usual = _defaults(**{group: values["name"] for group, values in own.items()}) if hide_defaults else {}
        texts.append(
            ", ".join(
                f"{'' if group == 'method' else f'{group}.'}{key}={values[key]}"
                for group, values in own.items()
                for key in differing[group, values["name"]]
                if key in values and (key, values[key]) not in usual.get(group, {}).items()
            )
        )
    return texts


def _settings(config: dict) -> dict[str, dict]:
    """What decides a run beside its data, seed and budget, by the groups of conf/; run-level keys go to the method."""
    own = {key: config[key] for key in DECIDING if key != "seed"}
    return {
        "method": config["method"] | own | config["method"],  # of two equal keys, as of product codes, the method's
        "backbone": config["backbone"],
        "protocol": config["protocol"],
        "loss": config["loss"],
        "quantize": config["quantize"] or {"name": "none"},
    }


@cache
def _defaults(**names: str) -> dict[str, dict]:
    """The settings of each group where nothing is said; none where conf/ has no word of them."""
    chosen = {group: name for group, name in names.items() if name != "none"}  # no file, or what conf/ has anyway
    if not all((CONF / group / f"{name}.yaml").exists() for group, name in chosen.items()):
        return {}
    return _settings(Description.of(chosen).config)
