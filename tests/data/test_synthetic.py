import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from baco.data.interactions import SPLITS
from baco.data.synthetic import Synthetic
from baco.errors import UserError
from baco.graph import Biadjacency


def test_the_generator_plants_what_it_says():
    source = Synthetic(
        num_users=600,
        num_items=500,
        num_interactions=20_000,
        num_clusters=5,
        main_share=0.7,
        second_share=0.2,
        exponent=2.5,
    )
    data, again = source.load(None), source.load(None)
    assert data.fingerprint == again.fingerprint
    assert data.fingerprint != Synthetic(**{**vars(source), "data_seed": 1}).load(None).fingerprint
    edges = [getattr(data, split).num_edges for split in SPLITS]
    assert sum(edges) == 20_000 and edges[1] == edges[2] == 2000
    assert data.report.duplicates == data.report.overlaps == 0
    for degrees in (data.train.user_degrees, data.train.item_degrees):
        assert degrees.var() > 10 * degrees.mean(), "degrees are far from even (a Poisson variable's are equal)"


def test_users_interact_inside_their_co_clusters():
    """With no noise and no second interest, the graph falls apart into its co-clusters."""
    source = Synthetic(
        num_users=300, num_items=200, num_interactions=6000, num_clusters=8, main_share=1.0, second_share=0.0
    )
    users, items = source.draw_pairs(np.random.default_rng(0))
    graph = Biadjacency.from_pairs(users, items, 300, 200)
    indptr, indices = graph.joint
    adjacency = csr_array((np.ones(len(indices)), indices, indptr), shape=(500, 500))
    _, component = connected_components(adjacency)
    sizes = np.bincount(component)
    assert np.count_nonzero(sizes > 1) == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_users": 0}, "^num_users=0 must be 1 or more"),
        ({"num_clusters": 5000}, "more than there are users or items"),
        ({"num_interactions": 10**8}, "is more than a quarter of all pairs, 6000000"),
        (
            {"num_interactions": 10**6, "num_clusters": 1000, "main_share": 1.0, "second_share": 0.0},
            "more than co-clusters of this size hold",
        ),
        ({"main_share": 0.9}, "1 at most together"),
        ({"exponent": 2.0}, "must be above 2"),
    ],
)
def test_bad_generator_settings(settings, message):
    with pytest.raises(UserError, match=message):
        Synthetic(**settings).load(None)
