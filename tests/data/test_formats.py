"""Every format that people keep logs in, on files written as the programs write them."""

import bz2
import gzip
import json
import logging
import lzma
import tempfile

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_array, save_npz

from baco.data.interactions import SPLITS
from baco.data.logs import Log, import_frame
from baco.errors import UserError


@pytest.fixture
def table() -> pd.DataFrame:
    """40 ratings by 8 users of 7 items, no pair twice."""
    rng = np.random.default_rng(1)
    places = rng.permutation(56)[:40]
    return pd.DataFrame(
        {
            "user": places // 7 + 1,
            "item": places % 7 + 100,
            "rating": rng.integers(1, 6, 40),
            "timestamp": rng.permutation(40) + 978_300_000,
        }
    )


def pairs_of(data) -> set[tuple[str, str]]:
    return {
        (str(data.user_ids[user]), str(data.item_ids[item]))
        for split in SPLITS
        for user, item in zip(getattr(data, split).users, getattr(data, split).items, strict=True)
    }


def pairs_in(table) -> set[tuple[str, str]]:
    return set(zip(table["user"].astype(str), table["item"].astype(str), strict=True))


def test_movielens_files_need_no_settings(table, tmp_path):
    for name, separator in (("ratings.dat", "::"), ("u.data", "\t")):
        rows = table.astype(str).itertuples(index=False)
        (tmp_path / name).write_text("".join(separator.join(row) + "\n" for row in rows))
        data = Log(path=str(tmp_path / name), rating="rating", timestamp="timestamp", split="time").load(tmp_path)
        assert pairs_of(data) == pairs_in(table)
        assert "MovieLens file" in data.import_report.source


def test_recbole_atomic_files_go_by_their_typed_headers(table, tmp_path):
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    table.to_csv(tmp_path / "ml.inter", sep="\t", index=False, header=header.split("\t"))
    for user, item in (("user", "item"), ("user_id", "item_id"), ("user_id:token", "item_id:token")):
        data = Log(path=str(tmp_path / "ml.inter"), user=user, item=item, rating="rating", min_rating=3).load(tmp_path)
        assert pairs_of(data) == pairs_in(table[table["rating"] >= 3])


def adjacency(table) -> str:
    lists = table.groupby("user", sort=False)["item"].agg(lambda items: " ".join(map(str, items)))
    return "".join(f"{user} {items}\n" for user, items in lists.items()) + "99 \n"


@pytest.mark.parametrize("settings", [{}, {"header": False, "user": "0", "item": "1", "separator": " "}])
def test_adjacency_lists_are_imported_whole(table, tmp_path, settings):
    (tmp_path / "train.txt").write_text(adjacency(table))
    data = Log(path=str(tmp_path / "train.txt"), **settings).load(tmp_path)
    assert pairs_of(data) == pairs_in(table)
    assert data.user_ids.tolist() == sorted(set(table["user"]))


def test_a_strange_line_of_an_adjacency_list_is_named(tmp_path):
    (tmp_path / "train.txt").write_text("1 2 3\n\n2 3\n3 x 5\n")
    with pytest.raises(UserError, match=r"train\.txt: line 4: a line of an adjacency list must be of integers"):
        Log(path=str(tmp_path / "train.txt"), format="adjacency").load(tmp_path)


def test_a_split_in_two_or_three_files_is_kept(table, tmp_path):
    parts = {"train": table[:28], "val": table[28:34], "test": table[34:]}
    for part, rows in parts.items():
        (tmp_path / f"{part}.txt").write_text(adjacency(rows))
    paths = {"path": str(tmp_path / "train.txt"), "path_test": str(tmp_path / "test.txt")}
    three = Log(**paths, path_val=str(tmp_path / "val.txt")).load(tmp_path)
    for part, rows in parts.items():
        graph = getattr(three, part)
        found = {(three.user_ids[u], three.item_ids[v]) for u, v in zip(graph.users, graph.items, strict=True)}
        assert found == set(zip(rows["user"], rows["item"], strict=True))
    two = Log(**paths).load(tmp_path)
    assert (two.train.num_edges, two.val.num_edges, two.test.num_edges) == (26, 2, 6)


