"""Residual quantization under a budget, after training and with trained centroids."""

import numpy as np
import pytest
import torch

from baco.backbones.backbone import MF
from baco.compressors.budget import Budget
from baco.embedding.product_codes import ProductQuantizer, ResidualQuantizer
from baco.evaluation.evaluator import Evaluator
from baco.graph import Biadjacency
from baco.rng import stream
from baco.training.trainer import Trainer
from baselines.rq import ResidualQuantization, ResidualTables
from baselines.support.centroids import centroid_ledger
from tests.conftest import QUICK


def method(**settings) -> ResidualQuantization:
    return ResidualQuantization(ResidualQuantization.Config(**settings))


def test_the_papers_budget_on_beauty_buys_78_bits_per_id():
    """13 levels of 64 rows of 64 floats per side, and 12 codes per id: 106,496 + 413,568 of 529,088."""
    graph = Biadjacency.from_pairs(np.array([0]), np.array([0]), 22_363, 12_101)
    budget = Budget.parse(8267, "parameters", 22_363, 12_101, 64)
    assert method().quantizer_within(graph, budget) == ResidualQuantizer(13, 6)
    assert method(bits=8).quantizer_within(graph, budget) == ResidualQuantizer(8, 8)
    assert method(levels=3).quantizer_within(graph, budget) == ResidualQuantizer(3, 8)
    ledger = centroid_ledger(ResidualQuantizer(13, 6), 22_363, 12_101, 64)
    assert ledger.parameters == 2 * 13 * 64 * 64 + 12 * 34_464 and ledger.extra_codes == 12 * 34_464
    assert ledger.bytes == 4 * 2 * 13 * 64 * 64 + 10 * 34_464, "78 bits are 10 bytes"


def test_each_level_takes_what_the_levels_before_it_leave():
    rows = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
    quantizer = ResidualQuantizer(levels=4, bits=3)
    learned = quantizer.learn(rows, np.random.default_rng(1))
    rest = rows.astype(np.float64)
    for level, centroids in enumerate(learned["centroids"].reshape(4, 8, 6)):
        codes = learned["codes"][:, level]
        for code in range(8):
            np.testing.assert_allclose(centroids[code], rest[codes == code].mean(0), rtol=1e-4, atol=1e-6)
        before, rest = rest, rest - centroids[codes]
        assert (rest**2).sum() < (before**2).sum()
    np.testing.assert_allclose(quantizer.decode(learned), rows - rest, atol=1e-5)


def test_one_level_is_one_block_of_a_product_quantizer():
    rows = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)
    packed = [of(1, 5).pack(rows, np.random.default_rng(1)) for of in (ResidualQuantizer, ProductQuantizer)]
    for name in ("centroids", "codes"):
        np.testing.assert_array_equal(packed[0][name], packed[1][name])


@pytest.mark.parametrize("bits", [4, 9])
def test_finetuning_keeps_the_codes_and_moves_the_centroids(planted, bits):
    rq = method(finetune=True, levels=2, bits=bits)
    tables = rq.fit(planted.train, Budget.parse(None, "parameters", 9000, 9000, 16), stream(0, "assign"))
    trainer = Trainer(MF(planted.train, MF.Config()), Evaluator(planted), QUICK, 0, torch.device("cpu"), progress=False)
    assert rq.search(trainer.initialize(tables), trainer) is tables and isinstance(tables, ResidualTables)
    before = {name: value.clone() for name, value in tables.state_dict().items()}
    for side, output in zip(tables.sides.values(), tables(), strict=True):
        np.testing.assert_allclose(tables.quantizer.decode(side.learned()), output.detach().numpy(), atol=1e-5)
    learned = trainer.validate(tables)
    trainer.fit(tables)
    for side, codebook in tables.sides.items():
        assert torch.equal(codebook.codes, before[f"{side}.codes"])
        assert not torch.equal(codebook.centroids, before[f"{side}.centroids"])
    assert trainer.validate(tables) >= learned
    again = ResidualTables.from_export(tables.export())
    assert all(torch.equal(one, other) for one, other in zip(tables(), again(), strict=True))
