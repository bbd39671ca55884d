"""Each loss against a dense version of a few lines, in double precision, with the gradients of the tables."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from baco.backbones.backbone import MF, LightGCN
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment, Codes
from baco.losses import blocks
from baco.losses.bpr import BPR
from baco.losses.ccl import CosineContrastive
from baco.losses.directau import DirectAU, log_potential
from baco.losses.ials import SquaredLoss
from baco.losses.ssm import SampledSoftmax
from baco.numerics.triples import Batch
from baco.rng import torch_stream
from baco.training.sampler import Sampler

LOSSES = {
    "bpr": BPR(epsilon=1e-3),
    "ssm": SampledSoftmax(negatives=7, temperature=0.3),
    "ssm_many": SampledSoftmax(negatives=500, temperature=0.3),
    "ssm_batch": SampledSoftmax(sampling="batch", negatives=9, temperature=0.5),
    "ssm_corrected": SampledSoftmax(sampling="batch", negatives=400, correction=True),
    "ccl": CosineContrastive(margin=0.05, weight=3.0, negatives=11),
    "directau": DirectAU(gamma=0.7),
    "ials": SquaredLoss(weight=0.3),
}


def dense(loss, users, items, batch, graph):
    """The formulas, one pair after the other, on final embeddings of length 1 where the score is a cosine."""
    u, i, j = (part.long() for part in batch)
    x, y = users[u], items[i]
    if isinstance(loss, BPR):
        return -torch.log(loss.epsilon + torch.sigmoid((x * (y - items[j])).sum(1))).mean()
    if isinstance(loss, SampledSoftmax):
        j = i[: loss.negatives] if loss.sampling == "batch" else j
        shift = torch.zeros(len(items), dtype=users.dtype)
        if loss.correction:
            shift = -torch.log(torch.as_tensor(graph.item_degrees) / graph.num_edges)
        logits = users @ items.T / loss.temperature + shift
        values = []
        for user, item in zip(u, i, strict=True):
            others = logits[user, j[j != item]]
            values.append(torch.logsumexp(torch.cat([logits[user, item][None], others]), 0) - logits[user, item])
        return torch.stack(values).mean()
    if isinstance(loss, CosineContrastive):
        return (1 - (x * y).sum(1) + loss.weight * (x @ items[j].T - loss.margin).clamp(min=0).mean(1)).mean()
    if isinstance(loss, DirectAU):
        x, y = normalize(x), normalize(y)
        uniform = [torch.pdist(side).square().mul(-2).exp().mean().log() for side in (x, y)]
        return (x - y).square().sum(1).mean() + loss.gamma / 2 * sum(uniform)
    assert isinstance(loss, SquaredLoss)
    everywhere = (users @ items.T).square().sum()
    return ((x * y).sum(1) - 1).square().mean() + loss.weight / graph.num_edges * everywhere


def dense_embeddings(graph, tables, num_layers, score):
    matrix = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    users, items = torch.as_tensor(graph.users).long(), torch.as_tensor(graph.items).long() + graph.num_users
    matrix[users, items] = matrix[items, users] = 1
    scale = matrix.sum(1).clamp(min=1).rsqrt()
    layers = [torch.cat([side.double() for side in tables()])]
    for _ in range(num_layers):
        layers.append((scale[:, None] * matrix * scale) @ layers[-1])
    final = torch.stack(layers).mean(0)
    return (final if score == "dot" else normalize(final)).tensor_split([graph.num_users])


def tables_for(graph, dim=12):
    rng = np.random.default_rng(3)
    codes = [Codes(rng.integers(0, 40, (size, 1), np.int32), 40) for size in (graph.num_users, graph.num_items)]
    tables = CodebookTables(Assignment(*codes), dim)
    tables.reset_parameters(0.5, torch_stream(0, "init"))
    return tables


def gradients(value, tables):
    return torch.autograd.grad(value, list(tables.parameters()))


@pytest.mark.parametrize("score", ["dot", "cosine"])
@pytest.mark.parametrize("num_layers", [0, 2])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("block", [64, 2**18])
def test_a_loss_is_its_formula(sparse_graph, name, num_layers, score, block, monkeypatch):
    monkeypatch.setattr(blocks, "CPU_BLOCK", block)
    loss, tables = replace(LOSSES[name], score=score), tables_for(sparse_graph)
    backbone = LightGCN(sparse_graph, LightGCN.Config(num_layers=num_layers), score)
    sampler = Sampler(sparse_graph, 300, torch_stream(1, "sampling"), loss.num_negatives)
    batch = next(sampler.epoch())
    users, items = dense_embeddings(sparse_graph, tables, num_layers, score)
    expected = dense(loss, users, items, batch, sparse_graph)
    found = loss(backbone, tables, batch)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(gradients(found, tables), gradients(expected, tables), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_one_pair_has_a_finite_loss(sparse_graph, name):
    loss, tables = LOSSES[name], tables_for(sparse_graph)
    backbone = MF(sparse_graph, MF.Config(), loss.score)
    one = torch.as_tensor(sparse_graph.users[:1]), torch.as_tensor(sparse_graph.items[:1])
    negatives = torch.zeros(loss.num_negatives(1), dtype=torch.int32)
    value = loss(backbone, tables, Batch(*one, negatives))
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(value, tables))


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.splits])
def test_a_loss_is_the_mean_over_the_parts_of_its_batch(sparse_graph, name):
    """What several processes make of it, each its own part."""
    loss, tables = LOSSES[name], tables_for(sparse_graph)
    backbone = LightGCN(sparse_graph, LightGCN.Config(num_layers=2), loss.score)
    batch = next(Sampler(sparse_graph, 300, torch_stream(1, "sampling"), loss.num_negatives).epoch())
    whole = loss(backbone, tables, batch)
    parts = sum(
        (part.stop - part.start) / 300 * loss(backbone, tables, loss.part(batch, part))
        for part in (slice(0, 1), slice(1, 110), slice(110, 300))
    )
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(gradients(parts, tables), gradients(whole, tables), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_softmax_without_another_item_is_zero(sparse_graph):
    """All negatives are the pair's own item: nothing is left to tell it from."""
    item, loss = sparse_graph.items[:1], SampledSoftmax(negatives=5)
    backbone, tables = MF(sparse_graph, MF.Config(), "cosine"), tables_for(sparse_graph)
    batch = Batch(torch.as_tensor(sparse_graph.users[:1]), torch.as_tensor(item), torch.as_tensor(np.repeat(item, 5)))
    value = loss(backbone, tables, batch)
    assert value.item() == pytest.approx(0, abs=1e-5)
    assert all(gradient.abs().max() < 1e-5 for gradient in gradients(value, tables))


def test_softmax_bears_scores_of_any_size(sparse_graph):
    loss, tables = SampledSoftmax(score="dot", temperature=1e-4), tables_for(sparse_graph)
    backbone = MF(sparse_graph, MF.Config(), "dot")
    sampler = Sampler(sparse_graph, 300, torch_stream(1, "sampling"), loss.num_negatives)
    value = loss(backbone, tables, next(sampler.epoch()))
    assert value.isfinite() and value > 1e3
    assert all(gradient.isfinite().all() for gradient in gradients(value, tables))


def test_the_potential_counts_places_not_rows():
    x = normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    counts = torch.tensor([1, 3, 1, 2, 1, 1])
    apart = x.repeat_interleave(counts, 0)
    torch.testing.assert_close(
        log_potential(x, counts, 9), torch.pdist(apart).square().mul(-2).exp().mean().log(), rtol=1e-5, atol=1e-6
    )
