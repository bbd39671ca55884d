"""Weighted hashing: against single rows, and what it is equal to without or with constant weights."""

import numpy as np
import pytest
import torch

from baco.compressors.budget import Budget
from baco.embedding.codebook import CodebookTables
from baco.embedding.quantized import QuantizedTables
from baco.embedding.rounding import UniformQuantizer
from baco.rng import stream, torch_stream
from baselines.hashing import DoubleHash, RandomHash, ShareSides
from baselines.weighted_hashing import HashEmbedding, MemRec

DIM = 16


def fitted(method, data, value=0.3, unit="parameters", quantizer=None):
    budget = Budget.parse(value, unit, data.num_users, data.num_items, DIM, quantizer)
    tables = method.fit(data.train, budget, stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    return tables, budget


def scattered(tables):
    """With weights that differ."""
    with torch.no_grad():
        for weights in tables.weights.parameters():
            weights.copy_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)))
    return tables


@pytest.mark.parametrize("share", [False, True])
def test_one_hash_without_scalars_is_random_hashing(share, planted):
    memrec, _ = fitted(MemRec(MemRec.Config(num_scalars=0, share_sides=share)), planted)
    random, _ = fitted(RandomHash(ShareSides(share)), planted)
    for output, expected in zip(memrec(), random(), strict=True):
        torch.testing.assert_close(output, expected, rtol=0, atol=0)
    assert memrec.ledger() == random.ledger()


def test_weights_begin_where_they_change_nothing(planted):
    memrec, _ = fitted(MemRec(MemRec.Config(num_hashes=2, num_scalars=4)), planted)
    for output, expected in zip(memrec(), memrec.rows(), strict=True):
        torch.testing.assert_close(output, expected, rtol=0, atol=0)
    hashemb, _ = fitted(HashEmbedding(), planted)
    for output, expected in zip(hashemb(), hashemb.rows(), strict=True):
        torch.testing.assert_close(output, expected)
    assert type(hashemb.rows) is CodebookTables and hashemb.rows.assignment.users.codes_per_id == 2


@pytest.mark.parametrize("share", [False, True])
def test_embeddings_are_those_of_single_rows(share, planted):
    settings = {"num_hashes": 3, "share_sides": share}
    memrec = scattered(fitted(MemRec(MemRec.Config(num_scalars=2, **settings)), planted)[0])
    hashemb = scattered(fitted(HashEmbedding(HashEmbedding.Config(**settings)), planted)[0])
    for side, scaled, weighted in zip(("users", "items"), memrec(), hashemb(), strict=True):
        rows, scalars = (getattr(part, side) for part in (memrec.rows, memrec.weights))
        expected = rows.rows[rows.codes.long()].sum(1) * scalars.rows[scalars.codes.long()].sum(1)
        torch.testing.assert_close(scaled, expected)
        rows, importance = (getattr(part, side) for part in (hashemb.rows, hashemb.weights))
        torch.testing.assert_close(weighted, (rows.rows[rows.codes.long()] * importance.rows[:, :, None]).sum(1))
        ids = torch.tensor([3, 0, 3], dtype=torch.int32)
        for tables, output in ((memrec, scaled), (hashemb, weighted)):
            torch.testing.assert_close(tables.lookup(side, ids), output[ids.long()])


@pytest.mark.parametrize("quantizer", [None, UniformQuantizer(8)], ids=["float32", "int8"])
@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("cls", [MemRec, HashEmbedding])
def test_one_row_more_would_not_fit(cls, share, unit, quantizer, planted):
    value = 0.3 if quantizer is None or unit == "parameters" else 0.2
    tables, budget = fitted(cls(cls.Config(share_sides=share)), planted, value, unit, quantizer)
    ledger = tables.ledger() if quantizer is None else QuantizedTables(tables, quantizer, 0).ledger()
    row = budget.row_format()
    scalar = (1 if unit == "parameters" else 4) if cls is MemRec else 0
    more = scalar + (row.row_parameters if unit == "parameters" else row.row_bytes)
    assert budget.limit - more < budget.amount(ledger) <= budget.limit


def test_importance_weights_are_paid_and_hashes_are_not(planted):
    nodes = planted.num_users + planted.num_items
    ledger = fitted(HashEmbedding(HashEmbedding.Config(num_hashes=3)), planted)[0].ledger()
    assert ledger.parameters == DIM * (ledger.user_rows + ledger.item_rows) + 3 * nodes and ledger.extra_codes == 0
    memrec = fitted(MemRec(MemRec.Config(num_hashes=3)), planted)[0].ledger()
    assert memrec.parameters == (DIM + 1) * (memrec.user_rows + memrec.item_rows)
    double = fitted(DoubleHash(), planted)[0].ledger()
    assert memrec.user_rows > double.user_rows > ledger.user_rows


def test_weights_are_trained(planted):
    for cls in (MemRec, HashEmbedding):
        tables, _ = fitted(cls(), planted)
        users, items = tables()
        (users.sum() + (items * items).sum()).backward()
        for weights in tables.weights.parameters():
            assert np.count_nonzero(weights.grad) > 0.9 * weights.numel()