def test_what_an_earlier_part_has_is_dropped_and_counted(table, tmp_path):
    table[:30].to_csv(tmp_path / "train.csv", index=False)
    pd.concat([table[28:], table[35:36]]).to_csv(tmp_path / "test.csv", index=False)
    data = Log(path=str(tmp_path / "train.csv"), path_test=str(tmp_path / "test.csv")).load(tmp_path)
    report = data.import_report
    assert (report.rows, report.overlapping, report.repeated, report.kept) == (43, 2, 1, 40)
    assert data.test.num_edges == 10


def test_an_error_in_another_part_names_its_file(table, tmp_path):
    table.to_csv(tmp_path / "train.csv", index=False)
    (tmp_path / "test.csv").write_text("user,item\n1,2\n,4\n")
    with pytest.raises(UserError, match=r"test\.csv: column 'user' is empty in line 3"):
        Log(path=str(tmp_path / "train.csv"), path_test=str(tmp_path / "test.csv")).load(tmp_path)


@pytest.mark.parametrize(
    ("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", None)]
)
@pytest.mark.parametrize("upper", [False, True])
def test_compressed_text_in_any_case_of_its_ending(table, tmp_path, ending, compress, upper):
    if compress is None:
        pyarrow = pytest.importorskip("pyarrow")

        def compress(content):
            return pyarrow.compress(content, codec="zstd", asbytes=True)

    name = f"log.tsv.{ending}"
    path = tmp_path / (name.upper() if upper else name)
    path.write_bytes(compress(table.to_csv(index=False, sep="\t").encode()))
    assert pairs_of(Log(path=str(path)).load(tmp_path)) == pairs_in(table)


