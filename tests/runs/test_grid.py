"""The grid runner, with runs that take no time; `tests/cli/test_grid.py` has real ones."""

import os
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest
from hydra import initialize_config_dir

from baco.errors import UserError
from baco.runs import grid as grids
from baco.runs.experiments import CONF
from baco.runs.grid import Grid, State, apply_overrides, locate_failure
from baco.runs.lock import hold_lock
from baco.runs.record import pack_hits, record_id, save_record
from baco.runs.run import Plan
from tests.records import blank_record

TINY = [
    "dataset=synthetic",
    "dataset.num_users=60",
    "dataset.num_items=50",
    "dataset.num_interactions=600",
    "dataset.num_clusters=4",
    "device=cpu",
]


class Laboratory:
    """Grids in a folder of their own; `run` only notes what it was asked for, and fails where told to."""

    def __init__(self, path: Path, monkeypatch):
        self.folders = [f"results_dir={path / 'records'}", f"runs_dir={path / 'runs'}"]
        self.ran: list[str] = []
        self.failing: set[str] = set()
        self.seconds = 1.0
        monkeypatch.setattr(grids, "run", self.run)

    def run(self, plan: Plan) -> dict:
        with hold_lock(plan.lock_path):
            return self.noted(plan)

    def noted(self, plan: Plan) -> dict:
        config = plan.config
        what = f"{config.method.name} {config.seed}"
        self.ran.append(what)
        if what in self.failing:
            raise UserError(f"{what} cannot be")
        record = blank_record(
            id=record_id(plan.identity),
            config=plan.identity,
            seconds={"clustering": 0.0, "training": self.seconds, "validation": 0.0, "test": 0.0},
            environment={"device": "cpu"},
            dataset={"fingerprint": plan.data.fingerprint},
        )
        save_record(config.results_dir, plan.name, record, pack_hits(np.arange(2), np.ones(2), np.ones((2, 5), bool)))
        return record

    def grid(self, *runs: str, seconds: float = 1e9, at_first: float = 1e9) -> Grid:
        """A grid that had `at_first` seconds when it began and has `seconds` from then on."""
        clock = chain([at_first], repeat(seconds))
        return Grid([[*TINY, *self.folders, *run.split()] for run in runs], lambda: next(clock))

    def plan(self, run: str) -> Plan:
        grid = self.grid(run)
        return grid.plan(grid.tasks[0])

    def work(self, *runs: str, **options) -> Grid:
        self.ran.clear()
        grid = self.grid(*runs, **options)
        grid.work()
        return grid


@pytest.fixture
def lab(tmp_path, monkeypatch):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield Laboratory(tmp_path, monkeypatch)


def test_what_has_a_record_is_skipped(lab):
    assert lab.work("method=full", "method=random").states == [State.DONE, State.DONE]
    again = lab.work("method=random", "method=random seed=1", "method=full")
    assert again.states == [State.RECORDED, State.DONE, State.RECORDED]
    assert lab.ran == ["random 1"] and len(again.records) == 1
    assert again.summarize() == "3 runs: 1 done now, 2 recorded before"


def test_a_record_that_is_not_valid_does_not_count(lab, tmp_path):
    lab.work("method=full")
    (path,) = (tmp_path / "records").glob("*.json")
    path.write_text(path.read_text()[:-20])
    assert lab.work("method=full").states == [State.DONE]


def test_a_method_or_data_not_there_are_missing_and_no_failure(lab, tmp_path):
    elsewhere = ["dataset=gowalla", "dataset.file=other.npz", f"data_dir={tmp_path}"]
    runs = [[*TINY, *lab.folders, "method=nonesuch"], [*lab.folders, *elsewhere], [*TINY, *lab.folders, "method=full"]]
    grid = Grid(runs, lambda: 1e9)
    grid.work()
    assert grid.states == [State.MISSING, State.MISSING, State.DONE]
    assert not (tmp_path / "runs" / "failures").exists()


def test_a_setting_that_does_not_exist_is_a_failure(lab, tmp_path, caplog):
    caplog.set_level("INFO", "baco.runs.grid")
    wrong = ("method=full method.num_rounds=3", "method=baco method.solver=x", "method=full backbone=mff")
    assert lab.work(*wrong, "method=full").states == [State.FAILED, State.FAILED, State.FAILED, State.DONE]
    reasons = [message.partition("\n  ")[2] for message in caplog.messages if "failed: " in message]
    assert reasons[0] == "failed: 'method.num_rounds' is no setting of the chosen method; leave it out"
    assert reasons[2].startswith("failed: backbone 'mff' is unknown; did you mean 'mf'?")
    assert not (tmp_path / "runs" / "failures").exists(), "it has the runs that were started"


