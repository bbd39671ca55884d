"""Infomap, native and within a budget."""

import sys

import numpy as np
import pytest

from baco.compressors.budget import Budget
from baco.embedding.cost import code_ledger
from baco.errors import UserError
from baco.rng import stream
from baselines.infomap import Infomap, infomap_labels
from baselines.support.connected import ISOLATED


def test_bicliques_are_two_modules(two_bicliques):
    labels = infomap_labels(two_bicliques, 1, "--two-level")
    users, items = labels[:6].reshape(2, 3), labels[6:].reshape(2, 3)
    np.testing.assert_array_equal(users, items)
    assert (users == users[:, :1]).all() and users[0, 0] != users[1, 0]


def test_isolated_nodes_are_marked(sparse_graph):
    labels = infomap_labels(sparse_graph, 1, "--two-level")
    degrees = np.concatenate([sparse_graph.user_degrees, sparse_graph.item_degrees])
    np.testing.assert_array_equal(labels == ISOLATED, degrees == 0)


def test_native_has_its_own_size_and_matched_fills_the_budget(planted):
    budget = Budget.parse(0.4, "parameters", planted.num_users, planted.num_items, 64)
    native, matched = Infomap(Infomap.Config(matched=False)), Infomap()
    assert matched.has_budget and not native.has_budget
    shares = [
        budget.share(code_ledger(method.assign(planted.train, budget, stream(0, "assign")), 64))
        for method in (native, matched)
    ]
    assert shares[0] < 0.1, "a module or a few"
    assert 0.9 < shares[1] <= 1


def test_a_missing_package_is_named_with_the_mend(two_bicliques, monkeypatch):
    monkeypatch.setitem(sys.modules, "infomap", None)
    with pytest.raises(UserError, match=r"pip install 'infomap>=2.7,<3'"):
        Infomap().assign(two_bicliques, Budget.parse(None, "parameters", 6, 6, 4), stream(0, "assign"))
