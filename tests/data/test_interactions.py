import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.data.interactions import SPLITS, ImportReport, Interactions, load_interactions, save_interactions
from baco.data.splits import random_split, temporal_split
from baco.errors import UserError
from baco.graph import Biadjacency

GOOD = {"train": [[0, 1, 2], [0, 1, 2]], "val": [[0], [1]], "test": [[1], [2]]}


def arrays(**changes):
    splits = {name: np.array(pairs, np.int32) for name, pairs in GOOD.items()}
    return {**splits, "num_users": np.int32(4), "num_items": np.int32(3)} | changes


def test_repeated_and_overlapping_pairs_are_dropped_and_counted():
    data = Interactions.from_pairs(
        "d",
        {
            "train": np.array([[0, 0, 1], [0, 0, 1]]),
            "val": np.array([[0, 0, 1], [0, 1, 0]]),  # (0, 0) stands in train
            "test": np.array([[1, 1, 2], [0, 1, 2]]),  # (1, 0) stands in val, (1, 1) in train
        },
        4,
        3,
    )
    assert [getattr(data, split).num_edges for split in SPLITS] == [2, 2, 1]
    report = data.report
    assert (report.duplicates, report.overlaps) == (1, 3)
    assert (report.users_without_training, report.items_without_training) == (2, 1)


def test_a_file_comes_back_as_it_was_written(tmp_path):
    data = Interactions.from_pairs(
        "d", {k: np.array(v) for k, v in GOOD.items()}, 4, 3, np.array(["a", "b", "c", "d"]), np.array([7, 8, 9])
    )
    save_interactions(data, tmp_path / "deep" / "interactions.npz")
    again = load_interactions(tmp_path / "deep" / "interactions.npz", "d")
    assert again.fingerprint == data.fingerprint
    assert again.user_ids.tolist() == ["a", "b", "c", "d"] and again.item_ids.tolist() == [7, 8, 9]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["interactions.npz"], "no temporary file is left"


@given(seed=st.integers(0, 100))
def test_the_union_of_splits_is_the_graph_of_their_pairs(seed):
    places = np.random.default_rng(seed).permutation(35)[:20]  # no pair twice
    pairs = np.stack([places // 7, places % 7])
    parts = dict(zip(SPLITS, np.split(pairs, [9, 14], axis=1), strict=True))
    data = Interactions.from_pairs("d", parts, 5, 7)
    for splits in (SPLITS, ("train", "val"), ("test",)):
        together = np.concatenate([parts[split] for split in splits], axis=1)
        expected = Biadjacency.from_pairs(*together, 5, 7)
        found = data.union(splits)
        assert found.fingerprint == expected.fingerprint
        assert [array.dtype for array in found.by_user] == [array.dtype for array in expected.by_user]


def test_fingerprint_tells_splits_apart():
    first = Interactions.from_pairs("d", {k: np.array(v) for k, v in GOOD.items()}, 4, 3)
    swapped = {"train": GOOD["train"], "val": GOOD["test"], "test": GOOD["val"]}
    second = Interactions.from_pairs("d", {k: np.array(v) for k, v in swapped.items()}, 4, 3)
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val": np.empty((2, 0), np.int32)}, "the val split is empty"),
        ({"train": np.zeros((3, 2), np.int32)}, r"train must have the shape \(2, E\)"),
        ({"train": np.array([[0.0], [0.0]])}, "train split: user ids must be integers, not float64"),
        ({"train": np.array([[np.nan], [0.0]])}, "user ids must be integers"),
        ({"test": np.array([[0], [3]])}, r"test split: item id 3 of pair 0 lies outside 0\.\.2"),
        ({"num_users": np.array([4, 4])}, r"num_users must be a single integer, not int64 of the shape \(2,\)"),
        ({"num_items": "three"}, "num_items must be a single integer, not <U5"),
        ({"val": np.array([[0], [0]])}, "every pair of the val split stands in an earlier split"),
        ({"user_ids": np.arange(4)}, "user_ids must come with those of the other side"),
        ({"user_ids": np.arange(5), "item_ids": np.arange(3)}, "user_ids must be 4 different ids"),
        ({"user_ids": np.arange(4), "item_ids": np.array(["a", "b", "a"])}, "item_ids must be 3 different ids"),
    ],
)
def test_bad_files_are_named_with_split_and_reason(tmp_path, changes, message):
    np.savez(tmp_path / "f.npz", **arrays(**changes))
    with pytest.raises(UserError, match=message) as error:
        load_interactions(tmp_path / "f.npz", "d")
    assert str(tmp_path / "f.npz") in str(error.value)


