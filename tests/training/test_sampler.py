import numpy as np
import torch

from baco.numerics.triples import Batch
from baco.training.sampler import Sampler


def test_an_epoch_visits_each_interaction_once(planted):
    sampler = Sampler(planted.train, 1000, torch.Generator().manual_seed(0))
    epochs = [list(sampler.epoch()) for _ in range(2)]
    orders = []
    for batches in epochs:
        assert len(batches) == sampler.num_batches
        assert {len(batch.users) for batch in batches[:-1]} == {1000}
        users, items, negatives = (torch.cat(part).long().numpy() for part in zip(*batches, strict=True))
        keys = users * planted.num_items + items
        np.testing.assert_array_equal(np.sort(keys), np.sort(planted.train.keys()))
        orders.append(keys)
        counts = np.bincount(negatives, minlength=planted.num_items)
        expected = len(negatives) / planted.num_items
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi_square - planted.num_items) < 5 * np.sqrt(2 * planted.num_items), "negatives are not uniform"
    assert (orders[0] != orders[1]).any()


def test_batches_are_int32_on_the_generators_device(planted):
    batch = next(Sampler(planted.train, 64, torch.Generator()).epoch())
    assert isinstance(batch, Batch)
    assert {part.dtype for part in batch} == {torch.int32}
