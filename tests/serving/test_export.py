"""Exports: what is written and read back, and what is refused."""

import logging

import pytest
import torch

from baco.embedding.quantized import QuantizedTables
from baco.embedding.rounding import UniformQuantizer
from baco.errors import UserError
from baco.registry import TABLES, method_class
from baco.rng import torch_stream
from baco.serving.export import check_replaceable, export_model, load_full_model, load_tables, read_export
from baselines.full import full_tables
from tests.conftest import PLANTED

CONFIG = {
    "method": {"name": "full"},
    "dataset": "f" * 64,
    "backbone": {"name": "mf"},
    "protocol": {"name": "quick"},
    "loss": {"name": "bpr", "score": "dot"},
    "dim": 8,
    "seed": 0,
}


def exported(path, planted, config):
    tables = full_tables(planted.train, 8)
    tables.users.rows.data.fill_(2.0)
    export_model(path, tables, config, PLANTED, planted)
    return path


def test_the_full_models_export_is_read_back(planted, tmp_path):
    path = exported(tmp_path / "full.npz", planted, CONFIG)
    users, items = load_full_model(path, CONFIG | {"method": {"name": "baco"}, "budget": 3})()
    assert users.shape == (planted.num_users, 8) and (users == 2).all()
    assert items.shape == (planted.num_items, 8) and (items == 0).all()


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "0" * 64},
        {"backbone": {"name": "lightgcn"}},
        {"protocol": {}},
        {"loss": {}},
        {"dim": 4},
        {"seed": 1},
    ],
)
def test_the_full_model_of_another_run_is_refused(planted, tmp_path, change):
    path = exported(tmp_path / "full.npz", planted, CONFIG | change)
    with pytest.raises(
        UserError, match=rf"full.npz is of a full model with another {next(iter(change))}; export a run"
    ):
        load_full_model(path, CONFIG)


def test_another_method_is_no_full_model(planted, tmp_path):
    path = exported(tmp_path / "full.npz", planted, CONFIG | {"method": {"name": "random"}})
    with pytest.raises(UserError, match=r"full.npz is no export of a full model; export a run of the method 'full'"):
        load_full_model(path, CONFIG)


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_what_is_no_export_is_refused(tmp_path, content):
    (tmp_path / "full.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"full.npz is no export of a full model; export a run of the method 'full'"):
        load_full_model(tmp_path / "full.npz", CONFIG)


def test_an_export_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"full_export=.*full.npz is not there; export a run of the method 'full'"):
        load_full_model(tmp_path / "full.npz", CONFIG)


def test_the_names_of_tables_in_files_do_not_change():
    method_class("full")  # imports them all
    assert set(TABLES) == {
        "CceTables",
        "CodebookTables",
        "DeepHashTables",
        "GranularTables",
        "ImportanceTables",
        "LegcfTables",
        "ProductTables",
        "ProjectedTables",
        "PrunedTables",
        "QuotientRemainderTables",
        "ResidualTables",
        "RobeTables",
        "RotatedTables",
        "ScalarTables",
        "ScaledTables",
        "SizedTables",
        "TensorTrainTables",
    }


@pytest.mark.parametrize("bits", [None, 8])
def test_tables_are_read_back_without_naming_their_class(planted, tmp_path, bits):
    tables = full_tables(planted.train, 8)
    if bits is not None:
        tables = QuantizedTables(tables, UniformQuantizer(bits), seed=0)
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    tables.on_training_end()
    export_model(tmp_path / "tables.npz", tables, CONFIG, PLANTED, planted)
    for output, restored in zip(tables(), load_tables(read_export(tmp_path / "tables.npz"))(), strict=True):
        torch.testing.assert_close(output, restored, rtol=0, atol=0)


@pytest.mark.parametrize("plain", [{}, {"quantize": None, "popularity": 0.0, "start": "normal"}])
def test_settings_of_the_full_model_as_it_is_may_be_written_down(planted, tmp_path, plain):
    load_full_model(exported(tmp_path / "full.npz", planted, CONFIG | plain), CONFIG)


@pytest.mark.parametrize("altered", [{"quantize": {"name": "uniform"}}, {"popularity": 0.25}, {"start": "spectral"}])
def test_an_altered_full_model_is_refused(planted, tmp_path, altered):
    path = exported(tmp_path / "full.npz", planted, CONFIG | altered)
    with pytest.raises(UserError, match=r"full.npz is no export of a full model"):
        load_full_model(path, CONFIG)


def test_the_export_of_another_run_is_replaced_with_a_warning(planted, tmp_path, caplog):
    path = exported(tmp_path / "full.npz", planted, CONFIG | {"betas": [1, 2]})
    with caplog.at_level(logging.WARNING, logger="baco"):
        check_replaceable(path, CONFIG | {"betas": (1, 2)})
        check_replaceable(tmp_path / "none.npz", CONFIG)
        assert not caplog.records
        check_replaceable(path, CONFIG | {"betas": [1, 3]})
    assert "full.npz holds the tables of another run" in caplog.text
    (tmp_path / "other.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"export=.*other.npz is there and no export of a run"):
        check_replaceable(tmp_path / "other.npz", CONFIG)
