"""The processes that train one model together, as torchrun starts them: who does what, and what they tell each other.

Each holds the whole model and draws the same batches. It takes its part of each, and the gradients of all are added up
before a step, so that all make the same step. The first process alone reads and writes files of a run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from baco.errors import UserError

T = TypeVar("T")

WAIT = timedelta(days=1)  # at most, for another process, which may be clustering; that one has died is noticed at once
FAILURES = "baco/failures"  # in the store that all share: how many have failed


@dataclass(frozen=True)
class Processes:
    """All of them, seen by one. What they exchange is a `UserError` where another one has ended.

    Attributes
    ----------
    rank, count : int
        The number of this one, from 0, and of all.
    local_rank, local_count : int
        The same on its machine.
    store : Store, optional
        Values that all share; None where there is one process.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    store: dist.Store | None = None

    @classmethod
    def join(cls) -> Processes:
        """Wait for the processes that torchrun started, of which this is one; `ALONE` where it started no other.

        Raises
        ------
        UserError
            When variables that torchrun sets are missing.
        """
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return ALONE
        try:
            local_rank, local_count = (int(os.environ[key]) for key in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
            store, rank, count = next(rendezvous("env://"))
        except (KeyError, ValueError) as error:
            message = f"WORLD_SIZE is more than 1, but other variables of torchrun are not as it sets them ({error})"
            raise UserError(f"{message}; start the processes by torchrun, or unset WORLD_SIZE") from None
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=WAIT)
        return cls(rank, count, local_rank, local_count, store)

    def leave(self, failed: bool = False) -> None:
        """Part from the others; after a failure by ending at once, with status 1, as they may wait for this process."""
        if failed:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)  # at a usual exit torch's threads would be there still, and abort it
        if self.count > 1:
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this is the process that reads, writes and shows what belongs to all."""
        return self.rank == 0

    def part(self, size: int) -> slice:
        """This process's places among `size`; the parts of all differ by one place at most."""
        return slice(self.rank * size // self.count, (self.rank + 1) * size // self.count)

    def of_leader(self, function: Callable[[], T]) -> T:
        """What a function gives that the first process calls, for all. Tensors in it must lie on the host."""
        if self.count == 1:
            return function()
        box: list[Any] = [function() if self.leads else None]
        with _exchange():
            dist.broadcast_object_list(box)
        return box[0]

    def after_leader(self, function: Callable[[], T]) -> T:
        """What a function gives that every process calls, the first one before the others: it may fill a cache."""
        mine = function() if self.leads else None
        self.of_leader(lambda: None)
        return function() if mine is None else mine

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        with _exchange():
            dist.all_gather_object(values, value)
        return values

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each of some contiguous tensors by the sum of those of all processes."""
        if self.count > 1:
            with _exchange():
                for tensor in tensors:
                    dist.all_reduce(tensor)

    def take_from_leader(self, tensors: Iterable[Tensor]) -> None:
        """Give some contiguous tensors the values that they have in the first process."""
        if self.count > 1:
            for memory in map(_bytes_of, tensors):
                with _exchange():
                    dist.broadcast(memory, 0)

    def are_same(self, tensors: Iterable[Tensor]) -> bool:
        """Whether tensors have the same bytes everywhere, as far as their sum tells."""
        if self.count == 1:
            return True
        return len(set(self.gather(sum(int(_bytes_of(tensor).sum(dtype=torch.int64)) for tensor in tensors)))) == 1

    def is_first_to_fail(self) -> bool:
        """Whether no other process has failed before: that one says why, and the others' errors follow from its own."""
        if self.store is None:
            return True
        try:
            return self.store.add(FAILURES, 1) == 1
        except RuntimeError:  # who kept the store has gone
            return False


ALONE = Processes()


@contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise UserError(f"another process has ended: what it or torchrun says tells why ({error})") from error


def _bytes_of(tensor: Tensor) -> Tensor:
    """The same memory as (n,) bytes, which can be sent whatever the type."""
    return tensor.detach().view(-1).view(torch.uint8)
