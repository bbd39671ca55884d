import hashlib
import http.client
import io
import urllib.error

import numpy as np
import pytest
import torch

from baco.data import release
from baco.data.interactions import SPLITS, Interactions, save_interactions
from baco.data.release import Release
from baco.errors import UserError

PAIRS = {"train": [[0, 1, 2], [0, 1, 2]], "val": [[0], [1]], "test": [[1], [2]]}


def published() -> dict[str, bytes]:
    """Files like the authors': an int64 tensor each, saved by torch."""
    files = {}
    for split, pairs in PAIRS.items():
        buffer = io.BytesIO()
        torch.save(torch.tensor(pairs), buffer)
        files[split] = buffer.getvalue()
    return files


def a_release(files: dict[str, bytes], **changes) -> Release:
    blobs = {s: hashlib.sha1(b"blob %d\0" % len(c) + c).hexdigest() for s, c in files.items()}
    settings = {"name": "tiny", "num_users": 3, "num_items": 3, "num_interactions": 5, "folder": "Tiny", "blobs": blobs}
    return Release(**(settings | changes))


@pytest.fixture
def server(monkeypatch):
    """Stands for the authors' repository; `server.files` may be changed, `server.urls` tells what was asked for."""

    class Server:
        def __init__(self):
            self.files = published()
            self.urls = []

    def urlopen(url, timeout):
        server.urls.append(url)
        split = url.rpartition("/")[2].removesuffix(".pt")
        if split not in server.files:
            raise urllib.error.URLError("no route to host")
        return io.BytesIO(server.files[split])

    server = Server()
    monkeypatch.setattr(release.urllib.request, "urlopen", urlopen)
    return server


def test_a_release_is_downloaded_verified_and_kept(server, tmp_path):
    source = a_release(server.files)
    data = source.load(tmp_path)
    assert [getattr(data, split).num_edges for split in SPLITS] == [3, 1, 1]
    assert server.urls == [f"{release.RELEASE_URL}/Tiny/{split}.pt" for split in SPLITS]
    server.files = {}
    assert source.load(tmp_path).fingerprint == data.fingerprint, "the prepared file is read, nothing is fetched"
    with np.load(tmp_path / "tiny" / "interactions.npz") as archive:
        assert archive["train"].dtype == np.int32 and archive["train"].tolist() == PAIRS["train"]


def test_without_network_the_error_says_what_to_put_where(server, tmp_path):
    source = a_release(server.files)
    server.files = {}
    with pytest.raises(UserError) as error:
        source.load(tmp_path)
    for part in (str(tmp_path / "tiny" / "interactions.npz"), "train.pt", "BACO_DATA_DIR", "no route to host"):
        assert part in str(error.value)
    assert list(tmp_path.rglob("*.npz")) == []


def test_a_changed_file_is_refused_and_nothing_is_written(server, tmp_path):
    source = a_release(server.files)
    server.files = server.files | {"val": server.files["val"] + b"x"}
    with pytest.raises(UserError, match=r"val\.pt is not the published file \(its git blob id is [0-9a-f]{40}"):
        source.load(tmp_path)
    assert list(tmp_path.rglob("*.npz")) == []


def test_the_authors_files_beside_the_prepared_one_are_used(server, tmp_path):
    source = a_release(server.files)
    (tmp_path / "tiny").mkdir()
    for split, content in server.files.items():
        (tmp_path / "tiny" / f"{split}.pt").write_bytes(content)
    source.load(tmp_path)
    assert server.urls == []


def test_declared_counts_are_checked(server, tmp_path):
    with pytest.raises(UserError, match=r"holds \(3, 3, 5\) users, items and interactions where \(3, 3, 6\)"):
        a_release(server.files, num_interactions=6).load(tmp_path)


def test_a_split_of_ones_own_is_not_to_be_deleted(tmp_path):
    pairs = {split: np.array(pairs) for split, pairs in PAIRS.items()}
    save_interactions(Interactions.from_pairs("tiny", pairs, 3, 3), tmp_path / "tiny" / "interactions.npz")
    with pytest.raises(UserError, match=r"correct these settings, or the file"):
        a_release(published(), folder=None, num_items=4).load(tmp_path)


def test_a_download_that_breaks_off_is_told(server, tmp_path, monkeypatch):
    def urlopen(url, timeout):
        raise http.client.IncompleteRead(b"abc", 997)

    monkeypatch.setattr(release.urllib.request, "urlopen", urlopen)
    with pytest.raises(UserError, match=r"cannot be downloaded \(IncompleteRead\(3 bytes read.*BACO_DATA_DIR"):
        a_release(server.files).load(tmp_path)


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_downloaded(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data_dir: the folder .*file/tiny cannot be made"):
        a_release(server.files).load(tmp_path / "file")
    assert server.urls == []


def test_what_cannot_be_downloaded_says_so(tmp_path):
    for changes in ({"folder": None}, {"file": "lightgcn_split.npz"}):
        with pytest.raises(UserError, match="cannot be downloaded; put it there"):
            a_release(published(), **changes).load(tmp_path)