def test_failures_are_written_down_and_tried_again_last(lab, tmp_path):
    lab.failing = {"random 0"}
    runs = ("method=random", "method=full", "method=full seed=1")
    grid = lab.work(*runs[:2])
    assert grid.states == [State.FAILED, State.DONE] and lab.ran == ["random 0", "full 0"], "once per worker"
    (failure,) = (tmp_path / "runs" / "failures").glob("*.json")
    assert "random 0 cannot be" in failure.read_text()

    os.utime(failure, (0, 0))  # long ago, for a worker that starts now
    lab.failing.clear()
    assert lab.work(*runs).states == [State.DONE, State.RECORDED, State.DONE]
    assert lab.ran == ["full 1", "random 0"]
    assert not failure.exists(), "it succeeded in the end"


def test_a_defect_is_a_failure_with_its_traceback(lab, tmp_path, monkeypatch):
    monkeypatch.setattr(grids, "run", lambda plan: 1 / 0)
    assert lab.work("method=full", "method=random").states == [State.FAILED, State.FAILED]
    assert all("ZeroDivisionError" in path.read_text() for path in (tmp_path / "runs" / "failures").iterdir())


def test_a_claimed_run_is_left_to_its_worker(lab):
    plan = lab.plan("method=full")
    with hold_lock(plan.lock_path):
        assert lab.work("method=full", "method=random").states == [State.CLAIMED, State.DONE]
    assert lab.work("method=full", "method=random").states == [State.DONE, State.RECORDED]


def test_a_run_whose_worker_died_is_a_failure_and_comes_last(lab, caplog):
    caplog.set_level("INFO", "baco.runs.grid")
    plan = lab.plan("method=full")
    plan.lock_path.parent.mkdir(parents=True)
    plan.lock_path.write_text("process 1 on moon since 1969")
    assert lab.work("method=full", "method=random").states == [State.FAILED, State.DONE]
    assert "process 1 on moon since 1969 died" in locate_failure(plan).read_text()
    assert any(
        message.endswith("failed: process 1 on moon since 1969 died while it ran this") for message in caplog.messages
    )
    os.utime(locate_failure(plan), (0, 0))
    assert lab.work("method=full", "method=random").states == [State.DONE, State.RECORDED]


def test_what_is_known_to_take_longer_is_not_started(lab):
    lab.seconds = 50.0
    lab.work("method=full")
    runs = ("method=random", "method=random backbone=mf", "method=baco")
    assert lab.work(*runs, seconds=40).states == [State.TOO_LONG, State.DONE, State.TOO_LONG], (
        "of MF nothing is known yet"
    )
    assert lab.work(*runs, seconds=60).states == [State.DONE, State.RECORDED, State.DONE]


def test_a_method_that_never_ran_is_expected_to_take_what_most_others_do(lab):
    for method, lab.seconds in (("full", 50.0), ("random", 10.0), ("double", 12.0)):
        lab.work(f"method={method}")
    runs = ("method=full seed=1", "method=baco")
    assert lab.work(*runs, seconds=40).states == [State.TOO_LONG, State.DONE], "its own run counts more than others'"
    assert lab.work("method=lsh", seconds=11).states == [State.TOO_LONG]


def test_what_takes_longer_than_all_the_time_is_started_all_the_same(lab):
    """It continues from its checkpoint the next time."""
    lab.seconds = 50.0
    lab.work("method=full")
    assert lab.work("method=random", seconds=30, at_first=40).states == [State.DONE]


def test_what_gets_nowhere_in_all_the_time_there_is_comes_last_the_next_time(lab, monkeypatch):
    clock = [100.0]

    def run(plan):
        if plan.config.method.name == "bet" and lab.hopeless:
            clock[0] = 0.0
            raise grids.TimeUp("the time is over")
        return lab.run(plan)

    monkeypatch.setattr(grids, "run", run)
    runs = [[*TINY, *lab.folders, f"method={name}"] for name in ("bet", "full", "random")]
    lab.hopeless = True
    for states in ([State.PENDING] * 3, [State.FAILED, State.DONE, State.DONE]):
        clock[0] = 100.0
        grid = Grid(runs, lambda: clock[0])
        with pytest.raises(grids.TimeUp):
            grid.work()
        assert grid.states == states
        failure = locate_failure(grid.plan(grid.tasks[0]))
        assert "stopped after 100 s, with no checkpoint to go on from" in failure.read_text()
        os.utime(failure, (0, 0))
    lab.hopeless = False
    assert lab.work(*(f"method={name}" for name in ("bet", "full"))).states == [State.DONE, State.RECORDED]


