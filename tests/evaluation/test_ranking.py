"""Ranking and metrics against loops, sorting and an independent library."""

from unittest.mock import patch

import ir_measures
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, P, R, Success, nDCG

from baco.data.interactions import Interactions
from baco.evaluation import evaluator as evaluator_module
from baco.evaluation import ranking
from baco.evaluation.evaluator import Evaluator, RankingReport
from baco.evaluation.groups import activity_quartiles, means_by_activity
from baco.evaluation.metrics import relevant_hits, user_metrics
from baco.evaluation.ranking import NO_ITEM, rank_items, rank_scores
from baco.graph import Biadjacency


def random_graph(rng, num_users, num_items, num_pairs) -> Biadjacency:
    users, items = rng.integers(num_users, size=num_pairs), rng.integers(num_items, size=num_pairs)
    return Biadjacency.from_pairs(users, items, num_users, num_items)


def sorted_ranking(scores, seen, tie_order, k):
    """The definition: highest score first, ties by the place in tie_order, seen items left out."""
    place = np.argsort(tie_order)
    ranked = []
    for user, row in enumerate(scores):
        hidden = set(seen.indices[seen.indptr[user] : seen.indptr[user + 1]].tolist())
        items = sorted((v for v in range(len(row)) if v not in hidden), key=lambda v: (-row[v], place[v]))[:k]
        ranked.append(items + [NO_ITEM] * (k - len(items)))
    return np.array(ranked)


