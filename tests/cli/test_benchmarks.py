"""The benchmarks are not run here, but what they say of a wrong command line is."""

import runpy
import sys

import pytest

from tests.cli.workplace import ROOT


def test_a_dataset_that_does_not_exist_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_solver.py", "gowala"])
    monkeypatch.syspath_prepend(ROOT / "scripts")
    with pytest.raises(SystemExit, match=r"^error: dataset 'gowala' is unknown; did you mean 'gowalla'\?"):
        runpy.run_path(str(ROOT / "scripts" / "bench_solver.py"), run_name="__main__")
    assert capsys.readouterr().out == ""
