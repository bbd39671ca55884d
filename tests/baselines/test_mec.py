"""MEC: its objective against the formula, term by term, and what learning by it does."""

import numpy as np
import pytest
import torch

from baco.embedding.product_codes import ProductQuantizer
from baco.errors import UserError
from baselines.mec import Mec, Objective

QUANTIZER = ProductQuantizer(blocks=2, bits=2)


def example(n=40, dim=5):
    generator = torch.Generator().manual_seed(0)
    x, centroids = torch.randn(n, dim, generator=generator), torch.randn(4, dim, generator=generator)
    return x, torch.randint(1, 6, (n,), generator=generator).float(), centroids


def by_hand(x, r, centroids, balance, contrast, changed, others) -> float:
    """In loops, with the changed block and the random centroid of each row given."""
    x, r, centroids = (array.double().numpy() for array in (x, r, centroids))
    blocks = [[0, 1, 2], [3, 4]]
    total, loss, p = r.sum(), 0.0, np.zeros((2, 4))
    contrasts = []
    for n in range(len(x)):
        y, z = np.zeros(5), np.zeros(5)
        for m, columns in enumerate(blocks):
            distances = np.array([((x[n, columns] - c[columns]) ** 2).sum() for c in centroids])
            p[m, distances.argmin()] += r[n] / total
            y[columns] = centroids[distances.argmin()][columns]
            z[columns] = centroids[others[n]][columns] if changed[n] == m else y[columns]
        loss += r[n] * ((x[n] - y) ** 2).sum() / total

        def cosine(a, b):
            return (a @ b) / np.linalg.norm(a) / np.linalg.norm(b)

        positive, negative = np.exp(cosine(x[n], y)), np.exp(cosine(x[n], z))
        contrasts.append(-np.log(positive / (positive + negative)))
    entropy = [-(row * np.log(row)).sum() for row in p]
    assert p.min() > 0
    return loss + balance * np.mean([np.log(4) - h for h in entropy]) + contrast * np.mean(contrasts)


@pytest.mark.parametrize(("balance", "contrast"), [(0.0, 0.0), (0.7, 0.0), (0.0, 0.3), (0.7, 0.3)])
def test_the_objective_is_the_formula(balance, contrast):
    x, r, centroids = example()
    objective = Objective(QUANTIZER, centroids, balance, contrast)
    objective.set_temperatures(x)
    generator = torch.Generator().manual_seed(1)
    changed = torch.randint(2, (40, 1), generator=generator)[:, 0].tolist()
    others = torch.randint(4, (40, 1), generator=generator)[:, 0].tolist()
    expected = by_hand(x, r, centroids, balance, contrast, changed, others)
    found = objective(x, r, torch.Generator().manual_seed(1))
    assert found.item() == pytest.approx(expected, rel=2e-5)
    found.backward()
    assert objective.centroids.grad.isfinite().all() and objective.centroids.grad.abs().sum() > 0


def test_every_term_moves_the_centroids():
    """In the published program the entropy term has no gradient."""
    x, r, centroids = example()
    gradients = []
    for balance, contrast in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):
        objective = Objective(QUANTIZER, centroids, balance, contrast)
        objective(x, r, torch.Generator().manual_seed(1)).backward()
        gradients.append(objective.centroids.grad)
    assert not torch.allclose(gradients[0], gradients[1]) and not torch.allclose(gradients[0], gradients[2])


def test_learning_lowers_the_objective_and_balance_evens_the_codes():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((600, 8)).astype(np.float32) * rng.lognormal(-1, 1, (600, 1)).astype(np.float32)
    degrees, quantizer = rng.zipf(1.6, 600), ProductQuantizer(2, 3)
    entropies, errors = [], []
    for settings in ({"code_epochs": 0}, {"balance": 0.0}, {"balance": 1.0}):
        mec = Mec(Mec.Config(code_batch=200, code_rate=0.01, **settings))
        learned = mec.learn(quantizer, rows, degrees, np.random.default_rng(1))
        centroids, codes = learned["centroids"], learned["codes"]
        assert codes.shape == (600, 2) and centroids.shape == (8, 8)
        weights = np.maximum(1, np.floor(np.log2(degrees)))
        p = np.stack([np.bincount(codes[:, m], weights, 8) for m in range(2)]) / weights.sum()
        entropies.append(-(p * np.log(np.maximum(p, 1e-30))).sum(1).mean())
        errors.append((weights * ((quantizer.decode(learned) - rows) ** 2).sum(1)).sum())
    assert errors[1] <= 1.02 * errors[0]
    assert entropies[2] > entropies[1] + 0.05


@pytest.mark.parametrize("bits", [8, 9, 10])
def test_longer_codes_come_nearer(bits):
    rows = np.random.default_rng(0).standard_normal((1500, 8)).astype(np.float32)
    quantizer = ProductQuantizer(4, bits)
    learned = Mec(Mec.Config(code_epochs=1)).learn(quantizer, rows, np.ones(1500), np.random.default_rng(1))
    codes = learned["codes"]
    assert codes.dtype == (np.uint8 if bits == 8 else np.int16) and codes.max() >= 2**bits - 10
    assert ((quantizer.decode(learned) - rows) ** 2).sum() / (rows**2).sum() < {8: 0.02, 9: 0.008, 10: 0.002}[bits]


@pytest.mark.parametrize("key", ["code_batch", "code_rate", "code_epochs", "balance", "contrast"])
def test_impossible_settings_are_named(key):
    with pytest.raises(UserError, match=f"^{key}=-1"):
        Mec.Config(**{key: -1})
