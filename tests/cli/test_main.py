"""How the command `baco` finds what it is asked for, without doing it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from baco.cli import grid, stream
from baco.cli.main import call
from tests.cli.workplace import ROOT
from tests.records import blank_record


def ends(arguments: list[str]) -> int:
    """The exit status of a command that only prints."""
    with pytest.raises(SystemExit) as raised:
        call(arguments)
    return raised.value.code


def test_the_help_lists_the_commands(capsys):
    assert ends(["--help"]) == 0
    shown = capsys.readouterr().out
    making, using = ("run", "grid", "stream", "batch", "collect"), ("recommend", "update", "cluster", "place")
    for command in (*making, *using, "records", "tables", "figures", "report", "clean"):
        assert f"\n    {command} " in shown


def test_a_command_that_does_not_exist_is_named(capsys):
    assert ends(["rum"]) == 2 and "invalid choice: 'rum'" in capsys.readouterr().err


def test_a_folder_without_records_is_one_line(tmp_path, capsys):
    assert call(["records", "--results", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: there is no record in {tmp_path / 'records'}; `baco run` makes them\n"


@pytest.mark.parametrize(
    ("arguments", "handed_on"),
    [
        (["smoke", "minutes=9"], ["+grid=smoke", "minutes=9"]),
        (["smoke", "-m", "worker=0,1"], ["--multirun", "+grid=smoke", "worker=0,1"]),
        (["-m", "smoke,all", "seed=0"], ["--multirun", "+grid=smoke,all", "seed=0"]),
        (["smoke", "--cfg", "job", "seed=0"], ["+grid=smoke", "--cfg", "job", "seed=0"]),
    ],
    ids=" ".join,
)
def test_a_grid_is_a_run_with_its_name(monkeypatch, arguments, handed_on):
    monkeypatch.setattr(grid, "run_command", lambda arguments, program: (arguments, program))
    assert call(["grid", *arguments]) == (handed_on, "baco grid")


def test_a_stream_is_a_run_of_another_file(monkeypatch):
    monkeypatch.setattr(stream, "run_command", lambda *handed_on: handed_on)
    assert call(["stream", "-m", "method=su"]) == (["-m", "method=su"], "baco stream", "stream")


@pytest.mark.parametrize(
    ("arguments", "message"), [([], "required: NAME"), (["minutes=9"], "a name must come before minutes=9")]
)
def test_a_grid_without_a_name_says_so(capsys, arguments, message):
    assert ends(["grid", *arguments]) == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"stdout": "/dev/full"}, "the output cannot be written"),
        ({"PYTHONIOENCODING": "ascii"}, "set PYTHONIOENCODING=utf-8"),
    ],
    ids=["full", "ascii"],
)
def test_output_that_cannot_be_written_is_one_line(tmp_path, stream, message):
    if "stdout" in stream and not Path(stream["stdout"]).exists():
        pytest.skip("there is no /dev/full here")
    for key in ("records", "tables"):
        (tmp_path / key).mkdir()
    record = blank_record(id="x", labels={"method": "Größe", "dataset": "d", "backbone": "b"}, seconds={"search": 0.0})
    for key in ("backbone", "method", "protocol"):
        record["config"][key] = {"name": "x"}
    record["dataset"]["fingerprint"] = "f" * 64
    (tmp_path / "records" / "a.json").write_text(json.dumps(record))
    command = [sys.executable, "-m", "baco", "records", "--results", tmp_path]
    with open(stream.pop("stdout", tmp_path / "out"), "w") as out:
        done = subprocess.run(
            command, stdout=out, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | stream, check=False
        )
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
