"""The search of settings, and the launchers: what needs more than the core."""

import shutil
import subprocess

import pytest
from hydra import compose, initialize_config_dir

from baco.runs.experiments import CONF
from tests.cli.workplace import TINY

TUNE = "scripts/tune.py"


def test_a_study_goes_on_where_it_was(workplace):
    pytest.importorskip("optuna")
    space = [*TINY, "method=random", "protocol.learning_rate=tag(log,interval(0.001,0.5))", "budget=0.3,0.5"]
    workplace.succeeds(*space, "--trials=2", script=TUNE)
    assert len(workplace.records()) == 2
    second = workplace.succeeds(*space, "--trials=3", script=TUNE)
    found = workplace.records().values()
    assert len(found) == 3
    best = max(found, key=lambda record: record["metrics"]["val"]["recall@20"])
    assert f"{100 * best['metrics']['val']['recall@20']:.2f} with " in second.stdout
    assert f"protocol.learning_rate={best['config']['protocol']['learning_rate']}" in second.stdout


def test_another_search_is_another_study(workplace):
    pytest.importorskip("optuna")
    for method in ("random", "full"):
        space = [*TINY, f"method={method}", "protocol.learning_rate=0.01,0.1"]
        workplace.succeeds(*space, "--trials=1", script=TUNE)
    assert sorted(record["names"]["method"] for record in workplace.records().values()) == ["full", "random"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=random,full", "--trials=0"], "--trials=0 must be 1 or more"),
        (
            ["protocol.learning_rates=0.1,0.2"],
            "'protocol.learning_rates' is unknown; did you mean",
        ),
        (["method=randon", "seed=0,1"], "method 'randon' is unknown; did you mean 'random'"),
        (["method=random", "budget=0.001,0.002", "--trials=2"], "raise the budget"),
        (["method=random"], "no setting has several values"),
        (["method=random", "seed=range(5,5)"], "seed=range(5,5) has no values"),
        (["method=random", "budget=interval(0.5,0.1)"], "budget=interval(0.5,0.1) must go from the lower end"),
    ],
)
def test_a_search_that_cannot_be_says_why(workplace, overrides, message):
    pytest.importorskip("optuna")
    done = workplace.run(*TINY[:-1], *overrides, script=TUNE)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_trial_that_cannot_be_is_passed_over(workplace):
    pytest.importorskip("optuna")
    done = workplace.succeeds(*TINY[:-1], "method=random", "budget=range(0.001,0.9,0.6)", "--trials=4", script=TUNE)
    assert "a trial failed: " in done.stderr and "with budget=" in done.stdout
    assert all(record["size"]["parameters"] > 100 for record in workplace.records().values())


def test_processes_share_a_grid(workplace):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    grid = ["+grid=smoke", *TINY[:-1], "threads=1"]
    grid += ["hydra/launcher=processes"]
    command = workplace.command("-m", *grid, "worker=0,1")
    done = subprocess.run(**command, capture_output=True, text=True, check=True)
    assert len(workplace.records()) == 3
    assert done.stderr.count("recorded in") == 3, "each run by one worker"
    command = workplace.command("-m", *grid, "worker=0", "budget=2")
    failed = subprocess.run(**command, capture_output=True, text=True)
    assert failed.returncode == 1 and "error: runs of the grid failed" in failed.stderr, "the parent hears of it"
    assert "Traceback" not in failed.stderr


def test_the_preset_for_slurm_composes():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        launcher = compose("config", ["hydra/launcher=slurm"], return_hydra_config=True).hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher") and launcher.timeout_min == 240


@pytest.mark.skipif(shutil.which("srun") is not None, reason="this machine has SLURM")
def test_slurm_where_there_is_none_is_told(workplace):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    done = workplace.run("-m", *TINY, "seed=0,1", "hydra/launcher=slurm")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: hydra/launcher=slurm is for the machines of a SLURM cluster" in done.stderr
