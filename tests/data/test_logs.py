import numpy as np
import pandas as pd
import pytest

from baco.data.filters import k_core
from baco.data.interactions import SPLITS
from baco.data.logs import Log
from baco.data.rows import Rows
from baco.errors import UserError


@pytest.fixture(autouse=True, params=[2**23, 3], ids=["at once", "by three rows"])
def block(request, monkeypatch):
    """How many rows are taken out of the database at once."""
    monkeypatch.setattr("baco.data.rows.BLOCK", request.param)


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


def test_a_separator_at_the_end_of_each_line_is_no_column(table, tmp_path):
    lines = table[["who", "what"]].to_csv(index=False).splitlines()
    (tmp_path / "log.csv").write_text("\n".join([lines[0], *(f"{line}," for line in lines[1:])]))
    data = Log(path=str(tmp_path / "log.csv"), user="who", item="what").load(tmp_path)
    assert original_pairs(data) == set(zip(table["who"], table["what"].astype(str), strict=True))


@pytest.mark.parametrize("separator", [" | ", "||", "$$", " <-> "])
@pytest.mark.parametrize("header", [True, False])
def test_a_separator_of_several_characters_is_no_expression(table, tmp_path, separator, header):
    pairs = table[["who", "what"]].astype(str).drop_duplicates()
    lines = [separator.join(row) for row in pairs.itertuples(index=False)]
    (tmp_path / "log.dat").write_text("\n".join([separator.join(["who", "what"])] * header + lines))
    user, item = ("who", "what") if header else ("0", "1")
    log = Log(path=str(tmp_path / "log.dat"), separator=separator, header=header, user=user, item=item)
    assert original_pairs(log.load(tmp_path)) == set(pairs.itertuples(index=False, name=None))


@pytest.mark.parametrize(("ending", "separator"), [("tsv", "\t"), ("dat", "::")])
def test_quotation_marks_between_tabs_are_part_of_the_ids(table, tmp_path, ending, separator):
    table["who"] = table["who"].where(table.index % 2 == 0, '"' + table["who"].astype(str))
    lines = [separator.join(row) for row in table[["who", "what"]].astype(str).itertuples(index=False)]
    path = tmp_path / f"log.{ending}"
    path.write_text("\n".join([separator.join(["who", "what"]), *lines]))
    data = Log(path=str(path), separator=separator, user="who", item="what").load(tmp_path)
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
        ("user,item\na,b,5\nc,d,4\n", {}, "rows have more fields than the header names; name all columns in it"),
        ('user,item\na,b\n"c,d\ne,"f\n', {}, "a quotation mark is opened and not closed in line 3; mend it"),
    ],
)
def test_bad_logs_are_named_with_line_and_column(tmp_path, text, settings, message):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        Log(path=str(tmp_path / "log.csv"), **settings).load(tmp_path / "data")
    assert not (tmp_path / "data").exists(), "nothing is left behind"


