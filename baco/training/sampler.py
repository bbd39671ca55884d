"""Training batches: each interaction once per epoch, with as many uniform negatives as the loss wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from baco.graph import Biadjacency
from baco.numerics.triples import Batch


class Sampler:
    """Shuffles the interactions anew for each epoch and cuts them into batches, on the device, without a Python loop.

    A negative may be an item that the user has, as in the published code: it is uniform over all items.

    Parameters
    ----------
    num_negatives : function
        From the number of pairs in a batch to the number of its negatives.
    """

    def __init__(
        self,
        train: Biadjacency,
        batch_size: int,
        generator: torch.Generator,
        num_negatives: Callable[[int], int] = lambda pairs: pairs,
    ):
        self.users = torch.as_tensor(train.users, device=generator.device)
        self.items = torch.as_tensor(train.items, device=generator.device)
        self.num_items = train.num_items
        self.batch_size = batch_size
        self.generator = generator
        self.num_negatives = num_negatives

    @property
    def num_batches(self) -> int:
        """Batches of an epoch; the last may be smaller."""
        return -(-len(self.users) // self.batch_size)

    def epoch(self) -> Iterator[Batch]:
        device = self.generator.device
        count = len(self.users)
        dtype = torch.int32 if count < 2**31 and device.type == "cpu" else torch.int64  # on a GPU it decides the order
        order = torch.randperm(count, generator=self.generator, device=device, dtype=dtype)
        for chosen in order.split(self.batch_size):
            size = (self.num_negatives(len(chosen)),)
            negatives = torch.randint(self.num_items, size, generator=self.generator, device=device, dtype=torch.int32)
            yield Batch(self.users.index_select(0, chosen), self.items.index_select(0, chosen), negatives)
