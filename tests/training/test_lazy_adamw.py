"""The lazy optimiser against torch's AdamW, which updates all rows at every step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from baco.backbones.backbone import MF, LightGCN
from baco.coclustering.baco import Baco
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.losses.bpr import BPR
from baco.losses.ials import SquaredLoss
from baco.losses.ssm import SampledSoftmax
from baco.training.lazy_adamw import LONG, LazyAdamW
from baco.training.trainer import Trainer
from baselines.full import Full
from baselines.pq import ProductQuantization
from tests.conftest import QUICK
from tests.training.test_processes import SavedOnce
from tests.training.test_trainer import CPU, tables_for

ROWS, DIM = 9, 5


def trained(make, batches, scale, decay, sparse):
    """The rows after a step for each batch of rows, with gradients whose size is far from eps, or near it."""
    rng = np.random.default_rng(0)
    rows = nn.Parameter(torch.as_tensor(rng.normal(size=(ROWS, DIM)).astype(np.float32)))
    optimizer = make([{"params": [rows], "lr": 0.0, "weight_decay": decay}])
    for number, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - number / (len(batches) + 1))
        places = torch.tensor(sorted(batch))
        values = torch.as_tensor((scale * rng.normal(size=(len(batch), DIM))).astype(np.float32))
        gradient = torch.sparse_coo_tensor(places[None], values, rows.shape, is_coalesced=True, check_invariants=False)
        rows.grad = gradient if sparse else gradient.to_dense()
        if sparse:
            optimizer.catch_up(rows, places.numpy()[:1])  # what is read twice
        optimizer.step()
        if sparse and number % 7 == 6:
            optimizer.settle()
    if sparse:
        optimizer.settle()
    return rows.detach()


BATCHES = st.lists(st.sets(st.integers(0, ROWS - 1), min_size=1, max_size=4), min_size=1, max_size=20)


@settings(max_examples=15)
@given(BATCHES, st.sampled_from([1.0, 1e-7]), st.sampled_from([0.0, 0.3]))
def test_every_row_ends_where_adamw_brings_it(batches, scale, decay):
    lazy, dense = (trained(make, batches, scale, decay, make is LazyAdamW) for make in (LazyAdamW, torch.optim.AdamW))
    torch.testing.assert_close(lazy, dense, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("idle", [LONG - 1, LONG + 1, 4 * LONG])
def test_a_row_may_be_idle_for_long(idle):
    batches = [{0, 1}] + [{1}] * idle + [{0}]
    lazy, dense = (trained(make, batches, 1.0, 0.1, make is LazyAdamW) for make in (LazyAdamW, torch.optim.AdamW))
    torch.testing.assert_close(lazy, dense, rtol=1e-5, atol=2e-5)


def train(data, method, loss, lazy, tmp_path, **changes):
    protocol = replace(QUICK, **{"batch_size": 500, "max_epochs": 3, "decay_per_epoch": 0.3} | changes)
    backbone = MF(data.train, MF.Config(), loss.score)
    trainer = Trainer(backbone, Evaluator(data), protocol, 0, CPU, progress=False, loss=loss, lazy_rows=lazy)
    found, checkpoint = [], SavedOnce(tmp_path / f"{lazy}.checkpoint", 0, {})
    for _ in range(2):  # the second goes on from the checkpoint of the first
        tables = tables_for(data, method())
        report = trainer.fit(tables, checkpoint=checkpoint)
        found.append([torch.tensor([loss for _, loss, _ in report.history]), *tables.parameters()])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    return found[0]


@pytest.mark.parametrize(
    ("method", "loss"),
    [(Full, BPR()), (Full, BPR(score="cosine")), (Baco, SampledSoftmax(negatives=40)), (Baco, BPR())],
)
def test_a_training_is_that_of_all_rows(planted, tmp_path, method, loss):
    lazy, dense = (train(planted, method, loss, lazy, tmp_path) for lazy in (True, False))
    torch.testing.assert_close(lazy, dense, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("backbone", "method", "loss", "changes", "message"),
    [
        (LightGCN, Full, BPR(), {}, "backbone=mf"),
        (MF, ProductQuantization, BPR(), {}, "only assign codes"),
        (MF, Full, SquaredLoss(), {}, "loss=ials"),
        (MF, Full, BPR(), {"weight_decay": 1e-8}, "decay_per_epoch takes its place"),
    ],
)
def test_what_changes_other_rows_is_refused(planted, backbone, method, loss, changes, message):
    mine = backbone(planted.train, backbone.Config(), loss.score)
    protocol = replace(QUICK, **changes)
    trainer = Trainer(mine, Evaluator(planted), protocol, 0, CPU, progress=False, loss=loss, lazy_rows=True)
    with pytest.raises(UserError, match=f"^lazy_rows=True .*{message}"):
        trainer.fit(tables_for(planted, method()))
