"""The method under a budget, the search that fills it, and the estimator."""

import contextlib

import numpy as np
import pytest

from baco.coclustering import BalancedCoClustering
from baco.coclustering.baco import Baco
from baco.coclustering.cocluster import of_labels
from baco.compressors.budget import Budget
from baco.compressors.budget_search import fill_budget
from baco.embedding.codes import Assignment, Codes
from baco.embedding.cost import code_ledger
from baco.errors import UserError
from baco.graph import Biadjacency
from baco.rng import stream


def planted_budget(data, value, unit="parameters"):
    return Budget.parse(value, unit, data.num_users, data.num_items, 64)


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("solver", ["asynchronous", "alternating"])
@pytest.mark.parametrize("seed", range(2))
def test_beauty_fills_the_papers_budget(beauty, solver, seed, unit):
    budget = planted_budget(beauty, 8267, unit)
    assignment = Baco(Baco.Config(solver=solver)).assign(beauty.train, budget, stream(seed, "assign"))
    assert 0.98 <= budget.share(code_ledger(assignment, 64)) <= 1
    assert assignment.details["tries"] < 40


@pytest.mark.parametrize("value", [0.2, 0.5, 0.9, 1.0])
def test_budgets_are_met_from_below(planted, value):
    budget = planted_budget(planted, value)
    assignment = Baco().assign(planted.train, budget, stream(0, "assign"))
    assert 0.9 <= budget.share(code_ledger(assignment, 64)) <= 1


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("value", [0.2, 0.5])
def test_the_search_by_size_fills_the_budget(planted, value, unit):
    budget = planted_budget(planted, value, unit)
    method = Baco(Baco.Config(solver="multilevel", search="size"))
    first, again = (method.assign(planted.train, budget, stream(0, "assign")) for _ in range(2))
    assert 0.98 <= budget.share(code_ledger(first, 64)) <= 1
    assert first.details == again.details
    np.testing.assert_array_equal(first.labels, again.labels)
    resolution = first.details["resolution"]
    assert first.details["objective"] == of_labels(planted.train, first.labels, resolution).objective


def test_by_size_nodes_without_interactions_share_a_row():
    graph = Biadjacency.from_pairs(np.array([0, 0, 1]), np.array([0, 1, 1]), 5, 6)
    method = Baco(Baco.Config(solver="multilevel", search="size"))
    assignment = method.assign(graph, Budget(6 * 4, "parameters", 4), stream(0, "assign"))
    for codes in (assignment.users, assignment.items):
        assert len(np.unique(codes.first[2:])) == 1
        assert codes.first[2] not in codes.index[:2]


def test_a_fixed_resolution_is_not_searched(planted):
    budget = planted_budget(planted, 1.0)
    assignment = Baco(Baco.Config(resolution=3.0, seed=11)).assign(planted.train, budget, stream(0, "assign"))
    assert assignment.details["resolution"] == 3.0
    assert assignment.details["solver_seed"] == 11
    assert "tries" not in assignment.details


def test_a_budget_below_the_least_possible_names_it(planted):
    budget = planted_budget(planted, 0.01)
    with pytest.raises(
        UserError, match=r"of 448 parameters is below the least .* [\d,]+; raise the budget or num_rounds"
    ):
        Baco().assign(planted.train, budget, stream(0, "assign"))


def test_the_seed_decides_the_codes(planted):
    budget = planted_budget(planted, 0.4)
    first, again, other = (Baco().assign(planted.train, budget, stream(seed, "assign")) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.users.index, again.users.index)
    np.testing.assert_array_equal(first.items.index, again.items.index)
    assert first.details == again.details
    assert first.details["solver_seed"] != other.details["solver_seed"]


