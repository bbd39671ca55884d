"""Product codes that are trained end to end, for all ids alike and with fewer centroids for infrequent ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from baco.backbones.backbone import MF
from baco.compressors.budget import Budget
from baco.embedding.product_codes import ProductQuantizer
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.rng import stream, torch_stream
from baco.training.trainer import Trainer
from baselines.dpq import DifferentiableProductQuantization, MultiGranularQuantizedEmbeddings
from baselines.pq import ProductTables
from tests.conftest import QUICK


def dpq(**settings) -> DifferentiableProductQuantization:
    return DifferentiableProductQuantization(DifferentiableProductQuantization.Config(**settings))


def mgqe(**settings) -> MultiGranularQuantizedEmbeddings:
    return MultiGranularQuantizedEmbeddings(MultiGranularQuantizedEmbeddings.Config(**settings))


def tables_of(method, data, value=0.4, unit="parameters"):
    budget = Budget.parse(value, unit, data.num_users, data.num_items, 16)
    tables = method.fit(data.train, budget, stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    return tables


@pytest.mark.parametrize("method", [dpq(blocks=5, bits=4), mgqe(blocks=5, bits=4, frequent=0.2)], ids=["dpq", "mgqe"])
def test_codes_are_the_nearest_centroids_that_an_id_may_choose(method, planted):
    tables = tables_of(method, planted)
    with torch.no_grad():
        tables.users.queries.add_(0.1)
    tables.on_step_end()
    users = tables.users
    queries, centroids = users.queries.detach().numpy(), users.centroids.detach().numpy()
    blocks = ProductQuantizer(5, 4).block_of_column(16)
    frequent = np.zeros(400, bool)
    frequent[np.argsort(-planted.train.user_degrees, kind="stable")[:80]] = True
    for block in range(5):
        own = queries[:, None, blocks == block] - centroids[None, :, blocks == block]
        distances = (own**2).sum(2)
        if method.name == "mgqe":
            distances[~frequent, 4:] = np.inf
        np.testing.assert_array_equal(users.codes[:, block].numpy(), distances.argmin(1))


def test_embeddings_are_centroids_and_their_gradients_reach_the_queries(planted):
    tables = tables_of(dpq(blocks=4, bits=3), planted)
    users, codes = tables()[0], tables.users.codes.long()
    parts = [tables.users.centroids[codes[:, block], 4 * block : 4 * block + 4] for block in range(4)]
    assert torch.equal(users, torch.cat(parts, 1))
    weights = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
    (users * weights).sum().backward()
    assert torch.equal(tables.users.queries.grad, weights)
    tables.zero_grad()
    tables.auxiliary_loss().backward()
    assert tables.users.queries.grad is None and tables.users.centroids.grad.abs().sum() > 0
    assert tables_of(dpq(pull=0.0), planted).auxiliary_loss() is None


def test_training_needs_queries_and_centroids_and_a_server_needs_no_queries(planted):
    tables = tables_of(dpq(blocks=4, bits=3), planted)
    assert tables.ledger().training_floats == sum(parameter.numel() for parameter in tables.parameters())
    again = ProductTables.from_export(tables.export())
    assert [name for name, _ in again.named_parameters()] == ["users.centroids", "items.centroids"]


def test_short_codes_save_bytes_but_no_parameters(planted):
    """90 % of 700 ids, in codes of 6 bits instead of 8: 3 bytes for 4 codes, and a bit for each id of a side."""
    plain, granular = (tables_of(of(blocks=4, bits=8), planted, 1.0).ledger() for of in (dpq, mgqe))
    assert plain.parameters == granular.parameters
    assert plain.bytes - granular.bytes == 630 - 50 - 38
    budget = Budget.parse(0.25, "bytes", planted.num_users, planted.num_items, 16)
    quantizers = [of(bits=6).quantizer_within(planted.train, budget) for of in (dpq, mgqe)]
    assert quantizers[1].blocks > quantizers[0].blocks


def test_when_all_ids_are_frequent_it_is_dpq(planted):
    found = []
    for method in (dpq(), mgqe(frequent=1.0)):
        tables = tables_of(method, planted)
        trainer = Trainer(
            MF(planted.train, MF.Config()),
            Evaluator(planted),
            replace(QUICK, max_epochs=2),
            0,
            torch.device("cpu"),
            progress=False,
        )
        trainer.fit(tables)
        found.append(torch.cat(tables()))
    assert torch.equal(*found)


@pytest.mark.parametrize(("method", "key"), [(dpq, "pull"), (mgqe, "frequent")])
def test_impossible_settings_are_named(method, key):
    with pytest.raises(UserError, match=f"^{key}=-1"):
        method(**{key: -1.0})
