"""Batches: made on one machine, brought back to another."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from baco.cli.main import call
from tests.cli.test_grid import ENDLESS, SMOKE
from tests.cli.workplace import ROOT


def command(path: Path, *arguments: object) -> list[str]:
    folders = ["--results", path / "results", "--runs", path / "runs"]
    return [arguments[0], *map(str, folders), *map(str, arguments[1:])]


def batch(path: Path, minutes: float, *overrides: str) -> list[str]:
    options = ["--grid", "smoke", "--minutes", minutes, "--out", path / "out"]
    return [sys.executable, "-m", "baco", *command(path, "batch", *options, *overrides)]


@pytest.fixture
def here(tmp_path) -> Path:
    return tmp_path / "here"


def test_a_batch_is_made_and_collected(tmp_path, here, capsys):
    away = tmp_path / "away"
    made = subprocess.run(batch(away, 2, *SMOKE[1:], "budget=0.5", "seed=7"), capture_output=True, text=True, cwd=ROOT)
    assert made.stdout.endswith(f"3 new records in {away / 'out' / 'batch.zip'}\n"), made.stderr
    assert [path.name for path in (away / "out").iterdir()] == ["batch.zip"]
    collect = command(here, "collect", away / "out" / "batch.zip")
    assert call(collect) == 0 and capsys.readouterr().out.endswith("batch.zip: 3 new records, 0 failures\n")
    for path in (away / "results" / "records").iterdir():
        assert (here / "results" / "records" / path.name).read_bytes() == path.read_bytes()
    assert call(collect) == 0 and ": 0 new records" in capsys.readouterr().out


def test_a_batch_that_is_asked_to_end_ends_its_worker(tmp_path):
    command = batch(tmp_path, 9, *ENDLESS[1:])
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert next(process.stderr).startswith("[1/3]")
            process.send_signal(signal.SIGTERM)
            assert "stopped: the process was asked to end" in process.stderr.read()
            assert process.wait() == 0
        finally:
            process.kill()  # a failed assertion would wait for an endless run
    assert (tmp_path / "out" / "batch.zip").exists()