@pytest.mark.parametrize("solver", ["asynchronous", "alternating"])
def test_planted_blocks_are_recovered_under_their_budget(solver):
    """Eight blocks with noise, and a budget of one row per block and side: the codes are the blocks.

    Label propagation can end with a block in two halves that no single move unites; most seeds must not.
    """
    recovered = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        user_block, item_block = rng.integers(8, size=240), rng.integers(8, size=200)
        density = np.where(user_block[:, None] == item_block, 0.5, 0.01)
        graph = Biadjacency.from_matrix(rng.random(density.shape) < density)
        budget = Budget.parse(16, "parameters", 240, 200, 64)
        method = Baco(Baco.Config(solver=solver, secondary=False))
        with contextlib.suppress(UserError):
            assignment = method.assign(graph, budget, stream(seed, "assign"))
            sides = ((user_block, assignment.users), (item_block, assignment.items))
            pairs = [np.unique(np.stack([block, codes.first]), axis=1).shape[1] for block, codes in sides]
            recovered += pairs == [8, 8] == [codes.num_rows for _, codes in sides]
    assert recovered >= 4


def staircase(rows_at):
    """A method whose number of rows is a function of its knob."""

    def assign(knob: float) -> Assignment:
        rows = rows_at(knob)
        codes = Codes(np.arange(1000, dtype=np.int32)[:, None] % rows, rows)
        return Assignment(codes, codes, {"knob": knob})

    return assign


@pytest.mark.parametrize(
    "rows_at",
    [
        lambda knob: int(np.clip(40 * knob, 1, 1000)),
        lambda knob: int(np.clip(0.001 * knob, 1, 1000)),
        lambda knob: int(np.clip(1e5 * knob, 1, 1000)),
        lambda knob: int(np.clip(40 * knob * (1 + 0.3 * np.sin(9 * knob)), 1, 1000)),  # far from monotone
    ],
)
@pytest.mark.parametrize("smooth", [False, True])
def test_search_fills_the_budget_wherever_it_starts(rows_at, smooth):
    budget = Budget(600 * 8, "parameters", 8)
    for start in (1e-3, 1.0, 1e3):
        assignment = fill_budget(staircase(rows_at), budget, start, smooth=smooth)
        share = budget.share(code_ledger(assignment, 8))
        assert 0.98 <= share <= 1
        assert rows_at(assignment.details["knob"]) == assignment.users.num_rows


@pytest.mark.parametrize("power", [0.5, 0.9, 1.5])
def test_interpolation_needs_a_few_tries_where_bisection_needs_many(power):
    def tries(smooth):
        budget = Budget(60_000 * 8, "parameters", 8)
        search = staircase(lambda knob: int(np.clip(700 * knob**power, 1, 10**6)))
        return fill_budget(search, budget, 1.0, smooth=smooth).details["tries"]

    assert tries(True) < tries(False)
    assert tries(True) <= 8


def test_nothing_is_tried_twice():
    tried = []
    search = staircase(lambda knob: 100 if knob < 7 else 1000)
    fill_budget(lambda knob: tried.append(knob) or search(knob), Budget(600 * 8, "parameters", 8), 1.0)
    assert len(tried) == len(set(tried))


@pytest.mark.parametrize("smooth", [False, True])
def test_search_keeps_the_best_below_a_jump(smooth):
    budget = Budget(600 * 8, "parameters", 8)
    assignment = fill_budget(staircase(lambda knob: 100 if knob < 7 else 1000), budget, 1.0, smooth=smooth)
    assert assignment.users.num_rows == 100


def test_search_returns_at_once_when_everything_fits():
    calls = []

    def assign(knob):
        calls.append(knob)
        return staircase(lambda knob: 5)(knob)

    assert fill_budget(assign, Budget(10**9, "parameters", 8), 1.0).users.num_rows == 5
    assert len(calls) <= 30


