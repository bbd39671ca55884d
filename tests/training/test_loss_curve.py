"""The engine against the simplest implementation there is: from the same batches the same losses."""

import itertools
from functools import partial

import pytest
import torch
from torch.nn.functional import embedding

from baco.backbones.backbone import LightGCN
from baco.coclustering.baco import Baco
from baco.compressors.budget import Budget
from baco.losses.bpr import BPR
from baco.rng import stream, torch_stream
from baco.training.sampler import Sampler
from baselines.full import Full

STEPS = 60


def simple_lightgcn(data, tables, num_layers):
    """Score differences as they are usually written: dense matrices, autograd, nothing shared."""
    matrix = torch.zeros(data.train.num_nodes, data.train.num_nodes)
    users, items = torch.as_tensor(data.train.users).long(), torch.as_tensor(data.train.items).long() + data.num_users
    matrix[users, items] = matrix[items, users] = 1
    scale = matrix.sum(1).clamp(min=1).rsqrt()
    matrix = scale[:, None] * matrix * scale

    def differences(batch):
        layers = [torch.cat(tables())]
        for _ in range(num_layers):
            layers.append(matrix @ layers[-1])
        users, items = torch.stack(layers).mean(0).tensor_split([data.num_users])
        scores = [(embedding(batch.users, users) * embedding(chosen, items)).sum(1) for chosen in batch[1:]]
        return scores[0] - scores[1]

    return differences


@pytest.mark.parametrize("batch_size", [64, 4000])
@pytest.mark.parametrize("method", [Full, Baco])
def test_the_loss_curve_is_the_simple_implementations(planted, method, batch_size):
    budget = Budget.parse(0.5, "parameters", planted.num_users, planted.num_items, 16)
    backbone = LightGCN(planted.train, LightGCN.Config(num_layers=2))

    def ours(data, tables, num_layers):
        return partial(backbone.score_differences, tables)

    curves = []
    for scorer in (ours, simple_lightgcn):
        tables = method().fit(planted.train, budget, stream(0, "assign"))
        tables.reset_parameters(0.1, torch_stream(0, "init"))
        adam = torch.optim.Adam(tables.parameters(), lr=0.01)
        score = scorer(planted, tables, 2)
        sampler = Sampler(planted.train, batch_size, torch_stream(0, "sampling"))
        epochs = itertools.chain.from_iterable(sampler.epoch() for _ in itertools.count())
        losses = []
        for batch in itertools.islice(epochs, STEPS):
            loss = BPR().of_differences(score(batch))
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.detach())
        curves.append(torch.stack(losses))
    assert curves[1][-1] < 0.9 * curves[1][0], "it learns"
    torch.testing.assert_close(curves[0], curves[1], rtol=0, atol=1e-6)
