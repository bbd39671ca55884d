"""What `baco clean` finds and removes, and what it must leave alone."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from baco.cli.main import call
from baco.files import atomic_path
from baco.runs import leftovers
from baco.runs.experiments import CONF
from baco.runs.leftovers import find_leftovers
from baco.runs.lock import hold_lock
from baco.runs.run import Plan
from baco.runs.settings import parse
from baco.training.checkpoint import Checkpoint
from tests.cli.workplace import TINY
from tests.records import blank_record


@pytest.fixture
def plan(tmp_path) -> Plan:
    folders = [f"results_dir={tmp_path / 'results' / 'records'}", f"runs_dir={tmp_path / 'runs'}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Plan.of(parse(compose("config", [*TINY, *folders, "method=random"])))


def found_in(path: Path) -> dict[str, str]:
    """The reasons, by the names of files."""
    found = find_leftovers(path / "results", path / "runs", path / "data")
    return {str(leftover.path.relative_to(path)): leftover.reason for leftover in found}


def options(path: Path) -> list[str]:
    """Of the command."""
    return [text for key in ("results", "runs", "data") for text in (f"--{key}", str(path / key))]


def half_written(path: Path) -> Path:
    """What a process leaves that is killed while it writes `path`."""
    with atomic_path(path) as temporary:
        temporary.write_text("half")
    path.rename(temporary)
    return temporary


def save(path: Path) -> None:
    Checkpoint(path, 0, {"code": "another"}).save({"rows": torch.zeros(10)})


def record(plan: Plan) -> None:
    plan.path.parent.mkdir(parents=True)
    plan.path.write_text(json.dumps(blank_record(config=plan.identity)))


def test_files_half_written_are_left_over_when_nobody_has_touched_them_for_an_hour(tmp_path):
    kept = [tmp_path / "results" / "records" / name for name in ("a.json", ".hidden.tmp", "b.0123456789abcdef.tmp")]
    half = [half_written(tmp_path / folder / "file") for folder in ("results/records", "runs", "data/deep/er")]
    for path in kept:
        path.write_text("whole")
    assert found_in(tmp_path) == {}
    for path in (*kept, *half):
        os.utime(path, (time.time() - 3601,) * 2)
    assert set(found_in(tmp_path)) == {str(path.relative_to(tmp_path)) for path in half}
    assert call(["clean", *options(tmp_path), "--remove"]) == 0
    assert found_in(tmp_path) == {} and all(path.exists() for path in kept)


def test_a_checkpoint_of_other_code_stays_until_its_run_has_a_record(tmp_path, plan):
    for path in plan.checkpoint_paths:
        save(path)
    assert found_in(tmp_path) == {}
    record(plan)
    names = {f"runs/{path.name}" for path in plan.checkpoint_paths}
    assert found_in(tmp_path) == dict.fromkeys(names, "the record of its run is there")


@pytest.mark.parametrize("spoil", [lambda whole: whole[:-100], lambda whole: b"", lambda whole: b"text" * 100])
def test_a_damaged_checkpoint_is_left_over(tmp_path, plan, spoil):
    first, second = plan.checkpoint_paths
    save(first)
    save(second)
    second.write_bytes(spoil(first.read_bytes()))
    assert found_in(tmp_path) == {f"runs/{second.name}": "damaged: no training can go on from it"}


def test_what_a_process_uses_is_not_left_over(tmp_path, plan):
    save(plan.checkpoint_paths[0])
    record(plan)
    with hold_lock(plan.lock_path):
        assert found_in(tmp_path) == {}
    assert set(found_in(tmp_path)) == {f"runs/{plan.checkpoint_paths[0].name}", f"runs/locks/{plan.name}"}


def test_the_lock_of_a_holder_that_died_tells_a_grid_so(tmp_path, plan):
    plan.lock_path.parent.mkdir(parents=True)
    plan.lock_path.write_text("process 1 on moon since 1969")
    assert found_in(tmp_path) == {}


def test_a_checkpoint_that_is_used_or_written_again_meanwhile_is_not_removed(tmp_path, plan):
    path = plan.checkpoint_paths[0]
    save(path)
    record(plan)
    (leftover,) = find_leftovers(tmp_path / "results", tmp_path / "runs", tmp_path / "data")
    with hold_lock(plan.lock_path):
        assert not leftover.remove()
    time.sleep(0.01)  # file systems count time in steps
    save(path)
    assert not leftover.remove() and path.exists()


def test_files_are_removed_only_when_that_is_asked_for(tmp_path, plan, capsys):
    save(plan.checkpoint_paths[0])
    record(plan)
    with hold_lock(plan.lock_path):
        pass
    size = plan.checkpoint_paths[0].stat().st_size
    for flags, end in ([], "left over; --remove removes them"), (["--remove"], "removed"):
        assert call(["clean", *options(tmp_path), *flags]) == 0
        shown = capsys.readouterr().out
        assert f"{size:,}  {plan.checkpoint_paths[0]}  (the record of its run is there)\n" in shown
        assert shown.endswith(f"{size:,}  bytes in 2 files {end}\n")
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == []
    assert plan.path.exists()
    assert call(["clean", *options(tmp_path)]) == 0 and "  bytes in 0 files" in capsys.readouterr().out


def test_what_cannot_be_removed_is_one_line(tmp_path, plan, capsys, monkeypatch):
    def refuse(path, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    with hold_lock(plan.lock_path):
        pass
    monkeypatch.setattr(leftovers.Path, "unlink", refuse)
    assert call(["clean", *options(tmp_path), "--remove"]) == 1
    error = f"error: {plan.lock_path} cannot be removed (Permission denied); make its folder writable\n"
    assert capsys.readouterr().err == error


def test_a_file_in_two_of_the_folders_counts_once(tmp_path):
    os.utime(half_written(tmp_path / "runs" / "file"), (0, 0))
    assert len(find_leftovers(tmp_path, tmp_path / "runs", tmp_path)) == 1
