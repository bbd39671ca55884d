import numpy as np
import pytest
from scipy.stats import ortho_group

from baco.evaluation.distance import distances


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


def test_narrower_embeddings_are_as_if_zeros_followed():
    users, items = pair(np.random.default_rng(0))
    narrow = users[:, :3], items[:, :3]
    padded = [np.pad(side, ((0, 0), (0, 1))) for side in narrow]
    assert distances(narrow, (users, items)) == distances((padded[0], padded[1]), (users, items))
