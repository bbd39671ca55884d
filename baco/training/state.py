"""The state of a training: all that changes from epoch to epoch, so that it can be saved and continued."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from baco.embedding.tables import EmbeddingTables
from baco.training.sampler import Sampler


@dataclass
class EarlyStopping:
    """Stops a training after `patience` validations in a row that are no better than the best one.

    Attributes
    ----------
    patience : int
    best_value : float
    best_epoch : int
        The epoch (counted from 1) of the best validation; 0: before the first.
    failures : int
        Validations since the best one.
    """

    patience: int
    best_value: float = -1.0
    best_epoch: int = 0
    failures: int = 0

    @property
    def exhausted(self) -> bool:
        """Whether to stop."""
        return self.failures >= self.patience

    def update(self, value: float, epoch: int) -> bool:
        """Count the validation that followed an epoch; returns whether it is the best so far."""
        if value > self.best_value:
            self.best_value, self.best_epoch, self.failures = value, epoch, 0
            return True
        self.failures += 1
        return False


@dataclass
class FitReport:
    """What a training did.

    Attributes
    ----------
    epochs, steps : int
        How many were trained.
    best_epoch : int
        The epoch (counted from 1) whose state was restored; 0: the state before the first.
    best_value : float
        Its validation recall@20.
    training_seconds, validation_seconds : float
    history : list of (epoch, its mean loss, validation recall@20), one entry per validation
    continued_after : list of int
        The epochs after which an interrupted training went on from a checkpoint. Seconds count what is in the result.
    """

    epochs: int = 0
    steps: int = 0
    best_epoch: int = 0
    best_value: float = -1.0
    training_seconds: float = 0.0
    validation_seconds: float = 0.0
    history: list[tuple[int, float, float]] = field(default_factory=list)
    continued_after: list[int] = field(default_factory=list)


class TrainingState:
    """Everything that a training changes.

    Attributes
    ----------
    tables : EmbeddingTables
    optimizer : Optimizer
    scheduler : LRScheduler
    sampler : Sampler
        Its generator is part of the state.
    stopping : EarlyStopping
    report : FitReport
    best_state : dict of str to Tensor
        A copy of the tables' state at the best validation; at first, of the one they came in.
    """

    def __init__(
        self,
        tables: EmbeddingTables,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        sampler: Sampler,
        stopping: EarlyStopping,
    ):
        self.tables = tables
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.sampler = sampler
        self.stopping = stopping
        self.report = FitReport()
        self.keep_best()

    def keep_best(self) -> None:
        """Remember the present tables as the best ones."""
        self.best_state: dict[str, Tensor] = copy.deepcopy(self.tables.state_dict())

    def restore_best(self) -> None:
        """Give the tables their best state, and tell the report which it is."""
        self.tables.load_state_dict(self.best_state)
        self.report.best_epoch, self.report.best_value = self.stopping.best_epoch, self.stopping.best_value

    def state_dict(self) -> dict:
        """Tensors and plain values; they share memory with the training."""
        return {
            "tables": self.tables.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.sampler.generator.get_state(),
            "stopping": asdict(self.stopping),
            "report": asdict(self.report),
            "best_state": self.best_state,
        }

    def load_state_dict(self, saved: dict) -> None:
        """Continue from what `state_dict` gave for the same tables, protocol and data."""
        self.tables.load_state_dict(saved["tables"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.sampler.generator.set_state(saved["generator"].cpu())
        self.stopping = EarlyStopping(**saved["stopping"])
        self.report = FitReport(**saved["report"])
        self.best_state = saved["best_state"]
