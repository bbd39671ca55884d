import numpy as np
import pytest
from scipy.stats import ortho_group

from baco.errors import UserError
from baco.evaluation.distance import distances, load_full
from baco.serving.recommender import export_model
from baselines.full import full_tables
from tests.conftest import PLANTED


def pair(rng, num_users=7, num_items=5, dim=4):
    return rng.normal(size=(num_users, dim)), rng.normal(size=(num_items, dim))


def test_distances_are_means_over_ids():
    users, items = np.zeros((3, 2)), np.zeros((1, 2))
    found = distances((users + np.array([3, 4]), items + np.array([0, 1])), (users, items))
    assert {name: found[name] for name in ("users", "items", "all")} == {"users": 5.0, "items": 1.0, "all": 4.0}


def test_a_rotation_of_everything_is_seen_only_where_nothing_is_rotated_back():
    rng = np.random.default_rng(0)
    users, items = pair(rng)
    rotation = ortho_group.rvs(4, random_state=1)
    found = distances((users @ rotation, items @ rotation), (users, items))
    assert found["rotated_users"] < 1e-12 and found["rotated_items"] < 1e-12
    assert found["users"] == pytest.approx(np.linalg.norm(users @ rotation - users, axis=1).mean())
    assert found["users"] > 0.1


def test_users_and_items_rotate_together():
    users, items = pair(np.random.default_rng(0))
    found = distances((users, -items), (users, items))
    assert found["users"] == 0 and found["rotated_all"] > 0.1, "scores have changed their signs"


CONFIG = {
    "method": {"name": "full"},
    "dataset": "f" * 64,
    "backbone": {"name": "mf"},
    "protocol": {"name": "fast"},
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
    users, items = load_full(path, CONFIG | {"method": {"name": "baco"}, "budget": 3})
    assert users.shape == (planted.num_users, 8) and (users == 2).all()
    assert items.shape == (planted.num_items, 8) and (items == 0).all()


@pytest.mark.parametrize(
    "change", [{"dataset": "0" * 64}, {"backbone": {"name": "lightgcn"}}, {"protocol": {}}, {"dim": 4}, {"seed": 1}]
)
def test_the_full_model_of_another_run_is_refused(planted, tmp_path, change):
    path = exported(tmp_path / "full.npz", planted, CONFIG | change)
    with pytest.raises(
        UserError, match=rf"full.npz is of a full model with another {next(iter(change))}; export a run"
    ):
        load_full(path, CONFIG)


def test_another_method_is_no_full_model(planted, tmp_path):
    path = exported(tmp_path / "full.npz", planted, CONFIG | {"method": {"name": "random"}})
    with pytest.raises(
        UserError, match=r"full.npz is no export of a full model; export a run of the method 'full' to it"
    ):
        load_full(path, CONFIG)


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_what_is_no_export_is_refused(tmp_path, content):
    (tmp_path / "full.npz").write_bytes(content)
    with pytest.raises(
        UserError, match=r"full.npz is no export of a full model; export a run of the method 'full' to it"
    ):
        load_full(tmp_path / "full.npz", CONFIG)


def test_an_export_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        UserError, match=r"full_export=.*full.npz is not there; export a run of the method 'full' to it"
    ):
        load_full(tmp_path / "full.npz", CONFIG)
