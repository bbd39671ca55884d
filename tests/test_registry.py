"""The registry and the configuration files say the same."""

from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from baco.compressors.compressor import Compressor
from baco.data.sources import SOURCES
from baco.embedding.quantizers import QUANTIZERS
from baco.errors import UserError
from baco.registry import BACKBONES, LOSSES, METHODS, backbone_class, loss_class, method_class, register_method
from baco.runs.description import OF_RUN, OWN_LOSS
from baco.runs.experiments import GROUPS
from baco.training.protocol import Protocol
from baco.validation import build_settings

CONF = Path(__file__).parent.parent / "conf"
CLASS_OF = {"method": method_class, "backbone": backbone_class}


def files(group: str) -> dict[str, Path]:
    return {path.stem: path for path in (CONF / group).glob("*.yaml")}


def settings_of(path: Path) -> dict:
    return OmegaConf.to_container(OmegaConf.load(path))


def test_every_method_backbone_and_loss_has_its_file_and_the_reverse():
    method_class("full")  # imports them all
    assert set(files("method")) == set(METHODS)
    assert set(files("backbone")) == set(BACKBONES)
    assert set(files("loss")) == {*LOSSES, "bpr_authors"}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CLASS_OF for name in files(group)])
def test_the_file_of_a_class_names_each_setting_with_its_default(group, name):
    section = settings_of(files(group)[name])
    assert section.pop("name") == name
    for key in OF_RUN:
        section.pop(key, None)
    config = CLASS_OF[group](name).Config
    assert build_settings(config, section) == config()
    assert set(section) == set(asdict(config()))


@pytest.mark.parametrize("name", files("method"))
def test_the_file_of_a_method_says_whether_it_trains(name):
    assert settings_of(files("method")[name]).get("trained", True) == issubclass(method_class(name), Compressor)


@pytest.mark.parametrize("name", files("dataset"))
def test_the_file_of_a_dataset_fits_its_source(name):
    section = settings_of(files("dataset")[name])
    source = SOURCES[section.pop("source")]
    if section.get("path") == "???":
        section["path"] = "log.csv"
    assert build_settings(source, section).name == name


@pytest.mark.parametrize("name", files("protocol"))
def test_the_file_of_a_protocol_is_complete(name):
    section = settings_of(files("protocol")[name])
    assert section.pop("defaults")[0][OWN_LOSS] in files("loss")
    assert build_settings(Protocol, section).name == name


@pytest.mark.parametrize("name", files("loss"))
def test_the_file_of_a_loss_names_each_setting(name):
    section = settings_of(files("loss")[name])
    loss = loss_class(section.pop("name"))
    built = build_settings(loss, section)
    assert set(section) == set(asdict(built))
    assert built == loss() or name == "bpr_authors"


@pytest.mark.parametrize("name", ["bf16", "int8", "int4", "int2"])
def test_the_methods_in_few_bits_are_the_full_model_under_the_quantization_of_that_name(name):
    section = settings_of(files("quantize")[name])
    assert method_class(name).quantizer == build_settings(QUANTIZERS[section.pop("name")], section)


@pytest.mark.parametrize("path", [path for group in GROUPS for path in files(group).values()], ids=lambda p: p.stem)
def test_every_choice_has_a_line_for_the_help(path):
    line = path.read_text().splitlines()[0]
    assert line.startswith("# ") and 10 < len(line) < 105


def test_every_method_has_a_label_and_a_docstring():
    method_class("full")
    labels = [cls.label for cls in METHODS.values()]
    assert len(set(labels)) == len(labels)
    for cls in METHODS.values():
        assert "arameters:" in cls.__doc__, f"{cls.__name__} does not tell its parameter formula"


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UserError, match=r"method 'bacco' is unknown; did you mean 'baco'\?"):
        method_class("bacco")
    with pytest.raises(UserError, match=r"backbone 'gcn' is unknown.*lightgcn"):
        backbone_class("gcn")


def test_a_name_is_taken_once():
    method_class("full")
    with pytest.raises(ValueError, match=r"'full' is registered twice: baselines\.full"):
        register_method("full")(type("Another", (), {}))
