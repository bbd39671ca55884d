"""Grids as a user meets them: `run.py +grid=...` in processes of their own."""

import json
import signal

import pytest

from tests.cli.workplace import TINY, Running

SMOKE = ["+grid=smoke", *TINY[:-1]]  # without the budget
ENDLESS = [*SMOKE, "protocol.max_epochs=1000000", "protocol.eval_every=1000000"]


def wait_for(process: Running, words: str) -> None:
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"the process ended before it said '{words}'")


def test_a_grid_stops_at_its_limit_goes_on_later_and_ends_in_a_table(workplace):
    stopped = workplace.succeeds(*ENDLESS, "minutes=0.08")
    assert "stopped: the time is over" in stopped.stderr and "3 runs: 3 still to do" in stopped.stderr
    assert workplace.records() == {}
    assert not list(workplace.path.rglob("*.tmp"))
    (failure,) = (workplace.path / "runs" / "failures").glob("*.json")
    assert "with no checkpoint to go on from" in json.loads(failure.read_text())["reason"]
    first = workplace.succeeds(*SMOKE)
    assert [line.split()[0] for line in first.stdout.splitlines()] == ["method", "Full", "Random", "BACO"]
    assert "3 runs: 3 done now" in first.stderr and len(workplace.records()) == 3
    again = workplace.succeeds(*SMOKE)
    assert "3 runs: 3 recorded before" in again.stderr and again.stdout == ""


def test_two_workers_share_a_grid_and_a_killed_one_is_a_failure(workplace):
    with workplace.running(*ENDLESS) as first:
        wait_for(first, "interactions")  # its run has begun
        with workplace.running(*ENDLESS) as second:
            wait_for(second, "it is being run by process")
            wait_for(second, "[2/3]")
            second.send_signal(signal.SIGTERM)
            assert "asked to end" in second.stderr.read() and second.wait() == 0
    with workplace.running(*ENDLESS) as third:
        assert next(third.stderr).startswith("[1/3]") and f"process {first.pid} on" in next(third.stderr)
        assert next(third.stderr).startswith("[2/3]"), "what killed its worker comes last"
    (failure,) = (workplace.path / "runs" / "failures").glob("*.json")
    assert f"process {first.pid} on" in json.loads(failure.read_text())["reason"]


@pytest.mark.parametrize("over", [["method=random", "seed=0,1,2"], ["+grid=smoke", "seed=0,1"]])
def test_a_sweep_that_is_asked_to_end_starts_nothing_more(workplace, over):
    endless = [*TINY, "protocol.max_epochs=1000000", "protocol.eval_every=1000000"]
    with workplace.running("-m", *endless, *over) as sweep:
        wait_for(sweep, "interactions (train")
        sweep.send_signal(signal.SIGTERM)
        rest = sweep.stderr.read()
        assert "error: the process was asked to end" in rest and "Traceback" not in rest
        assert "interactions (train" not in rest and sweep.wait() == 1
    assert workplace.records() == {}


def test_failures_do_not_stop_a_grid_and_are_told_in_the_end(workplace):
    done = workplace.run(*SMOKE, "budget=0.001")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "3 runs: 1 done now, 2 failed" in done.stderr
    reasons = [json.loads(path.read_text())["reason"] for path in (workplace.path / "runs" / "failures").iterdir()]
    assert len(reasons) == 2 and all("raise the budget" in reason for reason in reasons)
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+grid=smok"], "grid 'smok' is unknown; did you mean 'smoke'"),
        (["minutes=soon"], "minutes=soon must be"),
    ],
)
def test_bad_input_gets_one_clear_line(workplace, overrides, message):
    assert message in workplace.fails(*TINY, *overrides)
