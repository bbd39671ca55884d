"""The three sources of data: the authors' release, own logs, the generator."""

import hashlib
import io
import urllib.error

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from baco.data import release
from baco.data.interactions import SPLITS
from baco.data.logs import Log, _k_core
from baco.data.release import Release
from baco.data.synthetic import Synthetic
from baco.errors import UserError
from baco.graph import Biadjacency

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


def test_what_cannot_be_downloaded_says_so(tmp_path):
    for changes in ({"folder": None}, {"file": "lightgcn_split.npz"}):
        with pytest.raises(UserError, match="cannot be downloaded; put it there"):
            a_release(published(), **changes).load(tmp_path)


@pytest.fixture
def table() -> pd.DataFrame:
    """A log of 12 users and 9 items with odd ids, ratings and times, and one repeated pair."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"who": rng.integers(12, size=90), "what": rng.integers(9, size=90)}).drop_duplicates()
    frame["stars"] = rng.integers(1, 6, len(frame))
    frame["when"] = rng.permutation(len(frame)) + 1_600_000_000
    frame["who"] = [f"00{user}" for user in frame["who"]]
    return pd.concat([frame, frame.iloc[:1].assign(when=1_700_000_000)], ignore_index=True)


def columns(**changes):
    return {"user": "who", "item": "what", "rating": "stars", "timestamp": "when"} | changes


def original_pairs(data) -> set:
    """All interactions in the source's own ids: what a user joins results back with."""
    return {
        (str(data.user_ids[u]), str(data.item_ids[v]))
        for split in SPLITS
        for u, v in zip(getattr(data, split).users, getattr(data, split).items, strict=True)
    }


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "dat"])
def test_every_format_gives_the_same_interactions(table, tmp_path, ending):
    path = tmp_path / f"log.{ending}"
    if ending == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep={"csv": ",", "tsv": "\t", "dat": "|"}[ending])
    data = Log(path=str(path), separator="|" if ending == "dat" else None, **columns()).load(tmp_path / "data")
    assert original_pairs(data) == set(zip(table["who"], table["what"].astype(str), strict=True))
    assert sum(getattr(data, split).num_edges for split in SPLITS) == len(table) - 1
    assert data.report.duplicates == 0
    assert data.user_ids[0].startswith("00"), "leading zeros are part of an id"


def test_rating_threshold_and_k_core(table, tmp_path):
    table.to_csv(tmp_path / "log.csv", index=False)
    data = Log(path=str(tmp_path / "log.csv"), min_rating=3, k_core=3, **columns()).load(tmp_path)
    kept = table[table["stars"] >= 3].drop_duplicates(["who", "what"])
    while True:
        per_user, per_item = (kept.groupby(column)["stars"].transform("size") for column in ("who", "what"))
        enough = (per_user >= 3) & (per_item >= 3)
        if enough.all():
            break
        kept = kept[enough]
    assert original_pairs(data) == set(zip(kept["who"], kept["what"].astype(str), strict=True))
    assert 0 < len(kept) < len(table)


def test_split_by_time_holds_out_the_latest(table, tmp_path):
    table.to_csv(tmp_path / "log.csv", index=False)
    data = Log(path=str(tmp_path / "log.csv"), split="time", **columns()).load(tmp_path)
    first = table.sort_values("when").drop_duplicates(["who", "what"])
    times = {(who, str(what)): when for who, what, when in zip(first["who"], first["what"], first["when"], strict=True)}
    for user in range(data.num_users):
        latest = {}
        for split in SPLITS:
            items = getattr(data, split).items[getattr(data, split).users == user]
            latest[split] = [times[str(data.user_ids[user]), str(data.item_ids[v])] for v in items]
        if latest["test"]:  # everybody with three interactions or more
            assert max(latest["train"]) < min(latest["val"]) and max(latest["val"]) < min(latest["test"])
        else:
            assert len(latest["train"]) < 3


def test_dates_are_times_too(table, tmp_path):
    table.to_csv(tmp_path / "numbers.csv", index=False)
    dates = table.assign(when=pd.to_datetime(table["when"], unit="s").dt.strftime("%Y-%m-%dT%H:%M:%S"))
    dates.to_csv(tmp_path / "dates.csv", index=False)
    splits = [
        Log(path=str(tmp_path / f"{name}.csv"), split="time", **columns()).load(tmp_path)
        for name in ("numbers", "dates")
    ]
    assert splits[0].fingerprint == splits[1].fingerprint


def test_an_import_is_kept_until_file_or_settings_change(table, tmp_path):
    path = tmp_path / "log.csv"
    table.to_csv(path, index=False)
    settings = {"path": str(path), **columns()}
    first = Log(**settings).load(tmp_path / "data")
    assert Log(**settings).load(tmp_path / "data").fingerprint == first.fingerprint
    assert len(list((tmp_path / "data").rglob("*.npz"))) == 1
    assert Log(split_seed=1, **settings).load(tmp_path / "data").fingerprint != first.fingerprint
    table.iloc[:40].to_csv(path, index=False)
    assert Log(**settings).load(tmp_path / "data").fingerprint != first.fingerprint
    assert len(list((tmp_path / "data").rglob("*.npz"))) == 3


