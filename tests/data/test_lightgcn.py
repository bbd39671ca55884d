"""The LightGCN release, and the split of it that the committed records are of."""

import hashlib
import io
import os
import urllib.error
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from baco.data import lightgcn, release
from baco.data.interactions import SPLITS, load_interactions
from baco.data.lightgcn import pairs_of, prepare, resplit
from baco.errors import UserError
from baco.runs.experiments import load_experiment
from baco.runs.record import load_records
from tests.conftest import real_data

FILES = {"train.txt": "0 4 2 3\n1 0 1\n2 1 3 4 0\n3 2 0 1\n\n", "test.txt": "0 1\n1 2 3\n2 2\n3 4\n"}


@pytest.fixture
def published(monkeypatch):
    """Stands for the release; what is taken out of it cannot be downloaded."""
    files = dict(FILES)
    blobs = [hashlib.sha1(b"blob %d\0" % len(text) + text.encode()).hexdigest() for text in files.values()]
    monkeypatch.setattr(lightgcn, "BLOBS", {"gowalla": tuple(blobs)})

    def urlopen(url, timeout):
        name = url.removeprefix(f"{lightgcn.URL}/gowalla/")
        if name not in files:
            raise urllib.error.URLError("no route to host")
        return io.BytesIO(files[name].encode())

    monkeypatch.setattr(release.urllib.request, "urlopen", urlopen)
    return files


def pairs(data) -> list[tuple[int, int]]:
    splits = [getattr(data, split) for split in SPLITS]
    return sorted((u, i) for one in splits for u, i in zip(one.users.tolist(), one.items.tolist(), strict=True))


def test_both_splits_are_made_of_the_published_files(published, tmp_path):
    data = prepare("gowalla", tmp_path)
    train, test = pairs_of(FILES["train.txt"]), pairs_of(FILES["test.txt"])
    assert train.tolist() == [[0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3], [2, 3, 4, 0, 1, 0, 1, 3, 4, 0, 1, 2]]
    assert pairs(data) == sorted(zip(*np.concatenate([train, test], axis=1).tolist(), strict=True))
    assert [getattr(data, split).num_edges for split in SPLITS] == [15, 1, 1]
    assert load_interactions(tmp_path / "gowalla" / "interactions.npz", "gowalla").fingerprint == data.fingerprint
    own = load_interactions(tmp_path / "gowalla" / "lightgcn_split.npz", "gowalla")
    assert own.test.items.tolist() == test[1].tolist() and own.train.num_edges + own.val.num_edges == 12
    published.clear()
    for name, text in FILES.items():
        (tmp_path / "gowalla" / name).write_text(text)
    assert prepare("gowalla", tmp_path).fingerprint == data.fingerprint, "made again from files that lie there"


def test_what_cannot_be_prepared_is_told_and_left(published, tmp_path):
    with pytest.raises(UserError, match="dataset 'beauty' is unknown"):
        prepare("beauty", tmp_path)
    del published["test.txt"]
    with pytest.raises(UserError, match=r"no route to host.*put it there as .*test\.txt"):
        prepare("gowalla", tmp_path)
    published["test.txt"] = FILES["test.txt"].replace("1 2 3", "1 2 4")
    with pytest.raises(UserError, match=r"test\.txt is not the published file"):
        prepare("gowalla", tmp_path)
    assert list(tmp_path.rglob("*.npz")) == []
    published["test.txt"] = FILES["test.txt"]
    prepare("gowalla", tmp_path)
    path = tmp_path / "gowalla" / "interactions.npz"
    with np.load(path) as archive:
        other = dict(archive) | {"val": archive["test"], "test": archive["val"]}
    np.savez(path, **other)
    with pytest.raises(UserError, match=r"interactions\.npz holds another split; move it away first"):
        prepare("gowalla", tmp_path)
    with np.load(path) as archive:
        assert archive["val"].tolist() == other["val"].tolist()


@pytest.mark.parametrize("name", ["gowalla", "yelp2018"])
def test_the_committed_records_are_of_this_split(name):
    data = real_data(name)
    path = Path(os.environ["BACO_DATA_DIR"]) / name / "lightgcn_split.npz"
    if not path.exists():
        pytest.skip(f"needs {path}; scripts/prepare_lightgcn.py makes it")
    with np.load(path) as archive:
        made = resplit(archive["train"], archive["test"])
    for split in SPLITS:
        ours = getattr(data, split)
        expected = pd.MultiIndex.from_arrays(made[split]).sort_values()
        assert expected.equals(pd.MultiIndex.from_arrays([ours.users, ours.items]))
    records = load_records(Path(__file__).parents[2] / "results" / "records")
    prints = {record["dataset"]["fingerprint"] for record in records if record["dataset"]["name"] == name}
    shares = {run["dataset.val_share"] for run in load_experiment("lightgcn").runs if run["dataset"] == name}
    of_release = {load_interactions(path, name, val_share=share).fingerprint for share in shares}
    assert prints == {data.fingerprint} | of_release