@pytest.mark.parametrize("of_full", [False, True])
def test_what_has_a_checkpoint_goes_on_first_the_next_time(lab, tmp_path, monkeypatch, of_full):
    (tmp_path / "runs").mkdir()
    clock = [100.0]

    def run(plan):
        plan.checkpoint_paths[of_full].write_bytes(b"saved")
        clock[0] = 0.0
        raise grids.TimeUp("the time is over")

    monkeypatch.setattr(grids, "run", run)
    grid = Grid([[*TINY, *lab.folders, "method=full"]], lambda: clock[0])
    with pytest.raises(grids.TimeUp):
        grid.work()
    assert not locate_failure(grid.plan(grid.tasks[0])).exists()


def test_what_needs_the_export_of_a_full_model_waits_for_it(lab, tmp_path):
    export = tmp_path / "full.npz"
    runs = (f"method=random full_export={export}", f"method=full export={export}")
    plan = lab.plan(runs[1])
    with hold_lock(plan.lock_path):
        waiting = lab.work(*runs)
    assert waiting.states == [State.WAITING, State.CLAIMED] and lab.ran == []
    assert not (tmp_path / "runs" / "failures").exists()
    assert waiting.summarize() == "2 runs: 1 waiting for the export of a full model, 1 being run by others"
    export.write_bytes(b"as the full model's run would")
    assert lab.work(*runs).states == [State.DONE, State.DONE]


def test_nothing_starts_when_time_is_over(lab):
    grid = lab.grid("method=full", seconds=0)
    with pytest.raises(grids.TimeUp):
        grid.work()
    assert grid.states == [State.PENDING] and lab.ran == []


def test_the_command_line_chooses_among_runs_where_some_have_its_choice():
    runs = (
        {"dataset": "beauty", "method": "baco", "method.num_rounds": 3},
        {"dataset": "gowalla", "method": "random"},
        {"dataset": "gowalla"},
    )
    assert apply_overrides(runs, ["method=random"]) == [["dataset=gowalla", "method=random"]], "the last has no own"
    assert apply_overrides(runs, ["dataset=beauty"]) == [["method=baco", "method.num_rounds=3", "dataset=beauty"]]
    assert apply_overrides(runs, ["dataset=beauty", "method=random"]) == [["dataset=beauty", "method=random"]]
    assert apply_overrides(runs[1:], ["dataset=yelp2018", "seed=1"]) == [
        ["method=random", "dataset=yelp2018", "seed=1"],
        ["dataset=yelp2018", "seed=1"],
    ], "none has it: it takes the place of theirs"


def test_the_command_line_replaces_the_grids_settings():
    runs = ({"method": "baco", "budget": 0.1}, {"method": "baco", "budget": 0.2}, {"method": "full", "budget": 0.1})
    assert apply_overrides(runs, []) == [
        ["method=baco", "budget=0.1"],
        ["method=baco", "budget=0.2"],
        ["method=full", "budget=0.1"],
    ]
    assert apply_overrides(runs, ["budget=0.9", "++dim=8"]) == [
        ["method=baco", "budget=0.9", "++dim=8"],
        ["method=full", "budget=0.9", "++dim=8"],
    ]


def test_assignments_can_be_computed_ahead(lab, tmp_path):
    assert lab.work("method=random assign_only=true", "method=full assign_only=true").states == [State.DONE, State.DONE]
    assert lab.ran == [] and not (tmp_path / "records").exists()
    lab.seconds = 1e6
    lab.work("method=full seed=5")
    ahead = lab.work("method=random seed=1 assign_only=true", seconds=60)
    assert ahead.states == [State.DONE], "how long trainings take does not matter"
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "runs" / "assignments").iterdir())
    assert names == ["full", "random", "random"]
    assert lab.work("method=random", "method=full").states == [State.DONE, State.DONE], "they are still to be run"
