"""The search of settings, and the launchers: what needs more than the core."""

import importlib
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from baco.registry import LOSSES, loss_class
from baco.runs.experiments import CONF
from tests.cli.workplace import ROOT, TINY

TUNE = "scripts/tune.py"
BEST = [*TINY, "backbone=mf", "method=random,full", "protocol.max_epochs=8", "--best", "--trials=5", "--into=tuned"]


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


@pytest.fixture
def halving(monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("_halving")


def test_each_method_is_tuned_by_the_same_budget(workplace):
    pytest.importorskip("optuna")
    first = workplace.succeeds(*BEST, script=TUNE)
    assert "minutes are left of all" in first.stderr
    folder = workplace.path / "tuned/synthetic/mf/ssm"
    tables = {method: pd.read_csv(folder / f"{method}.csv") for method in ("full", "random")}
    for method, table in tables.items():
        assert table["max_epochs"].tolist() == [2] * 5 + [8] * 2
        assert table["trial"].tolist()[:5] == [1, 2, 3, 4, 5] and set(table["seed"]) == {100}
        recall = table["validation recall@20"]
        promoted = table["trial"][:5][recall[:5].rank(ascending=False, method="first") <= 2]
        assert set(table["trial"][5:]) == set(promoted)
        assert chosen(folder / f"{method}.yaml") == settings_of(table.loc[[recall[5:].idxmax()]])[0]
        assert [name for name in table if "recall" in name or "test" in name] == ["validation recall@20"]
        line = f"synthetic mf ssm {method}: best of 5: validation recall@20 {recall[5:].max():.2f} with "
        assert line in first.stdout
    assert chosen(folder / "full.yaml") in settings_of(tables["random"][:2]), "others start from the full model's"
    assert workplace.records() == {}, "trials have a folder of their own"

    before = workplace.files()
    again = workplace.succeeds(*BEST, script=TUNE)
    assert again.stdout == first.stdout and workplace.files() == before
    assert again.stderr.count("already recorded in") == again.stderr.count("recorded in") == 14


def settings_of(trials: pd.DataFrame) -> list[dict[str, float]]:
    keys = ["protocol.learning_rate", "protocol.decay_per_epoch", "loss.temperature"]
    return trials[keys].to_dict("records")


def chosen(path: Path) -> dict[str, float]:
    """The same from a file of conf/tuned."""
    content = OmegaConf.to_container(OmegaConf.load(path))
    return {f"{group}.{key}": value for group, section in content.items() for key, value in section.items()}


def test_a_best_run_records_the_values_that_were_tuned(workplace):
    path = workplace.path / "conf/tuned/synthetic/mf/ssm/random.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("protocol: {learning_rate: 0.0123}\nloss: {temperature: 0.111}\n")
    search = f"hydra.searchpath=[file://{workplace.path}/conf]"
    workplace.succeeds(*TINY, "backbone=mf", "method=random", "protocol=best", search)
    (record,) = workplace.records().values()
    assert record["names"]["protocol"] == "best"
    config = record["config"]
    assert (config["protocol"]["learning_rate"], config["loss"]["temperature"]) == (0.0123, 0.111)


def test_a_best_run_that_nothing_was_tuned_for_says_how_to(workplace):
    done = workplace.succeeds(*TINY, "backbone=mf", "method=random", "protocol=best")
    command = "python scripts/tune.py --best dataset=synthetic backbone=mf loss=ssm method=random"
    assert f"`{command}` tunes it" in done.stderr


def test_a_study_starts_from_the_full_model_and_the_dataset_before(halving, tmp_path):
    files = {("beauty", "baco"): 0.05, ("gowalla", "full"): 0.06, ("yelp2018", "baco"): 0.07}
    for (dataset, method), rate in files.items():
        path = halving.tuned_file((dataset, "mf", "bpr", method), tmp_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"protocol: {{learning_rate: {rate}, decay_per_epoch: 0.1}}\n")
    usual = OmegaConf.load(CONF / "protocol/best.yaml").learning_rate

    def rates(dataset: str, method: str) -> list[float]:
        study = halving.Study((dataset, "mf", "bpr", method), [], 3, tmp_path)
        return [start["protocol.learning_rate"] for start in study.starts()]

    assert rates("gowalla", "baco") == [usual, 0.06, 0.05]
    assert rates("gowalla", "full") == [usual]
    assert rates("yelp2018", "full") == [usual, 0.06]
    assert rates("amazonbook", "baco") == [usual, 0.07]
    assert rates("synthetic", "baco") == [usual]


def test_every_loss_has_a_space_which_holds_its_usual_settings(halving, tmp_path):
    loss_class("bpr")  # imports them all
    assert set(halving.OF_LOSS) == set(LOSSES)
    for loss in LOSSES:
        study = halving.Study(("beauty", "mf", loss, "full"), [], 1, tmp_path)
        (usual,) = study.starts()
        for key, values in study.space.items():
            assert values.low <= usual[key] <= values.high, (loss, key)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=mf"], "--best needs method=NAME"),
        (["backbone=mf", "method=full", "budget=0.1,0.2"], "budget=0.1,0.2 cannot be given: --best itself decides"),
        (["backbone=mf", "method=full", "protocol.learning_rate=0.1"], "protocol.learning_rate=0.1 cannot be given"),
        (["backbone=mf", "method=full", "seed=1"], "seed=1 cannot be given"),
        (["backbone=mf", "method=full", "loss=bpr_authors"], "--best has no space of settings for loss=bpr_authors"),
        (["backbone=mf", "method=full", "dataset.name=shop"], "write conf/dataset/shop.yaml with its settings"),
        (["backbone=mf", "method=full", "minutes=0"], "stopped: the time is over; the same command goes on"),
        (["backbone=mf", "method=mostpop"], "method=mostpop trains nothing, so there is nothing to tune"),
        (["backbone=mf", "method=fulll"], "method 'fulll' is unknown; did you mean 'full'"),
        (
            ["backbone=mf", "method=random", "budget=0.001", "--trials=1"],
            "no trial of synthetic mf ssm random could be",
        ),
    ],
)
def test_a_study_that_cannot_be_says_why_and_chooses_nothing(workplace, overrides, message):
    pytest.importorskip("optuna")
    done = workplace.run(*TINY[:-1], "--best", "--into=tuned", *overrides, script=TUNE)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list(workplace.path.glob("tuned/*"))


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