def test_missing_damaged_and_incomplete_files(tmp_path):
    path = tmp_path / "f.npz"
    with pytest.raises(UserError, match="there is no file"):
        load_interactions(path, "d")
    np.savez(path, **arrays())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cannot be read .* delete it if it was downloaded or imported"):
        load_interactions(path, "d")
    np.savez(path, train=np.zeros((2, 1), np.int32))
    with pytest.raises(UserError, match="lacks the array 'num_items'"):
        load_interactions(path, "d")


def test_a_split_of_two_parts_gets_validation_from_training(tmp_path):
    users, items = np.divmod(np.arange(200), 10)
    np.savez(
        tmp_path / "f.npz",
        train=np.stack([users, items])[:, :180],
        test=np.stack([users, items])[:, 180:],
        num_users=20,
        num_items=10,
    )
    data = load_interactions(tmp_path / "f.npz", "d")
    assert (data.train.num_edges, data.val.num_edges, data.test.num_edges) == (162, 18, 20)
    assert data.report.overlaps == 0
    assert data.fingerprint == load_interactions(tmp_path / "f.npz", "d").fingerprint
    smaller = load_interactions(tmp_path / "f.npz", "d", val_share=0.05)
    assert (smaller.train.num_edges, smaller.val.num_edges, smaller.test.num_edges) == (171, 9, 20)
    assert np.isin(smaller.val.keys(), data.val.keys()).all()
    with pytest.raises(UserError, match=r"val_share=0.001 of 180 training pairs is none at all .*f\.npz"):
        load_interactions(tmp_path / "f.npz", "d", val_share=0.001)


def test_a_split_of_two_parts_of_another_shape_is_named(tmp_path):
    np.savez(tmp_path / "f.npz", train=np.arange(4), test=np.zeros((2, 1), np.int32), num_users=4, num_items=4)
    with pytest.raises(UserError, match=r"train must have the shape \(2, E\), not \(4,\) .*f\.npz"):
        load_interactions(tmp_path / "f.npz", "d")


@given(st.integers(3, 300), st.integers(0, 9))
def test_random_split_is_a_partition(count, seed):
    parts = random_split(count, 0.1, 0.2, np.random.default_rng(seed))
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(count))
    assert len(parts["val"]) == max(1, round(0.1 * count)) and len(parts["test"]) == max(1, round(0.2 * count))


@given(st.integers(3, 60), st.floats(0.01, 0.98), st.floats(0.01, 0.98))
def test_whatever_the_shares_a_user_keeps_something_to_learn_from(count, val_share, other):
    test_share = other * (0.99 - val_share)
    parts = temporal_split(np.zeros(count, int), val_share, test_share)
    assert min(map(len, parts.values())) >= 1
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(count))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=60))
def test_temporal_split_holds_out_each_users_latest(events):
    users, times = np.array(sorted(events, key=lambda event: event[1])).T
    parts = temporal_split(users, 0.2, 0.2)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(users)))
    for user in set(users.tolist()):
        mine = {split: times[part[users[part] == user]] for split, part in parts.items()}
        count = int((users == user).sum())
        expected = max(1, round(0.2 * count)) if count >= 3 else 0
        assert len(mine["test"]) == len(mine["val"]) == expected
        if expected:
            assert mine["train"].max(initial=-1) <= mine["val"].min() and mine["val"].max() <= mine["test"].min()


def test_real_beauty_is_the_authors_split(beauty):
    assert (beauty.num_users, beauty.num_items) == (22_363, 12_101)
    assert [getattr(beauty, split).num_edges for split in SPLITS] == [158_801, 19_850, 19_851]
    report = beauty.report
    assert (report.duplicates, report.overlaps) == (0, 0)
    assert (report.users_without_training, report.items_without_training) == (3, 1)


def test_ids_in_bytes_are_text(tmp_path):
    ids = {"user_ids": np.array(list("abcd"), "S"), "item_ids": np.array(["ä".encode(), b"b", b"c"])}
    np.savez(tmp_path / "f.npz", **arrays(**ids))
    data = load_interactions(tmp_path / "f.npz", "d")
    assert data.user_ids.tolist() == ["a", "b", "c", "d"] and data.item_ids.tolist() == ["ä", "b", "c"]


def test_an_import_report_stays_with_the_data(tmp_path):
    report = ImportReport("log.csv (text)", 10, 1, 1, 1, 0, 1, 6)
    data = Interactions.from_pairs("d", {k: np.array(v) for k, v in GOOD.items()}, 4, 3, import_report=report)
    save_interactions(data, tmp_path / "f.npz")
    assert load_interactions(tmp_path / "f.npz", "d").import_report == report
    assert str(report).startswith("log.csv (text): 10 rows, 1 without an id dropped, 1 below min_rating dropped")
