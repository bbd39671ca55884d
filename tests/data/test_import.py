"""The import against the same steps in pandas and NumPy, slow and plain."""

import dataclasses
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baco.data import rows
from baco.data.filters import first_occurrences, k_core
from baco.data.interactions import SPLITS, Interactions
from baco.data.logs import Log, import_frame
from baco.data.splits import random_split
from baco.errors import UserError
from baco.rng import stream


def twin(frame: pd.DataFrame, log: Log) -> Interactions:
    """What `Log` makes of a frame."""
    times = frame["time"].to_numpy() if log.timestamp else np.zeros(len(frame), np.int64)
    keep = frame["rating"].to_numpy() >= log.min_rating if log.min_rating is not None else np.ones(len(frame), bool)
    frame, times = frame[keep], times[keep]
    frame = frame.iloc[np.argsort(times, kind="stable")].drop_duplicates(["user", "item"])
    while log.k_core:
        sizes = [frame.groupby(side)["rating"].transform("size") for side in ("user", "item")]
        enough = (sizes[0] >= log.k_core) & (sizes[1] >= log.k_core)
        if enough.all():
            break
        frame = frame[enough]
    users, user_ids = pd.factorize(frame["user"], sort=True)
    items, item_ids = pd.factorize(frame["item"], sort=True)
    if log.split == "random":
        order = np.lexsort((items, users))
        users, items = users[order], items[order]
        parts = random_split(len(users), log.val_share, log.test_share, stream(log.split_seed, "split"))
    else:
        parts = latest(users, log.val_share, log.test_share)
    pairs = np.stack([users, items])
    splits = {split: pairs[:, parts[split]] for split in SPLITS}
    return Interactions.from_pairs(
        log.name, splits, len(user_ids), len(item_ids), user_ids.to_numpy(), item_ids.to_numpy()
    )


def latest(users: np.ndarray, val_share: float, test_share: float) -> dict[str, list[int]]:
    parts = {split: [] for split in SPLITS}
    for user in np.unique(users):
        mine = np.flatnonzero(users == user).tolist()
        test = val = 0
        if len(mine) >= 3:
            test = int(np.clip(np.rint(test_share * len(mine)), 1, len(mine) - 2))
            val = int(np.clip(np.rint(val_share * len(mine)), 1, len(mine) - test - 1))
        end = len(mine) - test
        parts["train"] += mine[: end - val]
        parts["val"] += mine[end - val : end]
        parts["test"] += mine[end:]
    return parts


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """3,000 rows with repeated pairs and equal times, and text ids that do not sort as numbers."""
    rng = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "user": [f"{user}é" for user in rng.integers(200, size=3000)],
            "item": rng.zipf(1.4, 3000) % 150,
            "rating": rng.integers(0, 11, 3000) / 2,
            "time": rng.integers(0, 500, 3000),
        }
    )


CHOICES = [
    {},
    {"split_seed": 3, "val_share": 0.2},
    {"timestamp": "time"},
    {"timestamp": "time", "split": "time", "test_share": 0.3},
    {"rating": "rating", "min_rating": 2.5, "k_core": 4},
    {"rating": "rating", "min_rating": 1.0, "k_core": 3, "timestamp": "time", "split": "time"},
]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_import_is_that_of_its_twin(frame, tmp_path, monkeypatch, choice, ending):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(rows, "BLOCK", 700)
    path = tmp_path / f"log.{ending}"
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path)
    log = Log(path=str(path), **choice)
    data = log.load(tmp_path)
    expected = twin(frame if ending == "parquet" else frame.astype({"item": str}), log)
    assert data.fingerprint == expected.fingerprint
    assert data.user_ids.tolist() == expected.user_ids.tolist()
    assert data.item_ids.tolist() == expected.item_ids.tolist()