def test_a_damaged_compressed_file_is_told(tmp_path):
    for name, content in (("a.csv.gz", b"no gzip"), ("a.csv.xz", b"no xz"), ("a.csv.bz2", b"BZh9")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            Log(path=str(tmp_path / name)).load(tmp_path)


AMAZON = {
    2018: {"user": "reviewerID", "item": "asin", "rating": "overall", "timestamp": "unixReviewTime"},
    2023: {"user": "user_id", "item": "parent_asin", "rating": "rating", "timestamp": "timestamp"},
}


@pytest.mark.parametrize("year", AMAZON)
@pytest.mark.parametrize("ending", ["jsonl", "json.gz"])
def test_amazon_reviews_are_json_lines(table, tmp_path, year, ending):
    table = table.assign(user="A" + table["user"].astype(str), item="00" + table["item"].astype(str))
    rows = table.rename(columns=AMAZON[year]).to_dict("records")
    text = "".join(json.dumps(row | {"text": 'He said: "no,\nnever", and left'}) + "\n" for row in rows).encode()
    path = tmp_path / f"reviews.{ending}"
    path.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    data = Log(path=str(path), rating="rating", min_rating=3, timestamp="timestamp", split="time").load(tmp_path)
    assert pairs_of(data) == pairs_in(table[table["rating"] >= 3])


def test_a_null_in_json_is_no_id(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"user": 1, "item": 2}\n{"user": null, "item": 3}\n{"item": 3}\n')
    with pytest.raises(UserError, match=r"log\.jsonl: column 'user' is empty in row 1; remove that row"):
        Log(path=str(tmp_path / "log.jsonl")).load(tmp_path)


def test_json_may_be_one_array(table, tmp_path):
    table.to_json(tmp_path / "log.json", orient="records")
    assert pairs_of(Log(path=str(tmp_path / "log.json")).load(tmp_path)) == pairs_in(table)


def test_broken_json_is_told_with_its_line(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"user": 1, "item": 2}\n{"user": 1, "item\n')
    with pytest.raises(UserError, match=r"log\.jsonl cannot be read as a table \(.*Malformed JSON near line"):
        Log(path=str(tmp_path / "log.jsonl")).load(tmp_path)


def test_parquet_folders_as_spark_and_hive_write_them(table, tmp_path):
    pytest.importorskip("pyarrow")
    spark = tmp_path / "spark"
    spark.mkdir()
    for part, rows in enumerate(np.array_split(np.arange(40), 3)):
        table.iloc[rows].to_parquet(spark / f"part-{part:05d}-c000.snappy.parquet")
    (spark / "_SUCCESS").write_text("")
    (spark / ".part-00000-c000.snappy.parquet.crc").write_bytes(b"crc")
    whole = Log(path=str(spark)).load(tmp_path)
    assert pairs_of(whole) == pairs_in(table)
    table.to_parquet(tmp_path / "log.PQ")
    assert Log(path=str(tmp_path / "log.PQ")).load(tmp_path).fingerprint == whole.fingerprint
    for rating, rows in table.groupby("rating"):
        (tmp_path / "hive" / f"rating={rating}").mkdir(parents=True)
        rows.drop(columns="rating").to_parquet(tmp_path / "hive" / f"rating={rating}" / "part.parquet")
    data = Log(path=str(tmp_path / "hive"), rating="rating", min_rating=3).load(tmp_path)
    assert pairs_of(data) == pairs_in(table[table["rating"] >= 3])


@pytest.mark.parametrize(
    ("layout", "names"), [("{}", ["a1", "a[1]", "a*", "a?"]), ("k={}/part", ["a1", "a[1]", "a*"])], ids=["flat", "Hive"]
)
def test_names_in_a_folder_are_no_patterns(table, tmp_path, layout, names):
    """`a[1].parquet` as a pattern is `a1.parquet`, and `a*.parquet` is all of them."""
    pytest.importorskip("pyarrow")
    for name, rows in zip(names, np.array_split(np.arange(40), len(names)), strict=True):
        path = tmp_path / "log" / f"{layout.format(name)}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.iloc[rows].to_parquet(path)
    data = Log(path=str(tmp_path / "log")).load(tmp_path)
    assert data.import_report.rows == 40 and pairs_of(data) == pairs_in(table)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_the_folder_for_temporary_files_may_have_any_name(table, tmp_path, monkeypatch, ending):
    folder = tmp_path / "a[1]*"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    path = tmp_path / f"log.{ending}"
    if ending == "parquet":
        pytest.importorskip("pyarrow")
        table.to_parquet(path)
    elif ending == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, index=False)
    assert pairs_of(Log(path=str(path)).load(tmp_path)) == pairs_in(table)


def test_a_folder_of_text_has_one_header_in_every_file(table, tmp_path):
    (tmp_path / "log").mkdir()
    table[:20].to_csv(tmp_path / "log" / "part-00000.csv", index=False)
    table[20:].to_csv(tmp_path / "log" / "part-00001.csv", index=False)
    assert pairs_of(Log(path=str(tmp_path / "log")).load(tmp_path)) == pairs_in(table)
    table[20:].to_csv(tmp_path / "log" / "part-00001.csv", index=False, header=False)
    with pytest.raises(UserError, match="its files have different headers"):
        Log(path=str(tmp_path / "log")).load(tmp_path)


def test_names_of_hive_folders_are_text(table, tmp_path):
    pytest.importorskip("pyarrow")
    for user, rows in table.groupby("user"):
        folder = tmp_path / "hive" / f"user=00{user}"
        folder.mkdir(parents=True)
        rows.drop(columns="user").to_parquet(folder / "part.parquet")
    expected = pairs_in(table.assign(user="00" + table["user"].astype(str)))
    assert pairs_of(Log(path=str(tmp_path / "hive")).load(tmp_path)) == expected


def test_a_path_at_home(table, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    table.to_csv(tmp_path / "log.csv", index=False)
    assert pairs_of(Log(path="~/log.csv").load(tmp_path / "data")) == pairs_in(table)


def test_an_empty_folder_is_told(tmp_path):
    (tmp_path / "log").mkdir()
    with pytest.raises(UserError, match="the folder holds no files"):
        Log(path=str(tmp_path / "log")).load(tmp_path)


def test_the_index_of_a_frame_in_parquet_is_a_column(table, tmp_path):
    pytest.importorskip("pyarrow")
    table.set_index("user").to_parquet(tmp_path / "log.parquet")
    assert pairs_of(Log(path=str(tmp_path / "log.parquet")).load(tmp_path)) == pairs_in(table)


def test_binary_ids_are_uuids_text_or_digits(table, tmp_path):
    pytest.importorskip("pyarrow")
    binary = {
        "uuid": lambda user: bytes([user] * 15 + [200]),
        "text": lambda user: f"u{user}".encode(),
        "hash": lambda user: bytes([255, user]),
    }
    for name, encode in binary.items():
        table.assign(user=table["user"].map(encode)).to_parquet(tmp_path / f"{name}.parquet")
        ids = Log(path=str(tmp_path / f"{name}.parquet")).load(tmp_path).user_ids
        expected = {"uuid": "01010101-0101-0101-0101-0101010101c8", "text": "u1", "hash": "ff01"}[name]
        assert len(ids) == 8 and ids[0] == expected


def test_feather_and_frames_and_matrices(table, tmp_path):
    pytest.importorskip("pyarrow")
    table.to_feather(tmp_path / "log.feather")
    feather = Log(path=str(tmp_path / "log.feather"), rating="rating", min_rating=3).load(tmp_path)
    assert pairs_of(feather) == pairs_in(table[table["rating"] >= 3])
    assert import_frame(table, rating="rating", min_rating=3).fingerprint == feather.fingerprint
    texts = import_frame(table.astype({"user": str, "item": object}))
    assert pairs_of(texts) == pairs_in(table)
    ratings = table["rating"].to_numpy(copy=True)
    ratings[0] = 0  # a stored zero
    matrix = coo_array((ratings, (table["user"], table["item"])), shape=(10, 120))
    save_npz(tmp_path / "matrix.npz", matrix.tocsr())
    data = Log(path=str(tmp_path / "matrix.npz"), rating="rating", min_rating=1).load(tmp_path)
    assert pairs_of(data) == pairs_in(table.iloc[1:])
    np.savez(tmp_path / "other.npz", a=np.arange(3))
    with pytest.raises(UserError, match=r"other\.npz is no SciPy matrix"):
        Log(path=str(tmp_path / "other.npz")).load(tmp_path)


def test_a_csv_file_of_another_country(table, tmp_path):
    table.assign(rating=table["rating"] + 0.5).to_csv(tmp_path / "log.csv", index=False, sep=";", decimal=",")
    data = Log(path=str(tmp_path / "log.csv"), rating="rating", min_rating=3.5).load(tmp_path)
    assert pairs_of(data) == pairs_in(table[table["rating"] >= 3])


@pytest.mark.parametrize("comments", ["# exported 2024\n# by hand\n", "\n# after a blank line\n", "#"])
def test_comment_lines_before_the_header(table, tmp_path, comments):
    (tmp_path / "log.csv").write_text(comments + table.to_csv(index=False))
    assert pairs_of(Log(path=str(tmp_path / "log.csv")).load(tmp_path)) == pairs_in(table)


@pytest.mark.parametrize("separator", ["\\t", "'\\t'", "\\\\t", "\t", ""])
def test_a_tab_is_spelled_in_many_ways(table, tmp_path, separator):
    table.to_csv(tmp_path / "log.dat", index=False, sep="\t")
    assert pairs_of(Log(path=str(tmp_path / "log.dat"), separator=separator).load(tmp_path)) == pairs_in(table)


@pytest.mark.parametrize("separator", [" ", "\\s+", ""])
def test_blanks_between_fields(table, tmp_path, separator):
    text = table.to_csv(index=False, sep=" ")
    if separator != " ":
        text = text.replace(" ", "  \t")
    if separator == "":
        text = text.replace("\t", "")
    (tmp_path / "log.txt").write_text(text)
    assert pairs_of(Log(path=str(tmp_path / "log.txt"), separator=separator).load(tmp_path)) == pairs_in(table)


def test_a_line_with_another_number_of_blanks_is_named(tmp_path):
    (tmp_path / "log.txt").write_text("user item\n1 2\n\n1 2 3\n")
    with pytest.raises(UserError, match=r"line 4: the line does not have the 2 fields of the first line"):
        Log(path=str(tmp_path / "log.txt"), separator="\\s+").load(tmp_path)


@pytest.mark.parametrize(("encoding", "ending"), [("latin-1", "csv"), ("cp1252", "csv.gz"), ("utf-16", "csv")])
def test_other_encodings(table, tmp_path, encoding, ending):
    table = table.assign(user="Jürgen " + table["user"].astype(str))
    text = table.to_csv(index=False).encode(encoding)
    path = tmp_path / f"log.{ending}"
    path.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    assert pairs_of(Log(path=str(path), encoding=encoding).load(tmp_path)) == pairs_in(table)


def test_a_byte_order_mark_and_carriage_returns_are_no_data(table, tmp_path):
    (tmp_path / "log.csv").write_bytes(table.to_csv(index=False).replace("\n", "\r\n").encode("utf-8-sig"))
    assert pairs_of(Log(path=str(tmp_path / "log.csv")).load(tmp_path)) == pairs_in(table)


def test_times_in_every_spelling_give_one_split(table, tmp_path):
    dates = pd.to_datetime(table["timestamp"], unit="s", utc=True)
    spellings = {
        "seconds": table["timestamp"],
        "milliseconds": table["timestamp"] * 1000 + 7,
        "nanoseconds": table["timestamp"] * 10**9 + 1,
        "fractions": table["timestamp"] + 0.25,
        "iso": dates.dt.strftime("%Y-%m-%d %H:%M:%S"),
        "zone": dates.dt.tz_convert("Asia/Tokyo").dt.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "format": dates.dt.strftime("%d.%m.%Y %H:%M:%S"),
    }
    fingerprints = set()
    for name, times in spellings.items():
        table.assign(timestamp=times).to_csv(tmp_path / f"{name}.csv", index=False)
        time_format = "%d.%m.%Y %H:%M:%S" if name == "format" else None
        log = Log(path=str(tmp_path / f"{name}.csv"), timestamp="timestamp", split="time", time_format=time_format)
        fingerprints.add(log.load(tmp_path).fingerprint)
    assert len(fingerprints) == 1
    wrong = Log(path=str(tmp_path / "iso.csv"), timestamp="timestamp", split="time", time_format="%d.%m.%Y")
    with pytest.raises(UserError, match=r"column 'timestamp' holds '2000-.* times must all be written as %d\.%m\.%Y"):
        wrong.load(tmp_path)


def test_a_stray_quotation_mark_swallows_nothing(table, tmp_path):
    table["title"] = "Film"
    table.loc[[5, 30], "title"] = ['"Alien', 'Alien"']
    lines = [",".join(row) for row in table[["user", "item", "title"]].astype(str).itertuples(index=False)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,title", *lines]))
    with pytest.raises(UserError, match=r"line 7: a quoted field holds a line break; .* quote=''"):
        Log(path=str(tmp_path / "log.csv")).load(tmp_path)
    assert pairs_of(Log(path=str(tmp_path / "log.csv"), quote="").load(tmp_path)) == pairs_in(table)


def test_fields_of_several_lines_are_read_where_they_are_meant(table, tmp_path):
    table.assign(review='two\nlines, "quoted"').to_csv(tmp_path / "log.csv", index=False)
    data = Log(path=str(tmp_path / "log.csv"), multiline=True).load(tmp_path)
    assert pairs_of(data) == pairs_in(table) and data.import_report.rows == len(table)


def test_words_for_missing_values_are_told_or_dropped(table, tmp_path, caplog):
    table = table.astype({"user": object, "item": object})
    table.loc[:2, "user"] = "NULL"
    table.loc[3, "item"] = "\\N"
    table.to_csv(tmp_path / "log.csv", index=False)
    kept = Log(path=str(tmp_path / "log.csv")).load(tmp_path)
    assert "NULL" in kept.user_ids.tolist()
    assert "the user id 'NULL' of 3 rows is a word for a missing value" in caplog.text
    assert "the item id '\\N' of 1 rows" in caplog.text and "missing_values=drop" in caplog.text
    table.loc[4, "user"] = ""
    table.to_csv(tmp_path / "log.csv", index=False)
    dropped = Log(path=str(tmp_path / "log.csv"), missing_values="drop").load(tmp_path)
    assert pairs_of(dropped) == pairs_in(table.iloc[5:]) and dropped.import_report.missing_ids == 5


def test_blanks_around_ids_are_told_or_removed(table, tmp_path, caplog):
    table = table.astype({"user": str})
    spaced = table.copy()
    spaced.loc[::2, "user"] += " "
    spaced.to_csv(tmp_path / "log.csv", index=False)
    Log(path=str(tmp_path / "log.csv")).load(tmp_path)
    assert "user ids have blanks around them" in caplog.text and "strip=true" in caplog.text
    assert pairs_of(Log(path=str(tmp_path / "log.csv"), strip=True).load(tmp_path)) == pairs_in(table)


def test_ratings_without_a_threshold_are_told_if_some_are_no_likes(table, tmp_path, caplog):
    table.assign(rating=table["rating"] - 3).to_csv(tmp_path / "log.csv", index=False)
    Log(path=str(tmp_path / "log.csv"), rating="rating").load(tmp_path)
    count = int((table["rating"] <= 3).sum())
    assert f"{count} ratings of 0 and below count as interactions; min_rating" in caplog.text


def test_the_report_is_one_line_and_stays_with_the_data(table, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    pd.concat([table, table.iloc[:4]]).to_csv(tmp_path / "log.csv", index=False)
    log = Log(path=str(tmp_path / "log.csv"), rating="rating", min_rating=2, k_core=3)
    report = log.load(tmp_path).import_report
    assert report == log.load(tmp_path).import_report
    assert str(report) in caplog.text and "log.csv (text separated by comma, with header): 44 rows, " in str(report)


def test_one_long_id_costs_its_own_length(tmp_path):
    rows = [f"u{number % 50},i{number}" for number in range(3000)] + ["u0," + "x" * 40_000]
    (tmp_path / "log.csv").write_text("\n".join(["user,item", *rows]))
    data = Log(path=str(tmp_path / "log.csv")).load(tmp_path / "data")
    assert data.item_ids[-1] == "x" * 40_000
    (prepared,) = (tmp_path / "data").rglob("*.npz")
    assert prepared.stat().st_size < 200_000


def test_files_with_brackets_quotes_and_stars_in_their_names(table, tmp_path):
    for name in ("a[1]*?.csv", "it's.csv", "a=b#c ü.csv"):
        table.to_csv(tmp_path / name, index=False)
        assert pairs_of(Log(path=str(tmp_path / name)).load(tmp_path / "data")) == pairs_in(table)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split_seed": -1}, "^split_seed=-1 must be 0 or more"),
        ({"k_core": 2.5}, "^k_core=2.5 must be a whole number"),
        ({"split_seed": True}, "^split_seed=True must be a whole number"),
        ({"format": "jsn"}, "^format=jsn must be .*; did you mean 'json'"),
        ({"encoding": "utf-9"}, "^encoding=utf-9 is unknown"),
        ({"quote": "''"}, "^quote='' must be one character"),
        ({"missing_values": "dorp"}, "^missing_values=dorp must be keep or drop; did you mean 'drop'"),
        ({"path_test": ""}, "^path_test is empty"),
        ({"time_format": "%Y"}, "^time_format=%Y needs timestamp"),
        ({"path_val": "v.csv"}, "^path_val=v.csv needs path_test"),
        ({"path_test": "t.csv", "k_core": 2}, "gives a split, which k_core and split would change"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(UserError, match=message):
        Log(path="log.csv", **settings)