@st.composite
def problems(draw):
    """Integer embeddings, so that scores are exact and ties are many."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    num_users, num_items, dim = draw(st.integers(1, 12)), draw(st.integers(1, 30)), draw(st.integers(1, 4))
    users = rng.integers(-2, 3, (num_users, dim)).astype(np.float32)
    items = rng.integers(-2, 3, (num_items, dim)).astype(np.float32)
    seen = random_graph(rng, num_users, num_items, int(rng.integers(1, num_users * num_items + 1)))
    return users, items, seen.by_user, rng.permutation(num_items), draw(st.integers(1, 35))


@pytest.mark.parametrize("block", [(256, 2048), (5, 7)])
@given(problem=problems())
def test_ranking_is_the_sorted_ranking(block, problem):
    """In one block of users and items, and in several."""
    users, items, seen, tie_order, k = problem
    with patch.multiple(ranking, CPU_USERS=block[0], CPU_ITEMS=block[1]):
        found = rank_items(torch.as_tensor(users), torch.as_tensor(items), np.arange(len(users)), seen, tie_order, k)
    np.testing.assert_array_equal(found, sorted_ranking(users @ items.T, seen, tie_order, k))


@given(problems())
def test_the_gpus_algorithm_gives_the_same_ranking(problem):
    users, items, seen, tie_order, k = problem
    with patch.multiple(ranking, _rank_on_cpu=ranking._rank_on_gpu, GPU_BLOCK_SCORES=100):
        found = rank_items(torch.as_tensor(users), torch.as_tensor(items), np.arange(len(users)), seen, tie_order, k)
    np.testing.assert_array_equal(found, sorted_ranking(users @ items.T, seen, tie_order, k))


@pytest.mark.parametrize("block", [256, 5])
@given(problem=problems())
def test_scores_that_are_dot_products_rank_as_the_embeddings(block, problem):
    users, items, seen, tie_order, k = problem
    asked, everybody = [], np.random.default_rng(0).permutation(len(users))

    def scores(chosen):
        asked.extend(chosen)
        return users[chosen] @ items.T

    with patch.object(ranking, "CPU_USERS", block):
        found = rank_scores(scores, everybody, seen, tie_order, k)
    by_rows = rank_items(torch.as_tensor(users), torch.as_tensor(items), everybody, seen, tie_order, k)
    np.testing.assert_array_equal(found, by_rows)
    np.testing.assert_array_equal(found, sorted_ranking(users @ items.T, seen, tie_order, k)[everybody])
    assert asked == everybody.tolist()


def test_scores_that_are_no_numbers_are_an_error():
    seen = Biadjacency.from_pairs(np.array([0]), np.array([0]), 1, 2).by_user
    with pytest.raises(FloatingPointError, match="NaN"):
        rank_scores(lambda users: np.array([[1.0, np.nan]]), np.array([0]), seen, np.arange(2), 1)


def test_few_items_make_no_huge_blocks_on_a_gpu(monkeypatch):
    monkeypatch.setattr(ranking, "GPU_USERS", 64)
    monkeypatch.setattr(ranking, "GPU_BLOCK_SCORES", 1024)
    sizes = []

    def blocks(user_rows, users, size):
        sizes.append(size)
        return iter(())

    with patch.object(ranking, "_blocks", blocks):
        for num_items in (2, 128, 2048):
            column = torch.zeros(num_items, dtype=torch.int64)
            ranking._rank_on_gpu(torch.zeros(3, 1), torch.zeros(1, 1), column, np.arange(3), None, column.numpy(), 1)
    assert sizes == [64, 8, 1]


def test_users_rank_the_same_alone_or_together():
    """Whatever the block a user falls into: real-valued embeddings, more users than a block holds."""
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(700, 64, generator=generator), torch.randn(900, 64, generator=generator)
    items[300:600] = items[:300]  # shared rows: exact ties
    seen = Biadjacency.from_pairs(np.arange(700), np.arange(700), 700, 900).by_user
    tie_order = np.random.default_rng(0).permutation(900)
    together = rank_items(users, items, np.arange(700), seen, tie_order, 20)
    order = np.random.default_rng(1).permutation(700)
    np.testing.assert_array_equal(rank_items(users, items, order, seen, tie_order, 20), together[order])
    for user in (0, 255, 256, 699):
        alone = rank_items(users, items, np.array([user]), seen, tie_order, 20)
        np.testing.assert_array_equal(alone[0], together[user])


def test_a_positive_factor_changes_no_ranking():
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(50, 16, generator=generator), torch.randn(80, 16, generator=generator)
    seen = Biadjacency.from_pairs(np.array([0]), np.array([0]), 50, 80).by_user
    rankings = [rank_items(factor * users, items, np.arange(50), seen, np.arange(80), 10) for factor in (1, 4)]
    np.testing.assert_array_equal(*rankings)


def test_ties_follow_the_permutation_not_the_ids():
    users, items = torch.ones(1, 2), torch.ones(6, 2)
    seen = Biadjacency.from_pairs(np.array([0]), np.array([3]), 1, 6).by_user
    order = np.array([5, 3, 0, 4, 1, 2])
    assert rank_items(users, items, np.array([0]), seen, order, 4).tolist() == [[5, 0, 4, 1]]


def test_minus_zero_is_zero():
    """Equal scores of different bits: items whose rows differ by the sign of a zero tie."""
    items = torch.tensor([[0.0], [-0.0], [1.0]])
    seen = Biadjacency.from_pairs(np.array([0]), np.array([2]), 1, 3).by_user
    assert rank_items(torch.ones(1, 1), items, np.array([0]), seen, np.array([1, 0, 2]), 2).tolist() == [[1, 0]]


def test_diverged_embeddings_are_an_error():
    seen = Biadjacency.from_pairs(np.array([0]), np.array([0]), 1, 2).by_user
    with pytest.raises(FloatingPointError, match="NaN"):
        rank_items(torch.tensor([[float("nan")]]), torch.ones(2, 1), np.array([0]), seen, np.arange(2), 1)


def test_metrics_agree_with_ir_measures():
    rng = np.random.default_rng(0)
    num_users, num_items, k = 200, 120, 50
    relevant = random_graph(rng, num_users, num_items, 2500)
    users = np.flatnonzero(relevant.user_degrees)
    ranked = np.stack([rng.permutation(num_items)[:k] for _ in users]).astype(np.int32)
    truth = [ir_measures.Qrel(str(u), str(v), 1) for u, v in zip(relevant.users, relevant.items, strict=True)]
    run = [
        ir_measures.ScoredDoc(str(user), str(item), float(-rank))
        for user, row in zip(users, ranked, strict=True)
        for rank, item in enumerate(row)
    ]
    names = {"recall_untruncated": R, "ndcg": nDCG, "hit_rate": Success, "precision": P, "mrr": RR}
    wanted = {measure @ cut: (name, cut) for name, measure in names.items() for cut in (10, 20, 50)}
    hits = relevant_hits(ranked, users, relevant.by_user, num_items)
    ours = {cut: user_metrics(hits, relevant.user_degrees[users], cut) for cut in (10, 20, 50)}
    row_of = {str(user): row for row, user in enumerate(users)}
    compared = 0
    for value in ir_measures.iter_calc(list(wanted), truth, run):
        name, cut = wanted[value.measure]
        assert ours[cut][name][row_of[value.query_id]] == pytest.approx(value.value, abs=1e-6), (name, cut)
        compared += 1
    assert compared == len(users) * len(wanted)
    assert (relevant.user_degrees[users] > 10).any(), "some users have more relevant items than the cut-off"


@given(st.integers(0, 1000))
def test_bounds_of_the_metrics(seed):
    rng = np.random.default_rng(seed)
    relevant = rng.integers(1, 40, 30)
    hits = rng.random((30, 20)) < rng.random()
    hits &= np.cumsum(hits, axis=1) <= relevant[:, None]
    for k in (1, 5, 20):
        values = user_metrics(hits, relevant, k)
        assert (values["recall"] >= values["recall_untruncated"]).all()
        for of_user in values.values():
            assert ((of_user >= 0) & (of_user <= 1 + 1e-12)).all()
    perfect = user_metrics(np.arange(20) < relevant[:, None], relevant, 20)
    np.testing.assert_allclose(perfect["recall"], 1)
    np.testing.assert_allclose(perfect["ndcg"], 1)
    np.testing.assert_allclose(perfect["mrr"], 1)


def test_recall_by_hand():
    """One user with three relevant items, two of them at ranks 1 and 3 of 4."""
    values = user_metrics(np.array([[True, False, True, False]]), np.array([3]), 2)
    assert values["recall"][0] == 1 / 2
    assert values["recall_untruncated"][0] == 1 / 3
    values = user_metrics(np.array([[True, False, True, False]]), np.array([3]), 4)
    assert values["recall"][0] == values["recall_untruncated"][0] == 2 / 3
    assert values["ndcg"][0] == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3) + 1 / 2))


@pytest.fixture
def tiny() -> Interactions:
    """Two users, five items; user 0 has one item in each split, user 1 none to validate."""
    splits = {"train": [[0, 1], [0, 1]], "val": [[0], [1]], "test": [[0, 1], [2, 3]]}
    return Interactions.from_pairs("tiny", {name: np.array(pairs) for name, pairs in splits.items()}, 2, 5)


def test_what_each_split_hides(tiny):
    """The relevant items come last of all, so that only what is hidden decides their rank."""
    evaluator = Evaluator(tiny)
    users, items = torch.ones(2, 1), torch.tensor([[5.0], [4.0], [3.0], [2.0], [1.0]])
    val = evaluator.evaluate(users, items, "val", 5)
    assert val.users.tolist() == [0]
    assert val.hits.tolist() == [[True, False, False, False, False]]  # item 0 is hidden
    test = evaluator.evaluate(users, items, "test", 5)
    assert test.hits.tolist() == [[True, False, False, False, False], [False, False, True, False, False]]
    assert test.means((5,))["recall@5"] == 1.0
    for split, by_rows in (("val", val), ("test", test)):
        by_scores = evaluator.evaluate_scores(lambda chosen: (users @ items.T).numpy()[chosen], split, 5)
        np.testing.assert_array_equal(by_scores.hits, by_rows.hits)


def test_users_are_ranked_in_blocks_so_that_their_number_takes_no_memory(planted, monkeypatch):
    rng = np.random.default_rng(0)
    users, items = (torch.from_numpy(rng.standard_normal((n, 4), np.float32)) for n in (400, 300))
    together = Evaluator(planted).evaluate(users, items, "val")
    monkeypatch.setattr(evaluator_module, "BLOCK", 64)
    seen = []
    monkeypatch.setattr(evaluator_module, "relevant_hits", lambda *a: seen.append(len(a[0])) or relevant_hits(*a))
    evaluator = Evaluator(planted)
    by_rows = evaluator.evaluate(users, items, "val")
    by_scores = evaluator.evaluate_scores(lambda chosen: (users[chosen] @ items.T).numpy(), "val")
    assert max(seen) == 64 and sum(seen) == 2 * len(together.users)
    for report in (by_rows, by_scores):
        np.testing.assert_array_equal(report.hits, together.hits)


def test_some_users_are_ranked_as_among_all_and_are_the_same_in_each_run(planted):
    rng = np.random.default_rng(0)
    rows = [torch.from_numpy(rng.standard_normal((n, 4), np.float32)) for n in (400, 300)]
    together, some = (Evaluator(planted, most_users=most).evaluate(*rows, "test") for most in (None, 50))
    again = Evaluator(planted, most_users=50).evaluate(rows[0] * 2, rows[1], "test")
    assert len(some.users) == 50 and (np.diff(some.users) > 0).all()
    chosen = np.searchsorted(together.users, some.users)
    for found, whole in zip(vars(some).values(), vars(together).values(), strict=True):
        np.testing.assert_array_equal(found, whole[chosen])
    np.testing.assert_array_equal(again.users, some.users)
    assert len(Evaluator(planted, most_users=10**9).evaluate(*rows, "test").users) == len(together.users)


def test_groups_by_activity():
    degrees = np.array([1, 1, 2, 3, 4, 5, 6, 100])
    assert activity_quartiles(degrees).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(set(activity_quartiles(np.full(9, 7)).tolist())) == 1, "users alike are in one group"
    report = RankingReport(np.arange(8), np.ones(8, int), np.eye(8, 5, dtype=bool))
    means = means_by_activity(report, degrees, 5)
    assert sum(group["users"] for group in means.values()) == 8
    assert means["0-25%"]["recall@5"] == 1.0 and means["75-100%"]["recall@5"] == 0.0
    overall = sum(group["recall@5"] * group["users"] for group in means.values()) / 8
    assert overall == pytest.approx(report.means((5,))["recall@5"])