@pytest.mark.parametrize("choice", [{}, {"rating": "rating", "min_rating": 2.5, "k_core": 4}, {"timestamp": "time"}])
def test_a_random_split_is_the_same_for_rows_in_any_order(frame, choice):
    shuffled = frame.sample(frac=1, random_state=1)
    assert import_frame(shuffled, **choice).fingerprint == import_frame(frame, **choice).fingerprint


@pytest.mark.parametrize(("threads", "memory"), [(1, "1500MB"), (3, "1500MB"), (2, "60MB")])
def test_neither_threads_nor_memory_change_an_import(tmp_path, monkeypatch, threads, memory):
    import duckdb

    pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    size = 400_000  # several row groups
    wide = pd.DataFrame(
        {
            "user": rng.integers(3000, size=size),
            "item": np.char.add("item-", rng.integers(900, size=size).astype(str)),
            "time": rng.integers(0, 1000, size),
        }
    )
    wide.to_parquet(tmp_path / "log.parquet", row_group_size=50_000)
    monkeypatch.setattr(rows, "MEMORY", memory)
    connect = duckdb.connect

    def with_threads(config):
        return connect(config=config | {"threads": threads})

    monkeypatch.setattr(duckdb, "connect", with_threads)
    log = Log(path=str(tmp_path / "log.parquet"), timestamp="time", k_core=2)
    expected = twin(wide.assign(rating=0), log).fingerprint
    assert log.load(tmp_path).fingerprint == expected
    wide.to_feather(tmp_path / "log.feather", chunksize=30_000)
    feather = Log(path=str(tmp_path / "log.feather"), timestamp="time", k_core=2)
    assert feather.load(tmp_path).fingerprint == expected
    assert import_frame(wide, timestamp="time", k_core=2).fingerprint == expected


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "NULL", " a", "c", "", "é"]),
        st.sampled_from(["x", "y", "nan", "z ", "w", "v", "u"]),
        st.integers(-1, 5),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.booleans(), st.sampled_from([None, 0.0, 3.0]), st.integers(0, 3))
def test_every_row_is_kept_merged_or_dropped(table, strip, min_rating, core):
    table = pd.DataFrame(table, columns=["user", "item", "rating"])
    choice = {"strip": strip, "min_rating": min_rating, "k_core": core, "rating": "rating", "missing_values": "drop"}
    with tempfile.TemporaryDirectory() as folder:
        table.to_csv(f"{folder}/log.csv", index=False)
        try:
            data = Log(path=f"{folder}/log.csv", **choice).load(Path(folder))
        except UserError as error:
            if "too few to split" not in str(error):
                raise
            return
    report = dataclasses.asdict(data.import_report)
    del report["source"]
    assert report.pop("rows") == len(table) == sum(report.values())
    assert report["kept"] == sum(getattr(data, split).num_edges for split in SPLITS)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=60))
def test_first_occurrences_are_those_of_pandas(pairs):
    users, items = np.array(pairs, np.int32).reshape(-1, 2).T
    expected = ~pd.DataFrame({"user": users, "item": items}).duplicated().to_numpy()
    np.testing.assert_array_equal(first_occurrences(users, items, 5, 7), expected)


def test_a_core_is_peeled_until_nothing_changes():
    chain = np.array([[0, 0, 1, 1, 2, 2, 3], [0, 1, 1, 2, 2, 3, 3]], np.int32)
    assert k_core(*chain, 1).all() and not k_core(*chain, 2).any()
    square = np.array([[0, 0, 1, 1, 2], [0, 1, 0, 1, 1]], np.int32)
    assert k_core(*square, 2).tolist() == [True, True, True, True, False]


def test_a_frame_is_imported_as_its_file(frame, tmp_path):
    frame.to_csv(tmp_path / "log.csv", index=False)
    data = Log(path=str(tmp_path / "log.csv"), rating="rating", min_rating=2.0).load(tmp_path)
    assert import_frame(frame.astype({"item": str}), rating="rating", min_rating=2.0).fingerprint == data.fingerprint


def test_a_prepared_dataset_is_read_without_the_database():
    code = "import sys, baco.data.sources, baco.data.interactions; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
