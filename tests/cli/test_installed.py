"""The package as `pip install` leaves it: built, installed into a folder of its own, and run far from the checkout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from baco.runs.provenance import code_version
from tests.cli.workplace import ROOT, TINY

SOURCES = ("baco", "baselines", "conf", "results/reference", "pyproject.toml", "setup.py", "README.md")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
RUN = [*TINY, "device=cpu"]
UNTRAINED = "method=mostpop", "method=itemknn"  # a training would compile its code anew for this folder


def done(*command: object, **options) -> str:
    finished = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Path:
    """What a wheel installs that was built from a source archive, and nothing else."""
    pytest.importorskip("setuptools", "77")
    folder = tmp_path_factory.mktemp("package")
    for name in SOURCES:
        copy = folder / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy)
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    done(sys.executable, "-c", build, cwd=folder / "source")
    (archive,) = folder.glob("*.tar.gz")
    done(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, archive)
    (wheel,) = folder.glob("*.whl")
    done(*PIP, "install", "--no-deps", "--no-index", "--target", folder / "installed", wheel)
    return folder / "installed"


def test_the_command_works_in_any_folder(installation, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "BACO_DATA_DIR"}
    about = {"cwd": tmp_path, "env": environment | {"PYTHONPATH": str(installation)}}
    baco = installation / "bin" / "baco"
    imported = done(sys.executable, "-c", "import baco, baselines; print(baco.__file__, baselines.__file__)", **about)
    assert [Path(path).parents[1] for path in imported.split()] == [installation] * 2

    table = done(baco, "run", *RUN, UNTRAINED[0], **about)
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "results" / "records").glob("*.json"))
    assert f"{100 * record['metrics']['test']['recall@20']:.2f}" in table
    assert record["code"] == code_version() | {"revision": None, "clean": None}, "all modules, and no checkout's"

    done(baco, "grid", "smoke", *RUN[1:], UNTRAINED[1], **about)
    assert len(list((tmp_path / "results" / "records").glob("*.json"))) == 2
    listed = done(baco, "records", "--method", "itemknn", **about)
    assert len(listed.splitlines()) == 2 and "Item kNN" in listed
    written = done(baco, "tables", **about).splitlines()
    assert "results/tables/published.md" in written and (tmp_path / "results" / "tables" / "published.md").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"results", "runs"}


def test_the_help_lists_what_is_installed(installation, tmp_path):
    about = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(installation)}}
    for arguments, group in ((["run", "--help"], "method"), (["grid", "--help"], "grid")):
        shown = done(installation / "bin" / "baco", *arguments, **about)
        listed = {line.split()[0] for line in shown.splitlines() if line}
        assert {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")} <= listed
