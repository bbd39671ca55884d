"""The published numbers of results/reference, under our names of methods and datasets."""

from __future__ import annotations

import math
from functools import cache

import pandas as pd

from baco.resources import resource_folder

REFERENCE = resource_folder("published", "results/reference")
NATIVE = {"infomap", "brim"}  # methods whose size the paper leaves to them, as method.matched=false does
AUTHORS_PROGRAM = "profile=reference"  # of BACO


@cache
def published(name: str) -> pd.DataFrame:
    """One of the files, such as 'table8'; rows of methods or datasets that we have no name for keep theirs."""
    table = pd.read_csv(REFERENCE / f"{name}.csv")
    for column, names in (("dataset", "datasets"), ("method", "methods")):
        ours = pd.read_csv(REFERENCE / f"{names}.csv").set_index("paper")["name"]
        table[column] = table[column].map(ours).fillna(table[column])
    return table


@cache
def method_label(method: str) -> str:
    """What the paper calls a method; its own name if the paper does not have it."""
    return pd.read_csv(REFERENCE / "methods.csv").set_index("name")["paper"].get(method, method)


@cache
def authors_split(dataset: str) -> str | None:
    """The fingerprint of the authors' own split of a dataset, where it is known."""
    known = pd.read_csv(REFERENCE / "datasets.csv").set_index("name")["fingerprint"].dropna()
    return known.get(dataset)


def published_result(dataset: str, method: str, variant: str, metric: str, k: int) -> float:
    """Table 8's value, in percent, for a method with LightGCN; NaN where it has nothing that is the like of it.

    Parameters
    ----------
    variant : str
        The settings in which a run differs from the method's defaults, as `summary.Row.variant` has them.
    metric : str
        'recall' or 'ndcg'; Table 8 has k = 10 and 50.
    """
    usual = "matched=false" if method in NATIVE else ""
    if variant != usual and not (method == "baco" and variant.startswith(AUTHORS_PROGRAM)):
        return math.nan
    return _table8().get((dataset, method, metric, k), math.nan)


@cache
def _table8() -> pd.Series:
    return published("table8").set_index(["dataset", "method", "metric", "k"])["value"]
