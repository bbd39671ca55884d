"""Runs of `torchrun -m baco run`: one record, one error, whatever the number of processes."""

import pytest

from tests.cli.workplace import TINY, variables_of_processes


def test_two_processes_make_the_record_and_the_export_of_one(workplace):
    settings = [*TINY, "method=random", "export=tables.npz", "device=cpu"]
    first, second = workplace.run_together(variables_of_processes(2), *settings)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "Random" in first.stdout and "recorded in" in first.stderr
    assert second.stdout == "" and "synthetic" not in second.stderr
    (record,) = workplace.records().values()
    assert record["environment"]["processes"] == 2 and "tables.npz" in workplace.files()
    assert "already recorded" in workplace.succeeds(*settings).stderr, "it is that of one process"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("method=nothing", "nothing"),
        ("loss=directau", "loss=directau compares all pairs of a batch with one another"),
        ("seed=${oc.env:RANK}", "the processes have different data, settings or devices"),
    ],
)
def test_what_is_wrong_is_said_once_and_ends_all(workplace, choice, message):
    done = workplace.run_together(variables_of_processes(2), *TINY, "method=random", "device=cpu", choice)
    stderr = "".join(process.stderr for process in done)  # torch warns there of processes that have gone
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0] and "Traceback" not in stderr, stderr
    assert [process.returncode for process in done] == [1, 1] and not workplace.files()