def test_times_of_users_with_two_interactions_cannot_split_them(tmp_path):
    lines = [f"{user},{item},{item}" for user in range(9) for item in range(2)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,when", *lines]))
    settings = {"timestamp": "when", "split": "time"}
    with pytest.raises(UserError, match=r"log\.csv: no user has 3 interactions .* take split=random"):
        Log(path=str(tmp_path / "log.csv"), **settings).load(tmp_path)


def test_another_encoding_is_told(tmp_path):
    (tmp_path / "log.csv").write_text("user,item\nJürgen,b\n", encoding="latin-1")
    with pytest.raises(UserError, match=r"log\.csv is not in UTF-8 .*; convert it"):
        Log(path=str(tmp_path / "log.csv")).load(tmp_path)


def test_a_data_dir_that_cannot_be_is_told(table, tmp_path):
    table.to_csv(tmp_path / "log.csv", index=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data_dir: the folder .*file/custom/log-.* cannot be made"):
        Log(path=str(tmp_path / "log.csv"), **columns()).load(tmp_path / "file")


def test_categories_are_ids_like_others(tmp_path):
    pairs = [(user, item) for user in range(6) for item in ("a", "b", "c")]
    frame = pd.DataFrame(pairs, columns=["user", "item"])
    frame["item"] = pd.Categorical(frame["item"])
    frame.to_parquet(tmp_path / "log.parquet")
    data = Log(path=str(tmp_path / "log.parquet")).load(tmp_path)
    assert data.user_ids.tolist() == list(range(6)) and data.item_ids.tolist() == ["a", "b", "c"]
    assert original_pairs(data) == {(str(user), item) for user, item in pairs}


def test_of_a_wide_parquet_file_only_the_named_columns_are_read(table, tmp_path, monkeypatch):
    table.assign(story="long").to_parquet(tmp_path / "log.parquet")
    read = []
    original = Rows._read
    monkeypatch.setattr(Rows, "_read", lambda self, columns: read.append(list(columns)) or original(self, columns))
    Log(path=str(tmp_path / "log.parquet"), **columns(rating=None)).load(tmp_path)
    assert read == [["user_id", "item_id", "time"]]
    with pytest.raises(UserError, match="column 'stories' is unknown; did you mean 'story'"):
        Log(path=str(tmp_path / "log.parquet"), **columns(rating="stories")).load(tmp_path)


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
        ({"split": "tme"}, "^split=tme must be random or time; did you mean 'time'"),
        ({"split": "time"}, "^split=time needs timestamp"),
        ({"min_rating": 3}, "^min_rating=3 needs rating"),
        ({"k_core": -1}, "^k_core=-1 must be 0 or more"),
        ({"user": "id", "item": "id"}, "must name different columns, not \\['id', 'id'\\]"),
        ({"val_share": 0.6, "test_share": 0.5}, "below 1 together"),
        ({"path": "/nowhere/log.csv"}, "^path=/nowhere/log.csv cannot be read"),
    ],
)
def test_bad_log_settings(settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        Log(**({"path": "log.csv"} | settings)).load(tmp_path)


def test_an_unknown_ending_needs_a_separator(tmp_path):
    (tmp_path / "log.txt").write_text("user item\na b\n")
    with pytest.raises(UserError, match="needs the setting 'separator'"):
        Log(path=str(tmp_path / "log.txt")).load(tmp_path)


def test_k_core_of_nothing_is_nothing():
    assert not k_core(np.array([0, 1]), np.array([0, 1]), 2).any()


@pytest.mark.parametrize("unit", ["s", "ns"])
def test_a_missing_date_in_parquet_is_told(table, tmp_path, unit):
    table["when"] = pd.to_datetime(table["when"], unit="s").astype(f"datetime64[{unit}]")
    table.to_parquet(tmp_path / "whole.parquet")
    Log(path=str(tmp_path / "whole.parquet"), **columns(), split="time").load(tmp_path)
    table.loc[7, "when"] = pd.NaT
    table.to_parquet(tmp_path / "gap.parquet")
    with pytest.raises(UserError, match="column 'when' is empty in row 7; times must all be numbers, or all dates"):
        Log(path=str(tmp_path / "gap.parquet"), **columns(), split="time").load(tmp_path)


@pytest.mark.parametrize(
    ("trained", "text"),
    [
        ("u.data", "196\t242\t3\t881250949\n186\t302\t3\t891717742\n"),
        ("ratings.dat", "196::242::3::881250949\n186::302::3::891717742\n"),
        ("log.csv", "user,item\n196,242\n186,302\n"),
        ("log.tsv.gz", "user\titem\n196\t242\n186\t302\n"),
        ("log.inter", "user_id:token\titem_id:token\n196\t242\n186\t302\n"),
        ("log.jsonl", '{"user": 196, "item": 242}\n{"user": 186, "item": 302}\n'),
    ],
)
def test_another_log_is_read_as_the_first_one_where_its_name_tells_no_format(tmp_path, trained, text):
    (tmp_path / "new.data").write_text(text)
    found = Log(name="log", path=str(tmp_path / trained)).read_alike(tmp_path / "new.data")
    assert found.astype(int).to_numpy().tolist() == [[196, 242], [186, 302]]


def test_another_log_with_an_ending_of_its_own_is_read_by_that(tmp_path):
    (tmp_path / "new.csv").write_text("user,item\n196,242\n")
    for trained in ("u.data", "log.jsonl", "log.parquet"):
        found = Log(name="log", path=str(tmp_path / trained)).read_alike(tmp_path / "new.csv")
        assert found.astype(int).to_numpy().tolist() == [[196, 242]]
    (tmp_path / "new.data").write_text("196;242\n")
    with pytest.raises(UserError, match=r"new\.data: the format is not known by the ending or the first line"):
        Log(name="log", path=str(tmp_path / "log.parquet")).read_alike(tmp_path / "new.data")
