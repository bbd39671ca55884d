"""The split of the LightGCN release."""

import hashlib
import io
import urllib.error

import numpy as np
import pytest

from baco.data import lightgcn, release
from baco.data.lightgcn import pairs_of, prepare
from baco.errors import UserError

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


def test_the_split_is_made_of_the_published_files(published, tmp_path):
    data = prepare("gowalla", tmp_path)
    train, test = pairs_of(FILES["train.txt"]), pairs_of(FILES["test.txt"])
    assert train.tolist() == [[0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3], [2, 3, 4, 0, 1, 0, 1, 3, 4, 0, 1, 2]]
    with np.load(tmp_path / "gowalla" / "lightgcn_split.npz") as archive:
        assert {name: archive[name].tolist() for name in archive.files} == {
            "train": train.tolist(),
            "test": test.tolist(),
            "num_users": 4,
            "num_items": 5,
        }
    assert data.test.items.tolist() == test[1].tolist() and data.train.num_edges + data.val.num_edges == 12
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
