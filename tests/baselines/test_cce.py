"""Clustered compositional embeddings: what a clustering step does to codes, rows and optimizer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from baco.backbones.backbone import MF, LightGCN
from baco.compressors.budget import Budget
from baco.embedding.rules import AffineHash
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.rng import stream, torch_stream
from baco.training.trainer import Trainer
from baselines.cce import Cce, ChunkedCodebook, means
from baselines.support.schedule import CodeUpdates
from tests.conftest import QUICK

DIM = 16


def budget_of(data, value, unit="parameters", dim=DIM) -> Budget:
    return Budget.parse(value, unit, data.num_users, data.num_items, dim)


def tables_of(data, value=0.5, std=0.1, **settings):
    tables = Cce(Cce.Config(**settings)).fit(data.train, budget_of(data, value), stream(0, "assign"))
    tables.reset_parameters(std, torch_stream(0, "init"))
    return tables


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_one_pair_of_rows_more_would_not_fit(planted, chunks, unit):
    budget = budget_of(planted, 0.6, unit)
    ledger = Cce(Cce.Config(num_chunks=chunks)).fit(planted.train, budget, stream(0, "assign")).ledger()
    pair = 2 * DIM if unit == "parameters" else 8 * DIM + chunks * 400 // 8  # and at most one bit more per code
    assert budget.limit - pair < budget.amount(ledger) <= budget.limit
    assert ledger.extra_codes == (2 * chunks - 1) * 700


def test_beauty_fills_the_papers_budget(beauty):
    for unit in ("parameters", "bytes"):
        budget = budget_of(beauty, 8267, unit, dim=64)
        assert 0.999 < budget.share(Cce().fit(beauty.train, budget, stream(0, "assign")).ledger()) <= 1


@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_embeddings_are_chunks_of_two_rows(planted, chunks):
    tables = tables_of(planted, num_chunks=chunks)
    width, k = DIM // chunks, tables.users.num_rows
    rows = tables.users.rows.detach().numpy().reshape(chunks, 2, k, width)
    labels, hashed = tables.users.labels(), tables.users.hashes().evaluate(planted.num_users, k).index
    for x, embedding in enumerate(tables()[0].detach().numpy()):
        parts = [rows[j, 0, labels[x, j]] + rows[j, 1, hashed[x, j]] for j in range(chunks)]
        np.testing.assert_array_equal(embedding, np.concatenate(parts))


def test_first_values_have_the_wanted_deviation(beauty):
    tables = Cce().fit(beauty.train, budget_of(beauty, 8267, dim=64), stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    for embeddings in tables():
        assert embeddings.std().item() == pytest.approx(0.1, rel=0.05)


def test_clustering_keeps_embeddings_better_than_the_centres_alone(planted):
    codebook = tables_of(planted).users
    before = codebook().detach().numpy()
    codebook.cluster(np.random.default_rng(3))
    after = codebook().detach().numpy()
    rows = codebook.rows.detach().numpy().reshape(2, 2, codebook.num_rows, DIM // 2)
    labels = codebook.labels()
    centers = np.concatenate([rows[j, 0, labels[:, j]] for j in range(2)], axis=1)
    for j in range(2):  # k-means: each centre is the mean of its members, and no other centre is nearer
        chunk = before[:, j * 8 : (j + 1) * 8].astype(np.float64)
        np.testing.assert_allclose(rows[j, 0], means(chunk, labels[:, j], codebook.num_rows), atol=1e-6)
        distances = ((chunk[:, None] - rows[j, 0]) ** 2).sum(2)
        own = distances[np.arange(len(chunk)), labels[:, j]]
        assert np.mean(own <= distances.min(1) + 1e-6) > 0.99
    assert np.linalg.norm(before - after) < np.linalg.norm(before - centers) < np.linalg.norm(before)


def test_clustered_embeddings_are_found():
    """Embeddings with as many distinct values as there are centres come through unchanged."""
    rng = np.random.default_rng(0)
    hashes = AffineHash.draw(2, 60, rng)
    labels = np.repeat(np.arange(12), 5)[:, None].repeat(2, 1)
    codebook = ChunkedCodebook(labels, hashes, 12, 8)
    with torch.no_grad():
        codebook.rows.view(2, 2, 12, 4)[:, 0] = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0))
    before = codebook().detach()
    codebook.cluster(rng)
    torch.testing.assert_close(codebook().detach(), before)


def test_as_many_rows_as_ids_and_equal_embeddings_give_no_nan():
    codebook = ChunkedCodebook(np.zeros((5, 2), np.int64), AffineHash.draw(2, 5, np.random.default_rng(0)), 5, 4)
    codebook.cluster(np.random.default_rng(1))
    assert (codebook() == 0).all() and len(np.unique(codebook.labels()[:, 0])) == 5


def test_rows_without_ids_are_zero():
    found = means(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]), np.array([3, 1, 3]), 5)
    np.testing.assert_array_equal(found, [[0, 0], [3, 4], [0, 0], [3, 4.5], [0, 0]])


@pytest.mark.parametrize("backbone", [MF, LightGCN])
def test_codes_follow_the_best_state_and_the_optimizer_forgets(planted, backbone):
    tables = tables_of(planted, update_from=2, update_until=3)
    seen = {}

    class Watched(Trainer):
        def _end_epoch(self, state):
            super()._end_epoch(state)
            adam, tables = state.optimizer.state, state.tables
            seen[state.report.epochs + 1] = (tables.users.codes.clone(), [p in adam for p in tables.parameters()])

    protocol = replace(QUICK, max_epochs=5, eval_every=1)
    report = Watched(
        backbone(planted.train, backbone.Config()), Evaluator(planted), protocol, 0, torch.device("cpu"), False
    ).fit(tables)
    changed = [not torch.equal(seen[epoch][0], seen[epoch + 1][0]) for epoch in range(1, 5)]
    assert changed == [True, True, False, False]
    assert [any(seen[epoch][1]) for epoch in range(1, 6)] == [True, False, False, True, True]
    assert torch.equal(tables.users.codes, seen[report.best_epoch][0])


def test_a_step_depends_on_seed_and_epoch_only(planted):
    first, second = tables_of(planted), tables_of(planted)
    for tables in (first, second):
        tables.updates = CodeUpdates(1, 9)
    first.on_epoch_end(0, None)
    second.load_state_dict(first.state_dict())
    for tables in (first, second):
        assert len(tables.on_epoch_end(1, None)) == 2
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_chunks": 0}, "^num_chunks=0 must be"),
        ({"update_from": 0}, "^update_from=0 must be"),
        ({"update_until": -1}, "^update_until=-1 must be"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        Cce.Config(**settings)


def test_chunks_have_to_divide_the_width(planted):
    with pytest.raises(UserError, match=r"^num_chunks=3 does not divide dim=16"):
        tables_of(planted, num_chunks=3)


def test_a_small_budget_is_refused_with_the_least_that_is_needed(planted):
    with pytest.raises(UserError, match=r"below the least that 'cce' needs, 2,164"):
        tables_of(planted, 0.1)
