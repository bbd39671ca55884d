"""The trainer: the one loop that trains every method on every backbone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from baco.backbones.backbone import Backbone
from baco.compressors.runner import Tables
from baco.device import CPU, synchronize
from baco.embedding.codebook import CodebookTables
from baco.embedding.scaled import ScaledTables
from baco.embedding.start import first_values
from baco.embedding.tables import EmbeddingTables
from baco.errors import SettingError, UserError
from baco.evaluation.evaluator import Evaluator, RankingReport
from baco.evaluation.metrics import CUTOFFS
from baco.graph import Biadjacency
from baco.losses.bpr import BPR
from baco.losses.loss import Loss
from baco.numerics.triples import Batch
from baco.processes import ALONE, Processes
from baco.rng import torch_stream
from baco.training.checkpoint import Checkpoint
from baco.training.lazy_adamw import LazyAdamW, check_lazy_rows
from baco.training.protocol import Protocol
from baco.training.sampler import Sampler
from baco.training.state import EarlyStopping, FitReport, TrainingState

log = logging.getLogger(__name__)

SELECTION_CUTOFF = 20  # early stopping looks at validation recall@20, as in the paper


class Trainer:
    """Trains embedding tables on a backbone.

    Any loss, Adam, early stopping on validation recall@20, best state restored. Each `fit` draws its batches from the
    start of the `sampling` stream of the seed, and leaves nothing behind but the trained tables.

    Parameters
    ----------
    start : str
        How `initialize` draws first values, see `first_values`.
    full_checkpoint : Checkpoint, optional
        For the full model, where a method trains it before the training proper.
    loss : Loss
        With the backbone's score.
    item_scale : (num_items,) float16, optional
        Of all tables that are trained or ranked, those within a search included, see `ScaledTables`.
    memory : dict, optional
        See `Runner`.
    lazy_rows : bool
        Whether a step updates the rows that its batch reads, and the others only when they are read next
        (`LazyAdamW`): for tables of codes, on a CPU, and without propagation, coupled decay and losses over all pairs.
    processes : Processes
        That train together, each of them by a trainer like this one, and make the same steps.

    Attributes
    ----------
    continued_seconds : float
        What trainings that went on from a checkpoint had taken before, in other processes.
    """

    def __init__(
        self,
        backbone: Backbone,
        evaluator: Evaluator,
        protocol: Protocol,
        seed: int,
        device: torch.device,
        progress: bool = True,
        start: str = "normal",
        full_checkpoint: Checkpoint | None = None,
        loss: Loss = BPR(),
        item_scale: np.ndarray | None = None,
        memory: dict[str, Any] | None = None,
        lazy_rows: bool = False,
        processes: Processes = ALONE,
    ):
        self.backbone = backbone
        self.evaluator = evaluator
        self.protocol = protocol
        self.loss = loss
        self.seed = seed
        self.device = device
        self.progress = progress
        self.start = start
        self.full_checkpoint = full_checkpoint
        self.item_scale = item_scale
        self.memory = {} if memory is None else memory
        self.lazy_rows = lazy_rows
        self.processes = processes
        self.continued_seconds = 0.0

    @property
    def train(self) -> Biadjacency:
        """The training interactions."""
        return self.backbone.train

    @property
    def max_epochs(self) -> int:
        """Most epochs of a training, as the protocol says."""
        return self.protocol.max_epochs

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        num_edges = self.train.num_edges
        return -(-num_edges // self.protocol.pairs_per_step(num_edges))

    def fit(
        self, tables: EmbeddingTables, max_epochs: int | None = None, checkpoint: Checkpoint | None = None
    ) -> FitReport:
        """Train tables, which lie on the trainer's device, and restore their best state.

        Parameters
        ----------
        max_epochs : int, optional
            Instead of the protocol's, for short trainings within a search.
        checkpoint : Checkpoint, optional
            Where to save the state of the training at times, and to continue from: to the same final state as without
            an interruption, bit for bit on a CPU.

        Raises
        ------
        UserError
            When the training diverges, and for `lazy_rows` where they cannot be.
        """
        max_epochs = self.max_epochs if max_epochs is None else max_epochs
        tables = self.scaled(tables)
        state = self._begin(tables, max_epochs, checkpoint)
        with self._progress_bar(state.report.epochs, max_epochs) as bar:
            for epoch in range(state.report.epochs, max_epochs):
                loss = self._train_epoch(state)
                bar.update()
                if epoch % self.protocol.eval_every == 0 or epoch + 1 == max_epochs:
                    value = self._validate_epoch(state, float(loss))
                    bar.set_postfix({"loss": f"{float(loss):.4f}", "val": f"{100 * value:.2f} %"})
                    if state.stopping.exhausted:
                        break
                if checkpoint is not None and self.processes.leads and checkpoint.due():
                    checkpoint.save(state.state_dict())
        state.restore_best()
        tables.on_training_end()
        self.backbone.refresh = None
        self.backbone.attach(tables)
        return state.report

    def fit_full(self, tables: EmbeddingTables) -> FitReport:
        """Train the full model, for a method that starts from it; parameters and errors are those of `fit`."""
        return self.fit(tables, checkpoint=self.full_checkpoint)

    def initialize(self, tables: Tables) -> Tables:
        """The tables with their first values, on the trainer's device."""
        first_values(tables, self.train, self.protocol.init_std, self.start, self.seed)
        return tables.to(self.device)

    def scaled(self, tables: EmbeddingTables) -> EmbeddingTables:
        """The tables, which lie on the trainer's device, as they are trained and ranked: with scaled items or not."""
        if self.item_scale is None or isinstance(tables, ScaledTables):
            return tables
        return ScaledTables(tables, self.item_scale).to(self.device)

    def validate(self, tables: EmbeddingTables) -> float:
        """Validation recall@20, a fraction."""
        return self.validation_means(tables, (SELECTION_CUTOFF,))[f"recall@{SELECTION_CUTOFF}"]

    def validation_means(self, tables: EmbeddingTables, cutoffs: tuple[int, ...]) -> dict[str, float]:
        """Means over the users of the validation split, by name such as 'recall@20', at some cutoffs."""
        return self.evaluate(tables, "val", max(cutoffs)).means(cutoffs)

    @torch.no_grad()
    def evaluate(self, tables: EmbeddingTables, split: str, k: int = max(CUTOFFS)) -> RankingReport:
        """Rank the held-out items of a split; final embeddings are computed once.

        Raises
        ------
        UserError
            When an embedding is not finite.
        """
        try:
            return self.evaluator.evaluate(*self.backbone.final_embeddings(self.scaled(tables)), split, k)
        except FloatingPointError as error:
            raise UserError(f"{error}; lower the protocol's learning_rate={self.protocol.learning_rate}") from None

    def _begin(self, tables: EmbeddingTables, max_epochs: int, checkpoint: Checkpoint | None) -> TrainingState:
        """The state before the next epoch: the first one, or the one after the last that the checkpoint knows of."""
        protocol = self.protocol
        self.processes.take_from_leader(_values(tables))  # first values and codes may be rounded differently elsewhere
        generator = torch_stream(self.seed, "sampling", self.device)
        sampler = Sampler(self.train, protocol.pairs_per_step(self.train.num_edges), generator, self.loss.num_negatives)
        optimizer = self._optimizer(tables, sampler.num_batches)
        scheduler = LambdaLR(optimizer, protocol.rate_factor(max_epochs * sampler.num_batches))
        state = TrainingState(tables, optimizer, scheduler, sampler, EarlyStopping(protocol.patience))
        saved = None if checkpoint is None else self._load(checkpoint)
        if saved is not None:
            state.load_state_dict(saved)
            report = state.report
            report.continued_after.append(report.epochs)
            self.continued_seconds += report.training_seconds + report.validation_seconds
            log.info("continuing after epoch %d", report.epochs)
        self.backbone.attach(tables)
        if tables.learned and state.report.epochs == 0:
            state.stopping.best_value = self._timed_validation(state)
        return state

    def _load(self, checkpoint: Checkpoint) -> dict | None:
        """The state that the first process has read; sent to others, its tensors lie on the host."""
        return self.processes.of_leader(lambda: checkpoint.load(self.device if self.processes.count == 1 else CPU))

    def _progress_bar(self, epochs: int, max_epochs: int) -> tqdm:
        disable = None if self.progress else True
        return tqdm(total=max_epochs, initial=epochs, unit="epoch", disable=disable, leave=False)

    def _optimizer(self, tables: EmbeddingTables, steps_per_epoch: int) -> Optimizer:
        protocol = self.protocol
        if self.lazy_rows:
            self._check_lazy(tables)
        elif protocol.decay_per_epoch == 0:
            groups = tables.param_groups(protocol.learning_rate, protocol.weight_decay)
            return torch.optim.Adam(groups, fused=True)
        decay = protocol.decay_per_epoch * self.backbone.own_share / (protocol.learning_rate * steps_per_epoch)
        if self.lazy_rows:
            optimizer = LazyAdamW(tables.param_groups(protocol.learning_rate, decay))
            self.backbone.refresh = optimizer.catch_up
            return optimizer
        return torch.optim.AdamW(tables.param_groups(protocol.learning_rate, decay), fused=True)

    def _check_lazy(self, tables: EmbeddingTables) -> None:
        """Refuse tables that `LazyAdamW` does not train; see `check_lazy_rows` for the rest."""
        check_lazy_rows(self.protocol, self.loss, self.backbone.num_layers, self.device)
        if type(tables) is not CodebookTables:  # a subclass may change rows in its hooks
            raise SettingError("lazy_rows", True, "is for methods that only assign codes, without quantize")
        if self.protocol.decay_per_epoch >= self.steps_per_epoch:
            raise SettingError("lazy_rows", True, "needs protocol.decay_per_epoch below the steps of an epoch")

    def _train_epoch(self, state: TrainingState) -> Tensor:
        """One pass over the interactions; returns the mean loss of its steps, still on the device."""
        start = time.perf_counter()
        total = torch.zeros((), device=self.device)
        for batch in state.sampler.epoch():
            loss = self._loss(state.tables, batch)
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.processes.add_up(_gradients(state.tables))
            state.optimizer.step()
            state.scheduler.step()
            state.tables.on_step_end()
            total += loss.detach()
        if isinstance(state.optimizer, LazyAdamW):
            state.optimizer.settle()
        self._end_epoch(state)
        synchronize(self.device)
        state.report.training_seconds += time.perf_counter() - start
        state.report.epochs += 1
        state.report.steps += state.sampler.num_batches
        self.processes.add_up([total])
        return total / state.sampler.num_batches

    def _loss(self, tables: EmbeddingTables, batch: Batch) -> Tensor:
        """The loss of a batch; of several processes' each, its part, and the sum over them is the loss."""
        if self.processes.count == 1:
            return self._mean_loss(tables, batch)
        size = len(batch.users)
        mine = self.processes.part(size)
        one_at_least = slice(mine.start, max(mine.stop, mine.start + 1))  # for a mean, even if it counts nothing
        loss = self._mean_loss(tables, self.loss.part(batch, one_at_least))
        return loss * ((mine.stop - mine.start) / size)

    def _mean_loss(self, tables: EmbeddingTables, batch: Batch) -> Tensor:
        loss = self.loss(self.backbone, tables, batch)
        extra = tables.auxiliary_loss()
        return loss if extra is None else loss + extra

    def _end_epoch(self, state: TrainingState) -> None:
        """Let the tables replace parameters; what Adam knew of the old ones is forgotten."""
        tables = state.tables
        replaced = tables.on_epoch_end(state.report.epochs, partial(self.backbone.propagate, tables))
        if replaced is None:
            return
        for parameter in replaced:
            state.optimizer.state.pop(parameter, None)
        self.processes.take_from_leader(_values(tables))
        self.backbone.attach(tables)

    def _validate_epoch(self, state: TrainingState, loss: float) -> float:
        """Validate the tables, which may be the best so far; returns recall@20."""
        if not self.processes.are_same(_values(state.tables)):
            raise UserError("the processes trained different tables; train this method in one process")
        value, report = self._timed_validation(state), state.report
        report.history.append((report.epochs, loss, value))
        log.debug("epoch %d: loss %.5f, validation recall %.5f", *report.history[-1])
        if state.tables.selectable() and state.stopping.update(value, report.epochs):
            state.keep_best()
        return value

    def _timed_validation(self, state: TrainingState) -> float:
        start = time.perf_counter()
        value = self.validate(state.tables)
        state.report.validation_seconds += time.perf_counter() - start
        return value


def _values(tables: EmbeddingTables) -> Iterator[Tensor]:
    """All tensors that tables consist of."""
    yield from tables.parameters()
    yield from tables.buffers()


def _gradients(tables: EmbeddingTables) -> Iterator[Tensor]:
    return (parameter.grad for parameter in tables.parameters() if parameter.grad is not None)
