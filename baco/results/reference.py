"""The published numbers of results/reference, under our names of methods and datasets."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


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
