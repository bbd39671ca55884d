"""`baco cluster`, from a Parquet log to Parquet codes, and what it refuses."""

import sys

import numpy as np
import pandas as pd
import pytest

from baco.cli.main import call


@pytest.fixture
def log(tmp_path):
    """Two blocks of three users and three items, with other names for the columns."""
    users, items = np.nonzero(np.kron(np.eye(2), np.ones((3, 3))))
    pd.DataFrame({"who": users, "what": [f"i{item}" for item in items]}).to_parquet(tmp_path / "log.parquet")
    return tmp_path / "log.parquet"


def cluster(log, *options) -> int:
    names = ["--user", "who", "--item", "what"]
    return call(["cluster", str(log), "--out", str(log.parent / "codes"), *names, *options])


@pytest.mark.parametrize("options", [["--engine", "duckdb"], [], ["--search", "solves"], ["--resolution", "1"]])
def test_blocks_have_a_row_each(log, options, capsys):
    assert cluster(log, *options, "--budget", "4", "--dim", "8") == 0
    assert "2 co-clusters: 2 rows of users, 2 of items, 0 second codes" in capsys.readouterr().out
    codes = pd.read_parquet(log.parent / "codes")
    assert sorted(codes.id) == [*"012345", "i0", "i1", "i2", "i3", "i4", "i5"]
    row = {name: tuple(found) for name, found in zip(codes.id, codes.codes, strict=True)}
    assert row["0"] == row["1"] == row["2"] != row["3"] == row["4"] == row["5"]
    assert row["i0"] == row["i1"] == row["i2"] != row["i3"] == row["i4"] == row["i5"]
    assert not list(log.parent.glob(".*"))


def refusal(log, capsys, *options) -> str:
    """The one line of a refusal, which leaves nothing behind."""
    assert cluster(log, "--engine", "duckdb", *options) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not list(log.parent.glob("*codes*"))
    return error


def test_bad_input_is_one_line_with_the_mend(log, capsys):
    assert "there is no file" in refusal(log.with_name("none.parquet"), capsys)
    assert "column 'whom' is unknown; did you mean 'who'?" in refusal(log, capsys, "--user", "whom")
    assert "is below the least" in refusal(log, capsys, "--budget", "1e-9")
    assert "--budget=-1.0 must be a ratio" in refusal(log, capsys, "--budget", "-1")
    assert "--num_rounds=0 must be 1 or more" in refusal(log, capsys, "--num_rounds", "0")
    assert "--search=size needs the engine 'compiled'" in refusal(log, capsys, "--search", "size")
    frame = pd.read_parquet(log)
    log.write_text("who,what\n1,2\n")
    assert "cannot be read as a table" in refusal(log, capsys)
    frame[:0].to_parquet(log)
    assert "holds no interactions" in refusal(log, capsys)
    frame.assign(what=[None, *frame.what[1:]]).to_parquet(log)
    assert "1 rows have no 'who' or no 'what'; remove these rows" in refusal(log, capsys)


def test_a_folder_that_is_there_is_not_written_to(log, capsys):
    (log.parent / "codes").mkdir()
    (log.parent / "codes" / "mine").touch()
    assert cluster(log) == 1 and "is there already; remove it" in capsys.readouterr().err


def test_spark_that_is_not_installed_says_so(log, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark", None)
    assert cluster(log, "--engine", "spark") == 1
    assert "pip install 'baco[spark]'" in capsys.readouterr().err
