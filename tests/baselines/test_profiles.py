"""Profiles of random labels: BACO+'s codes of labels that say nothing, at its budget."""

import numpy as np
import pytest

from baco.coclustering.baco_plus import BacoPlus
from baco.coclustering.profiles import profile_codes
from baco.coclustering.weights import node_weights
from baco.compressors.budget import Budget
from baco.embedding.cost import code_ledger
from baco.rng import stream
from baselines.profiles import RandomProfiles


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
def test_only_the_labels_differ_from_baco_plus(planted, unit):
    budget = Budget.parse(0.4, unit, planted.num_users, planted.num_items, 64)
    plus, control = (
        method().assign(planted.train, budget, stream(0, "assign")) for method in (BacoPlus, RandomProfiles)
    )
    for key in ("user_codes", "item_codes"):
        assert plus.details[key] == control.details[key]
    np.testing.assert_array_equal(plus.users.ends, control.users.ends)
    np.testing.assert_array_equal(plus.items.ends, control.items.ends)
    assert budget.limit - 2 * 256 < budget.amount(code_ledger(control, 64)) <= budget.limit


def test_labels_are_even_and_codes_are_profiles_of_them(planted):
    budget = Budget.parse(0.4, "parameters", planted.num_users, planted.num_items, 64)
    control = RandomProfiles().assign(planted.train, budget, stream(0, "assign"))
    for labels in np.split(control.labels, [planted.num_users]):
        sizes = np.bincount(labels, minlength=control.details["num_labels"])
        assert sizes.max() - sizes.min() <= 1
    most = control.details["user_codes"], control.details["item_codes"]
    ends, codes = profile_codes(planted.train, control.labels, node_weights(planted.train, "sqrt", "sqrt"), most)
    of_users = codes[: ends[planted.num_users]]
    np.testing.assert_array_equal(control.users.index, np.unique(of_users, return_inverse=True)[1])


def test_nodes_without_interactions_share_one_row(sparse_graph):
    budget = Budget.parse(0.6, "parameters", sparse_graph.num_users, sparse_graph.num_items, 64)
    control = RandomProfiles().assign(sparse_graph, budget, stream(0, "assign"))
    for codes, degrees in ((control.users, sparse_graph.user_degrees), (control.items, sparse_graph.item_degrees)):
        (row,) = {*codes.first[degrees == 0]}
        assert row not in codes.first[degrees > 0]