def test_a_file_without_header_has_numbered_columns(table, tmp_path):
    table.to_csv(tmp_path / "u.tsv", index=False, header=False, sep="\t")
    data = Log(path=str(tmp_path / "u.tsv"), header=False, user="0", item="1").load(tmp_path)
    assert original_pairs(data) == set(zip(table["who"], table["what"].astype(str), strict=True))


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("user,item\n", {}, "0 interactions are left after the filters"),
        ("", {}, "cannot be read as a table"),
        ("usr,item\na,b\n", {}, "column 'user' is unknown; did you mean 'usr'"),
        ("user,item\na,b\n,c\n", {}, "column 'user' is empty in line 3; remove that row"),
        ("user,item,r\na,b,good\n", {"rating": "r", "min_rating": 3}, "column 'r' holds 'good' in line 2, no number"),
        ("user,item,t\na,b,1\na,c,soon\n", {"timestamp": "t", "split": "time"}, "column 't' holds 'soon' in line 3"),
    ],
)
def test_bad_logs_are_named_with_line_and_column(tmp_path, text, settings, message):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        Log(path=str(tmp_path / "log.csv"), **settings).load(tmp_path / "data")
    assert not (tmp_path / "data").exists(), "nothing is left behind"


def test_bad_parquet_ids(tmp_path):
    pd.DataFrame({"user": [1.5, 2.0], "item": [1, 2]}).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(UserError, match="column 'user' holds floating-point numbers"):
        Log(path=str(tmp_path / "log.parquet")).load(tmp_path)
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="cannot be read as a table"):
        Log(path=str(tmp_path / "bad.parquet")).load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "tme"}, "dataset.split 'tme' is unknown; did you mean 'time'"),
        ({"split": "time"}, "dataset.split=time needs dataset.timestamp"),
        ({"min_rating": 3}, "dataset.min_rating needs dataset.rating"),
        ({"k_core": -1}, "dataset.k_core=-1 must be 0 or more"),
        ({"val_share": 0.6, "test_share": 0.5}, "below 1 together"),
        ({"path": "/nowhere/log.csv"}, "dataset.path=/nowhere/log.csv cannot be read"),
    ],
)
def test_bad_log_settings(settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        Log(**({"path": "log.csv"} | settings)).load(tmp_path)


def test_an_unknown_ending_needs_a_separator(tmp_path):
    (tmp_path / "log.txt").write_text("user item\na b\n")
    with pytest.raises(UserError, match="needs dataset\\.separator"):
        Log(path=str(tmp_path / "log.txt")).load(tmp_path)


def test_k_core_of_nothing_is_nothing():
    assert len(_k_core(np.array([0, 1]), np.array([0, 1]), 2)) == 0


def test_the_generator_plants_what_it_says():
    source = Synthetic(
        num_users=600,
        num_items=500,
        num_interactions=20_000,
        num_clusters=5,
        main_share=0.7,
        second_share=0.2,
        exponent=2.5,
    )
    data, again = source.load(None), source.load(None)
    assert data.fingerprint == again.fingerprint
    assert data.fingerprint != Synthetic(**{**vars(source), "data_seed": 1}).load(None).fingerprint
    edges = [getattr(data, split).num_edges for split in SPLITS]
    assert sum(edges) == 20_000 and edges[1] == edges[2] == 2000
    assert data.report.duplicates == data.report.overlaps == 0
    for degrees in (data.train.user_degrees, data.train.item_degrees):
        assert degrees.var() > 10 * degrees.mean(), "degrees are far from even (a Poisson variable's are equal)"


def test_users_interact_inside_their_co_clusters():
    """With no noise and no second interest, the graph falls apart into its co-clusters."""
    source = Synthetic(
        num_users=300, num_items=200, num_interactions=6000, num_clusters=8, main_share=1.0, second_share=0.0
    )
    users, items = source.draw_pairs(np.random.default_rng(0))
    graph = Biadjacency.from_pairs(users, items, 300, 200)
    indptr, indices = graph.joint
    adjacency = csr_array((np.ones(len(indices)), indices, indptr), shape=(500, 500))
    _, component = connected_components(adjacency)
    sizes = np.bincount(component)
    assert np.count_nonzero(sizes > 1) == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_users": 0}, "dataset.num_users=0"),
        ({"num_clusters": 5000}, "more than there are users or items"),
        ({"num_interactions": 10**8}, "must lie between 10 and a quarter of all pairs, 6000000"),
        (
            {"num_interactions": 10**6, "num_clusters": 1000, "main_share": 1.0, "second_share": 0.0},
            "more than co-clusters of this size hold",
        ),
        ({"main_share": 0.9}, "1 at most together"),
        ({"exponent": 2.0}, "must be above 2"),
    ],
)
def test_bad_generator_settings(settings, message):
    with pytest.raises(UserError, match=message):
        Synthetic(**settings).load(None)
