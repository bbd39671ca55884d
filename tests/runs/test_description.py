"""The one description of a run that the runner, records and tables share."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from baco.results.wanted import Wanted
from baco.runs import description
from baco.runs.description import ADDED_LATER, METHOD_ADDED_LATER, Description, complete, with_defaults
from baco.runs.experiments import CONF, overrides
from baco.runs.record import load_record, record_id, record_name
from baco.runs.settings import parse
from baco.runs.tuned import FOLDER, TUNED_FOR, tuned_file

NULLS = {"budget": None, "popularity": None, "start": None}
RECORDS = Path(__file__).parents[2] / "results" / "records"


@pytest.mark.parametrize(
    ("backbone", "score", "popularity"),
    [
        ({}, "dot", 0.25),
        ({"num_layers": 0}, "dot", 0.25),
        ({"num_layers": 2}, "dot", 0.0),
        ({}, "cosine", 0.0),
        ({"num_layers": 2}, "cosine", 0.0),
    ],
    ids=str,
)
def test_datasets_and_methods_say_what_counts_where_nothing_is_given(backbone, score, popularity):
    method = {"name": "any", "mf_popularity": 0.25, "start": "spectral"}
    run, proper = with_defaults(NULLS | {"dim": 64}, {"budget": 0.3}, backbone, {"score": score}, method)
    assert run == {"budget": 0.3, "popularity": popularity, "start": "spectral", "dim": 64}
    assert proper == {"name": "any"}, "what describes the run is no setting of the method"


@pytest.mark.parametrize(
    ("backbone", "given", "share"), [({}, None, 0.3), ({"num_layers": 2}, None, 0.0), ({}, 0.1, 0.1)]
)
def test_codes_into_rows_are_for_backbones_that_do_not_propagate(backbone, given, share):
    method = {"code_share": given, "mf_code_share": 0.3}
    _, proper = with_defaults(NULLS, {"budget": 0.3}, backbone, {"score": "cosine"}, method)
    assert proper == {"code_share": share}


def test_what_is_given_counts():
    given = {"budget": 10, "popularity": 0.0, "start": "normal"}
    assert with_defaults(given, {"budget": 0.3}, {}, {}, {"mf_popularity": 0.25, "start": "spectral"}) == (given, {})


def test_a_method_that_says_nothing_has_no_scale_and_a_random_start():
    run, _ = with_defaults(NULLS, {"budget": 0.3}, {}, {}, {})
    assert run == {"budget": 0.3, "popularity": 0.0, "start": "normal"}


def test_every_committed_record_is_named_by_its_completed_configuration():
    paths = sorted(RECORDS.glob("*.json"))
    assert len(paths) > 100
    for path in paths:
        record = load_record(path)
        names = record["names"]
        assert record["config"].keys() >= ADDED_LATER.keys()
        assert record_id(record["config"]) == record["id"], path.name
        assert record_name(names["dataset"], names["backbone"], names["method"], record["id"]) == path.stem


@pytest.mark.parametrize("method", sorted(METHOD_ADDED_LATER))
def test_what_a_method_did_before_it_had_a_setting_keeps_its_id(method):
    config = json.loads(sorted(RECORDS.glob(f"beauty-lightgcn-{method}-*.json"))[0].read_text())["config"]
    before, now = METHOD_ADDED_LATER[method], Description.of({"dataset": "beauty", "method": method}).config["method"]
    assert before.keys() <= now.keys()
    assert complete(config)["method"].items() >= before.items()
    assert record_id(config | {"method": config["method"] | before}) == record_id(config)
    for key in before:
        assert record_id(config | {"method": config["method"] | before | {key: "other"}}) != record_id(config)


def test_a_new_run_level_key_is_known_everywhere_by_its_declaration(tmp_path, monkeypatch):
    """`echo` stands for a key that is added today: all that is declared here is its value in the runs before."""
    monkeypatch.setitem(description.DECIDING, "echo", 0)
    monkeypatch.setitem(description.ADDED_LATER, "echo", 0)
    conf = tmp_path / "conf"
    for path in description.CONF.rglob("*.yaml"):
        (conf / path.relative_to(description.CONF)).parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() + ("echo: 0\n" if path.name == "config.yaml" else "")
        (conf / path.relative_to(description.CONF)).write_text(text)
    old = json.loads(
        (RECORDS / sorted(path.name for path in RECORDS.glob("beauty-lightgcn-baco-*.json"))[0]).read_text()
    )
    assert record_id(complete(old["config"])) == old["id"], "old ids stay"
    assert record_id(complete(old["config"]) | {"echo": 1}) != old["id"]
    settings = {"dataset": "beauty", "method": "baco"}
    plain, loud = (Description.of(settings | own, conf).config for own in ({}, {"echo": 1}))
    assert plain["echo"] == 0 and loud == plain | {"echo": 1}
    wanted = Wanted.of(settings | {"echo": 1}, conf)
    assert wanted.row == {"method": "baco", "echo": 1}


TUNED = "protocol: {learning_rate: 0.0123}\nloss: {temperature: 0.111}\n"
FULL = {"dataset": "beauty", "method": "full", "protocol": "best"}


@pytest.fixture
def conf(tmp_path) -> Path:
    """The configuration with settings that were tuned for `FULL` and no other run."""
    shutil.copytree(CONF, tmp_path / "conf", ignore=shutil.ignore_patterns("tuned"))
    path = tuned_file(("beauty", "lightgcn", "ssm", "full"), tmp_path / "conf/tuned")
    path.parent.mkdir(parents=True)
    path.write_text(TUNED)
    return tmp_path / "conf"


@pytest.mark.parametrize(
    ("settings", "tuned"),
    [
        ({}, ["learning_rate", "temperature"]),
        ({"loss": "ssm", "backbone": "lightgcn"}, ["learning_rate", "temperature"]),
        ({"loss.temperature": 0.3, "dim": 32}, ["learning_rate"]),
        ({"protocol.learning_rate": 0.5}, ["temperature"]),
        ({"loss": "bpr"}, []),
        ({"method": "baco"}, []),
        ({"backbone": "mf"}, []),
        ({"dataset": "gowalla"}, []),
        ({"protocol": "quick", "loss": "ssm"}, []),
    ],
    ids=str,
)
def test_tuned_settings_count_more_than_files_and_less_than_what_is_given(conf, settings, tuned):
    settings = FULL | settings
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = parse(compose("config", overrides(settings))).describe()
    assert Description.of(settings, conf).config == config
    found = {"learning_rate": config["protocol"]["learning_rate"], "temperature": config["loss"].get("temperature")}
    assert [key for key, value in found.items() if value in (0.0123, 0.111)] == tuned
    assert config["protocol"]["name"] == settings["protocol"]


def test_methods_with_settings_of_their_own_share_a_table(conf):
    full, baco, longer = (Wanted.of(FULL | own, conf) for own in ({}, {"method": "baco"}, {"protocol.max_epochs": 64}))
    assert full.config["protocol"] != baco.config["protocol"] and full.config["loss"] != baco.config["loss"]
    assert full.shared == baco.shared != longer.shared


def test_what_was_tuned_is_for_choices_that_exist_and_its_trials_lie_beside():
    for path in FOLDER.rglob("*.yaml"):
        *groups, method = path.relative_to(FOLDER).with_suffix("").parts
        choices = dict(zip(TUNED_FOR, (*groups, method), strict=True))
        assert all((CONF / group / f"{name}.yaml").exists() for group, name in choices.items())
        trials = pd.read_csv(path.with_suffix(".csv"))
        last = trials[trials["max_epochs"] == trials["max_epochs"].max()]
        best, chosen = last.loc[last["validation recall@20"].idxmax()], OmegaConf.load(path)
        keys = [key for key in trials if key.startswith(("protocol.", "loss."))]
        assert {key: OmegaConf.select(chosen, key) for key in keys} == best[keys].to_dict()
        assert (trials[list(choices)] == list(choices.values())).all(axis=None) and set(trials["seed"]) == {100}
