"""Updates of exported models: what is kept, what is new, and what is refused."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch

from baco.cli.main import call
from baco.coclustering.one_sided import OneSided
from baco.compressors.budget import Budget
from baco.compressors.compressor import CodeCompressor
from baco.compressors.popularity import popularity_scale, remaining_budget, scale_items
from baco.data.logs import Log
from baco.embedding.codebook import CodebookTables
from baco.embedding.quantized import QuantizedTables
from baco.embedding.rounding import UniformQuantizer
from baco.errors import UserError
from baco.files import from_json_array, read_arrays, write_arrays
from baco.losses.bpr import BPR
from baco.registry import backbone_class, method_class
from baco.rng import stream, torch_stream
from baco.serving.export import export_model, load_data, load_tables, read_export
from baco.serving.recommender import Recommender
from baco.serving.update import update
from tests.conftest import QUICK

ROOM = 20  # parameters of the budget that are left: in so small a model new rows need more than new ids bring
NEW_PAIRS = [("ann", 7), ("ann", 10), ("bob", 7), ("bob", 99), ("u3", 99), ("u3", 29), ("eve", 100), ("eve", 100)]
MORE = pd.DataFrame(NEW_PAIRS, columns=["user", "item"])


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Log:
    """Forty users called u0, u1 ... and 30 items with numbers, in three co-clusters."""
    rng = np.random.default_rng(0)
    users, ranks = rng.integers(40, size=900), (10 * rng.random(900) ** 1.3).astype(int)
    items = 3 * ranks + np.where(rng.random(900) < 0.8, users % 3, rng.integers(3, size=900))
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    pd.DataFrame({"user": [f"u{user}" for user in users], "item": items}).to_parquet(path)
    return Log(path=str(path))


def exported(path, log, name, backbone="mf", quantizer=None, popularity=0.0, settings=None):
    """An export of random rows with the method's codes."""
    data = log.load(path)
    method, kind = method_class(name)(settings), backbone_class(backbone)
    budget = Budget.parse(0.5, "parameters", data.num_users, data.num_items, 8, quantizer)
    scale = popularity_scale(data.train.item_degrees, popularity)
    if isinstance(method, CodeCompressor):
        codes = method.assign(data.train, remaining_budget(scale, budget), stream(0, "assign"))
        tables = CodebookTables(scale_items(codes, scale), 8)
    else:
        tables = method.fit(data.train, budget, stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    tables = tables if quantizer is None else QuantizedTables(tables, quantizer, 0)
    tables.on_training_end()
    config = {
        "dataset": data.fingerprint,
        "backbone": {"name": backbone} | asdict(kind.Config()),
        "method": {"name": name} | asdict(method.config),
        "protocol": asdict(QUICK),
        "loss": {"name": "bpr"} | asdict(BPR()),
        "budget": budget.as_dict() | {"limit": budget.limit + ROOM},
        "popularity": popularity,
        "seed": 0,
    }
    export_model(path / "tables.npz", tables, config, log, data)
    return path / "tables.npz"


def codes_by_name(path, data_dir):
    """The rows, by value, that each id's embedding is made of, by the id."""
    arrays = read_export(path)
    tables, data = load_tables(arrays), load_data(arrays, path, data_dir)
    found = {}
    for side, ids in (("users", data.user_ids), ("items", data.item_ids)):
        codes = getattr(tables.assignment, side)
        rows = getattr(tables, side).rows.detach().numpy()[codes.index.ravel()]
        bounds = codes.bounds
        found |= {str(one): rows[bounds[x] : bounds[x + 1]] for x, one in enumerate(ids)}
    return found


@pytest.mark.parametrize("quantizer", [None, UniformQuantizer(8)])
@pytest.mark.parametrize("name", ["baco", "baco_plus", "full"])
def test_old_ids_keep_codes_and_rows_and_new_ones_get_some(log, tmp_path, name, quantizer):
    path = exported(tmp_path, log, name, quantizer=quantizer, popularity=0 if name == "full" else 0.25)
    done = update(path, MORE, tmp_path / "new.npz", tmp_path, epochs=0, threshold=np.inf)
    assert asdict(done.added) == {"interactions": 7, "repeated": 1, "users": 3, "items": 2}
    before, after = codes_by_name(path, tmp_path), codes_by_name(tmp_path / "new.npz", tmp_path / "none")
    linked = set(log.load(tmp_path).user_ids[log.load(tmp_path).train.user_degrees > 0])
    assert set(after) - set(before) == {"ann", "bob", "eve", "99", "100"} and len(linked) > 30
    for one in linked:
        np.testing.assert_allclose(after[one], before[one], atol=1e-6 if quantizer is None else 0.01)
    assert done.codes_changed == 0
    least = 5 if name == "full" else 2  # eve and her item know nobody else
    assert least <= done.rows_new <= least + (name == "baco")  # one user gains most by a label of items only
    served = Recommender.load(tmp_path / "new.npz", tmp_path / "none")
    assert {str(item) for item in served.recommend(["u5"], 40)["item"]} >= {"99", "100"}
    assert 7 not in served.recommend(["ann"], 40)["item"].tolist()
    kept = from_json_array(read_export(tmp_path / "new.npz")["model"])["updates"]
    assert [one["added"]["users"] for one in kept] == [3]


@pytest.mark.parametrize(("name", "backbone"), [("baco", "mf"), ("baco_plus", "lightgcn"), ("full", "mf")])
def test_an_update_trains_within_the_budget_and_can_be_updated_again(log, tmp_path, name, backbone):
    path = exported(tmp_path, log, name, backbone)
    update(path, MORE, path, tmp_path, epochs=1)
    again = update(path, pd.DataFrame({"user": ["zoe", "eve"], "item": ["8", "0"]}), path, tmp_path / "none", epochs=1)
    assert (again.added.users, again.added.items) == (1, 0)
    arrays = read_export(path)
    model, tables = from_json_array(arrays["model"]), load_tables(arrays)
    assert len(model["updates"]) == 2 and len(tables()[0]) == 44 and len(tables()[1]) == 32
    limit = model["config"]["budget"]["limit"]
    assert name == "full" or tables.ledger().parameters <= limit <= (0.5 * 8 * 70 + ROOM) * 76 / 70
    assert all(torch.isfinite(side).all() for side in tables())


@pytest.mark.parametrize(("code_share", "product_codes"), [(None, True), (0.3, False)])
def test_one_sided_tables_get_rows_on_one_side(log, tmp_path, code_share, product_codes):
    settings = OneSided.Config(code_share=code_share, product_codes=product_codes)
    path = exported(tmp_path, log, "one_sided", settings=settings)
    done = update(path, MORE, tmp_path / "new.npz", tmp_path, epochs=0, threshold=np.inf)
    assert done.codes_changed == 0 and done.rows_new == 3  # two items, and the co-cluster of eve
    before, after = codes_by_name(path, tmp_path), codes_by_name(tmp_path / "new.npz", tmp_path / "none")
    for one in before if not product_codes else ():
        np.testing.assert_array_equal(after[one], before[one])
    update(path, MORE, tmp_path / "new.npz", tmp_path, epochs=1)
    arrays = read_export(tmp_path / "new.npz")
    assert load_tables(arrays).assignment.shared
    assert from_json_array(arrays["model"])["config"]["budget"]["limit"] == (280 + ROOM) * 75 // 70
    assert len(Recommender.load(tmp_path / "new.npz", tmp_path / "none").recommend(["bob"], 9)) == 9


def test_an_id_gets_a_row_of_its_own_in_one_sided_tables_when_it_has_enough_interactions(log, tmp_path):
    path = exported(tmp_path, log, "one_sided", settings=OneSided.Config(code_share=0.2, own_from=14))
    data = log.load(tmp_path)
    few, many = (set(data.user_ids[chosen]) for chosen in (data.train.user_degrees < 14, data.train.user_degrees >= 14))
    one = min(few)
    more = pd.DataFrame({"user": one, "item": data.item_ids})
    done = update(path, more, tmp_path / "new.npz", tmp_path, epochs=0, threshold=np.inf)
    before, after = codes_by_name(path, tmp_path), codes_by_name(tmp_path / "new.npz", tmp_path / "none")
    assert len(before[one]) > 1 == len(after[one]) and done.rows_new == 1
    assert many and all(len(rows[user]) == 1 for user in many for rows in (before, after))


@pytest.mark.parametrize(
    ("interactions", "message"),
    [
        (MORE[:0], "the log has no interactions"),
        (MORE.rename(columns={"item": "items"}), "interactions: column 'item' is unknown"),
        (MORE.replace({"item": {99: None}}), "the interactions have no item in row 3"),
        (MORE.assign(item=["i1"] + ["8"] * 7), "the item id 'i1' of the log is no integer, as those of the export"),
        (MORE.assign(item=7.5), "the item id '7.5' of the log is no integer"),
        (MORE.assign(user=range(8), item=range(500, 508)), "the log has no user and no item of 'custom'"),
    ],
)
def test_a_log_that_is_not_fit_is_told_and_nothing_is_written(log, tmp_path, interactions, message):
    path = exported(tmp_path, log, "baco_plus")
    with pytest.raises(UserError, match=message):
        update(path, interactions, tmp_path / "new.npz", tmp_path)
    assert not (tmp_path / "new.npz").exists()


def test_a_log_without_anything_new_is_told(log, tmp_path):
    path, same = exported(tmp_path, log, "baco"), log.read_alike(log.path)
    with pytest.raises(UserError, match="the log has no interaction that 'custom' does not have"):
        update(path, same, tmp_path / "new.npz", tmp_path)


def test_what_cannot_be_updated_is_told(log, tmp_path):
    with pytest.raises(UserError, match="codes of method 'random' cannot be updated; train again"):
        update(exported(tmp_path, log, "random"), MORE, tmp_path / "new.npz", tmp_path)
    path = exported(tmp_path, log, "baco")
    arrays = {key: value for key, value in read_arrays(path).items() if key != "labels"}
    write_arrays(path, arrays)
    with pytest.raises(UserError, match="the export does not say which co-clusters its codes stand for"):
        update(path, MORE, tmp_path / "new.npz", tmp_path)
    with pytest.raises(UserError, match=r"there is no file .*none.npz"):
        update(tmp_path / "none.npz", MORE, tmp_path / "new.npz", tmp_path)


def test_the_command(log, tmp_path, capsys):
    path = exported(tmp_path, log, "baco_plus")
    MORE.to_parquet(tmp_path / "more.parquet")
    command = ["update", str(path), str(tmp_path / "more.parquet"), "--data", str(tmp_path), "--export"]
    assert call([*command, str(tmp_path / "new.npz"), "--epochs", "0", "--device", "cpu"]) == 0
    assert "7 new interactions (1 were there), 3 new users, 2 new items" in capsys.readouterr().out
    (tmp_path / "more.parquet").write_text("user,item\n")
    assert call([*command, str(tmp_path / "other.npz")]) == 1
    assert capsys.readouterr().err.startswith("error: ") and not (tmp_path / "other.npz").exists()
