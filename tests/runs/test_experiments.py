"""Experiments: files of sweeps, expanded to runs."""

from copy import deepcopy
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from baco.errors import UserError
from baco.runs.experiments import CONF, command, experiment_names, load_experiment, overrides
from baco.runs.settings import parse


@pytest.fixture
def conf(tmp_path) -> Path:
    (tmp_path / "grid").mkdir()
    return tmp_path


def write(conf: Path, name: str, runs: str) -> None:
    (conf / "grid" / f"{name}.yaml").write_text(f"title: T\nabout: A\nruns:\n{runs}\n")


def test_a_sweep_is_all_combinations_the_last_varying_fastest(conf):
    write(conf, "a", "  - {seed: [0, 1], method: [full, random]}\n  - {method: baco, method.secondary: false}")
    experiment = load_experiment("a", conf)
    assert (experiment.name, experiment.title, experiment.about) == ("a", "T", "A")
    assert list(experiment.runs) == [
        {"seed": 0, "method": "full"},
        {"seed": 0, "method": "random"},
        {"seed": 1, "method": "full"},
        {"seed": 1, "method": "random"},
        {"method": "baco", "method.secondary": False},
    ]


def test_a_run_counts_where_it_comes_up_first(conf):
    write(conf, "a", "  - {seed: 1, method: full}\n  - {method: [random, full], seed: [0, 1]}")
    assert [tuple(run.values()) for run in load_experiment("a", conf).runs] == [
        (1, "full"),
        ("random", 0),
        ("random", 1),
        ("full", 0),
    ]


def test_experiments_are_included_with_settings_replaced(conf):
    write(conf, "a", "  - {seed: [0, 1], method: [full, random]}")
    write(conf, "b", "  - {grid: a, seed: 0}\n  - {grid: [a], protocol: paper, method: full}")
    assert list(load_experiment("b", conf).runs) == [
        {"seed": 0, "method": "full"},
        {"seed": 0, "method": "random"},
        {"seed": 0, "method": "full", "protocol": "paper"},
        {"seed": 1, "method": "full", "protocol": "paper"},
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b", "runs: [{grid: b}]", "contains itself"),
        ("b", "runs: [{grid: c}]", "grid 'c' is unknown"),
        ("b", "run: []", "must hold the keys"),
        ("b", "title: T", "must hold the keys"),
        ("b", "runs: [method=full]", "sweep 1 must be a mapping"),
    ],
)
def test_a_wrong_file_is_named(conf, name, content, message):
    (conf / "grid" / f"{name}.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        load_experiment(name, conf)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="did you mean 'main_table'"):
        load_experiment("main_tabel")


def test_runs_are_spelled_as_on_the_command_line():
    run = {"method": "baco", "method.resolution": None, "method.secondary": False, "budget": 0.25, "seed": 0}
    assert overrides(run) == [
        "method=baco",
        "method.resolution=null",
        "method.secondary=false",
        "budget=0.25",
        "seed=0",
    ]
    assert command({"seed": 1}) == "python run.py seed=1"


def test_everything_the_experiments_choose_is_understood():
    """Every method with its settings, dataset, backbone and protocol; methods that do not exist yet are left out."""
    assert {"main_table", "budgets", "rounds", "all", "smoke"} <= set(experiment_names())
    known = {path.stem for path in (CONF / "method").glob("*.yaml")}
    choices, changed = set(), set()
    for run in load_experiment("all").runs:
        if run["method"] in known:
            groups = ("dataset", "backbone", "protocol", "method")
            choices |= {(key, value) for key, value in run.items() if key in groups}
            own = tuple((key, value) for key, value in run.items() if key.startswith("method."))
            changed |= {(run["method"], own), ("baco", (("budget", run.get("budget")),))}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = {choice: compose("config", overrides(dict([choice]))) for choice in choices}
    for config in chosen.values():
        parse(config)
    for method, settings in changed:
        config = deepcopy(chosen["method", method])
        for key, value in settings:
            OmegaConf.update(config, key, value)  # an unknown key is an error
        parse(config)
    assert len(choices) > 25 and len(changed) > len(known)


def test_the_first_runs_are_those_of_the_main_table_with_one_seed():
    everything, main = load_experiment("all").runs, load_experiment("main_table").runs
    first = [run for run in main if run["seed"] == 0]
    assert list(everything[: len(first)]) == first
    assert {run["seed"] for run in main} == {0, 1, 2} and all(run in everything for run in main)
