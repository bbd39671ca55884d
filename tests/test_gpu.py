"""A GPU gives the same numbers as the CPU. Where there is none, a pretended one shows at least that no devices mix."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from baco.backbones.backbone import MF, LightGCN
from baco.coclustering.baco import Baco
from baco.compressors.budget import Budget
from baco.evaluation.evaluator import Evaluator
from baco.evaluation.ranking import rank_items
from baco.numerics.triples import Batch
from baco.rng import stream, torch_stream
from baco.training.checkpoint import Checkpoint
from baco.training.sampler import Sampler
from baco.training.trainer import Trainer
from baselines.full import Full
from tests.conftest import QUICK
from tests.losses.test_losses import LOSSES

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(params=["pretended", pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda])])
def device(request) -> torch.device:
    return request.getfixturevalue("pretended") if request.param == "pretended" else torch.device("cuda")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda there, here: there + here,
        lambda there, here: there.index_select(0, here.long()),
        lambda there, here: here[there.long()],
        lambda there, here: there.index_put_((torch.arange(3),), here),
        lambda there, here: there.numpy(),
        lambda there, here: torch.from_numpy(np.ones((2, 3), np.float32)) @ there,
    ],
)
def test_the_pretence_refuses_what_a_gpu_would(pretended, wrong):
    there, here = torch.zeros(3, device=pretended), torch.zeros(3)
    assert there.to("cpu").equal(here) and (there + 1).mean().item() == 1 and there[here.long()].device == pretended
    with pytest.raises(RuntimeError, match=r"several devices|numpy"):
        wrong(there, here)


def tables_for(data, method):
    budget = Budget.parse(0.5, "parameters", data.num_users, data.num_items, 64)
    tables = method.fit(data.train, budget, stream(0, "assign"))
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    return tables


@pytest.mark.parametrize("method", [Full, Baco])
@pytest.mark.parametrize("backbone", [MF, LightGCN])
def test_scores_and_gradients_are_the_cpus(planted, device, backbone, method):
    generator = torch.Generator().manual_seed(0)
    sizes = planted.num_users, planted.num_items, planted.num_items
    batch = Batch(*(torch.randint(size, (500,), generator=generator, dtype=torch.int32) for size in sizes))
    found = []
    for place in (torch.device("cpu"), device):
        tables = tables_for(planted, method()).to(place)
        model = backbone(planted.train, backbone.Config())
        differences = model.score_differences(tables, Batch(*(part.to(place) for part in batch)))
        differences.square().sum().backward()
        final = model.final_embeddings(tables)
        found.append([part.cpu() for part in (differences, *final, tables.users.rows.grad, tables.items.rows.grad)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_and_their_gradients_are_the_cpus(planted, device, loss):
    batch = next(Sampler(planted.train, 500, torch_stream(0, "sampling"), loss.num_negatives).epoch())
    found = []
    for place in (torch.device("cpu"), device):
        tables = tables_for(planted, Baco()).to(place)
        value = loss(
            LightGCN(planted.train, LightGCN.Config(), loss.score), tables, Batch(*(part.to(place) for part in batch))
        )
        value.backward()
        found.append([part.cpu() for part in (value, tables.users.rows.grad, tables.items.rows.grad)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_ranking_is_the_cpus(planted, device):
    """Whole numbers, so that scores are exact and ties are many."""
    rng = np.random.default_rng(0)
    users, items = (
        torch.as_tensor(rng.integers(-2, 3, (size, 8)).astype(np.float32))
        for size in (planted.num_users, planted.num_items)
    )
    rest = np.arange(planted.num_users), planted.train.by_user, rng.permutation(planted.num_items), 50
    np.testing.assert_array_equal(
        rank_items(users.to(device), items.to(device), *rest), rank_items(users, items, *rest)
    )


@pytest.mark.gpu
@needs_cuda
def test_training_learns_and_continues(planted, tmp_path):
    device = torch.device("cuda")
    protocol = replace(QUICK, max_epochs=6)

    def trainer() -> Trainer:
        return Trainer(LightGCN(planted.train, LightGCN.Config()), Evaluator(planted), protocol, 0, device, False)

    whole = tables_for(planted, Full()).to(device)
    report = trainer().fit(whole)
    assert report.history[-1][1] < report.history[0][1]

    path, broken = tmp_path / "checkpoint", trainer()
    validate, calls = broken.validate, []

    def fragile(tables):
        calls.append(tables)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return validate(tables)

    broken.validate = fragile
    with pytest.raises(KeyboardInterrupt):
        broken.fit(tables_for(planted, Full()).to(device), checkpoint=Checkpoint(path, 0, {}))
    pieces = tables_for(planted, Full()).to(device)
    assert trainer().fit(pieces, checkpoint=Checkpoint(path, 0, {})).continued_after
    for one, other in zip(whole(), pieces(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)
