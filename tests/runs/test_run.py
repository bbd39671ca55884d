"""What becomes of a run whose record cannot be written; `tests/cli` has whole runs."""

import pytest
from hydra import compose, initialize_config_dir

from baco.errors import UnrecordedError
from baco.runs import run as runs
from baco.runs.experiments import CONF
from baco.runs.run import Plan, run
from baco.runs.settings import parse
from tests.cli.workplace import TINY


def test_a_record_that_cannot_be_written_leaves_its_result_and_nothing_half_written(tmp_path, monkeypatch):
    def full(folder, name, record, arrays):
        raise OSError(28, "No space left on device")

    folders = [f"{key}={tmp_path / key}" for key in ("results_dir", "runs_dir")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plan = Plan.of(parse(compose("config", [*TINY, *folders, "method=random", "device=cpu", "threads=1"])))
    monkeypatch.setattr(runs, "save_record", full)
    with pytest.raises(UnrecordedError, match=r"cannot be written \(No space left on device\); make room") as caught:
        run(plan)
    assert 0 < caught.value.record["metrics"]["test"]["recall@20"] <= 1
    assert list((tmp_path / "results_dir").iterdir()) == []
    monkeypatch.undo()
    assert run(plan)["metrics"]["test"] == caught.value.record["metrics"]["test"]