@pytest.mark.parametrize("method", ["baco_plus", "baco"])
def test_estimator_labels_and_codes_agree(planted, method):
    matrix = planted.train.to_matrix()
    model = BalancedCoClustering(budget=0.3, method=method, random_state=4).fit(matrix)
    again = BalancedCoClustering(budget=0.3, method=method, random_state=4)
    assert again.fit(matrix) is again
    np.testing.assert_array_equal(model.row_labels_, again.row_labels_)
    sides = ((model.row_labels_, model.assignment_.users), (model.column_labels_, model.assignment_.items))
    for labels, codes in sides:
        pairs = np.unique(np.stack([labels, codes.first]), axis=1).shape[1]
        assert pairs == len(np.unique(labels)) == len(np.unique(codes.first)), "the first code is the label"
    assert code_ledger(model.assignment_, 64).parameters <= 0.3 * 700 * 64


def test_estimator_refuses_a_resolution_over_budget(planted):
    with pytest.raises(UserError, match="over the budget"):
        BalancedCoClustering(budget=0.05, settings={"resolution": 1e5}).fit(planted.train.to_matrix())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": "a"}, "budget=a must be a number"),
        ({"dim": 2.5}, "dim=2.5 must be a whole number"),
        ({"random_state": None}, "random_state=None must be a whole number"),
        ({"popularity": "a"}, "popularity=a must be a number"),
        ({"budget": 0}, "budget=0 must be positive"),
        ({"dim": 0}, "dim=0 must be 1 or more"),
        ({"random_state": -1}, "random_state=-1 must be 0 or more"),
        ({"popularity": 2}, "popularity=2 must lie between 0 and 1"),
        ({"settings": None}, "settings=None must be a dictionary"),
        ({"settings": {"resolution": -1.0}}, "^settings.resolution=-1.0 must be 0 or more"),
        ({"settings": {"code_share": 2.0}}, "^settings.code_share=2.0 must be 0 or more and below 1"),
    ],
)
def test_estimator_names_what_is_wrong_by_its_own_parameters(planted, settings, message):
    with pytest.raises(UserError, match=message):
        BalancedCoClustering(**settings).fit(planted.train.to_matrix())


def test_estimator_says_what_lowers_the_least_size():
    with pytest.raises(UserError, match=r"raise the budget or lower code_share"):
        BalancedCoClustering(budget=2).fit(np.ones((8, 8)))
    BalancedCoClustering(budget=2, settings={"code_share": 0.0}).fit(np.ones((8, 8)))


def test_baco_counts_the_ids_whose_rows_no_setting_saves():
    matrix = np.zeros((40, 30))
    matrix[:8, :8] = 1
    with pytest.raises(
        UserError, match="54 ids without interactions have a row each; the method 'baco_plus' lets them share"
    ):
        BalancedCoClustering(budget=0.25, dim=8, method="baco").fit(matrix)
    BalancedCoClustering(budget=0.25, dim=8, method="baco_plus").fit(matrix)


def test_estimator_has_no_tables_before_fit():
    with pytest.raises(UserError, match="call fit first"):
        BalancedCoClustering().tables()


def test_estimator_names_a_method_it_does_not_know(planted):
    with pytest.raises(UserError, match="did you mean 'baco_plus'"):
        BalancedCoClustering(method="baco_plu").fit(planted.train.to_matrix())


def test_the_estimators_tables_know_the_interactions_before_any_training(planted):
    """A random pair scores below a random interaction three times out of four, where rows start near the factors."""
    model = BalancedCoClustering(budget=0.3, dim=16).fit(planted.train.to_matrix())
    rng = np.random.default_rng(0)
    pairs = rng.integers((planted.num_users, planted.num_items), size=(planted.train.num_edges, 2)).T
    ranked = {}
    for start in ("normal", "spectral"):
        users, items = (side.detach().numpy() for side in model.tables(start=start)())
        positive = (users[planted.train.users] * items[planted.train.items]).sum(1)
        ranked[start] = np.mean(positive > (users[pairs[0]] * items[pairs[1]]).sum(1))
    assert ranked["spectral"] > 0.75 and abs(ranked["normal"] - 0.5) < 0.1
    with pytest.raises(UserError, match="start 'spectre' is unknown; did you mean 'spectral'"):
        model.tables(start="spectre")
