"""The trainer: the one loop that trains every method on every backbone."""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import asdict, dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from tqdm import tqdm

from baco.backbones.backbone import Backbone
from baco.device import synchronize
from baco.embedding.start import first_values
from baco.embedding.tables import EmbeddingTables
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator, RankingReport
from baco.evaluation.metrics import CUTOFFS
from baco.numerics.triples import Batch
from baco.rng import torch_stream
from baco.training.checkpoint import Checkpoint
from baco.training.loss import bpr_loss
from baco.training.protocol import Protocol
from baco.training.sampler import Sampler

log = logging.getLogger(__name__)

SELECTION_CUTOFF = 20  # early stopping looks at validation recall@20, as in the paper


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
    failures : int
        Validations since the best one.
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
    failures: int = 0
    history: list[tuple[int, float, float]] = field(default_factory=list)
    continued_after: list[int] = field(default_factory=list)


class Trainer:
    """Trains embedding tables on a backbone.

    BPR with uniform negatives, Adam, early stopping on validation recall@20, best state restored. Each `fit` draws its
    batches from the start of the `sampling` stream of the seed, and leaves nothing behind but the trained tables.

    Parameters
    ----------
    start : str
        Of tables that are `initialized`, see `first_values`.
    full_checkpoint : Checkpoint, optional
        For the full model, where a method trains it before the training proper.

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
    ):
        self.backbone = backbone
        self.evaluator = evaluator
        self.protocol = protocol
        self.seed = seed
        self.device = device
        self.progress = progress
        self.start = start
        self.full_checkpoint = full_checkpoint
        self.continued_seconds = 0.0

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
            When the training diverges.
        """
        protocol, report = self.protocol, FitReport()
        max_epochs = protocol.max_epochs if max_epochs is None else max_epochs
        sampler = Sampler(self.backbone.train, protocol.batch_size, torch_stream(self.seed, "sampling", self.device))
        optimizer = self._optimizer(tables, sampler.num_batches)
        scheduler = LambdaLR(optimizer, protocol.rate_factor(max_epochs * sampler.num_batches))
        best_state = copy.deepcopy(tables.state_dict())
        saved = None if checkpoint is None else checkpoint.load(self.device)
        if saved is not None:
            for part, name in ((tables, "tables"), (optimizer, "optimizer"), (scheduler, "scheduler")):
                part.load_state_dict(saved[name])
            sampler.generator.set_state(saved["generator"].cpu())
            best_state, report = saved["best_state"], FitReport(**saved["report"])
            report.continued_after.append(report.epochs)
            self.continued_seconds += report.training_seconds + report.validation_seconds
            log.info("continuing after epoch %d", report.epochs)
        self.backbone.attach(tables)
        if tables.learned and report.epochs == 0:
            start = time.perf_counter()
            report.best_value = self.validate(tables)
            report.validation_seconds += time.perf_counter() - start
        with tqdm(
            total=max_epochs,
            initial=report.epochs,
            unit="epoch",
            disable=None if self.progress else True,
            leave=False,
        ) as bar:
            for epoch in range(report.epochs, max_epochs):
                start = time.perf_counter()
                loss = self._train_epoch(tables, sampler, optimizer, scheduler)
                self._end_epoch(tables, epoch, optimizer)
                synchronize(self.device)
                report.training_seconds += time.perf_counter() - start
                report.epochs, report.steps = epoch + 1, report.steps + sampler.num_batches
                bar.update()
                if epoch % protocol.eval_every == 0 or epoch + 1 == max_epochs:
                    start = time.perf_counter()
                    value = self.validate(tables)
                    report.validation_seconds += time.perf_counter() - start
                    report.history.append((epoch + 1, float(loss), value))
                    log.debug("epoch %d: loss %.5f, validation recall %.5f", *report.history[-1])
                    bar.set_postfix({"loss": f"{float(loss):.4f}", "val": f"{100 * value:.2f} %"})
                    selectable = tables.selectable()
                    report.failures += selectable
                    if selectable and value > report.best_value:
                        report.best_value, report.best_epoch, report.failures = value, epoch + 1, 0
                        best_state = copy.deepcopy(tables.state_dict())
                    elif report.failures >= protocol.patience:
                        break
                if checkpoint is not None and checkpoint.due():
                    checkpoint.save(
                        {
                            "tables": tables.state_dict(),
                            "best_state": best_state,
                            "optimizer": optimizer.state_dict(),
                            "scheduler": scheduler.state_dict(),
                            "generator": sampler.generator.get_state(),
                            "report": asdict(report),
                        }
                    )
        tables.load_state_dict(best_state)
        tables.on_training_end()
        self.backbone.attach(tables)
        return report

    def initialized(self, tables: EmbeddingTables) -> EmbeddingTables:
        """The tables with their first values, on the trainer's device."""
        first_values(tables, self.backbone.train, self.protocol.init_std, self.start, self.seed)
        return tables.to(self.device)

    def validate(self, tables: EmbeddingTables) -> float:
        """Validation recall@20, a fraction."""
        report = self.evaluate(tables, "val", SELECTION_CUTOFF)
        return report.means((SELECTION_CUTOFF,))[f"recall@{SELECTION_CUTOFF}"]

    @torch.no_grad()
    def evaluate(self, tables: EmbeddingTables, split: str, k: int = max(CUTOFFS)) -> RankingReport:
        """Rank the held-out items of a split; final embeddings are computed once.

        Raises
        ------
        UserError
            When an embedding is not finite.
        """
        try:
            return self.evaluator.evaluate(*self.backbone.final_embeddings(tables), split, k)
        except FloatingPointError as error:
            raise UserError(f"{error}; lower protocol.learning_rate={self.protocol.learning_rate}") from None

    def _optimizer(self, tables: EmbeddingTables, steps_per_epoch: int) -> Optimizer:
        protocol = self.protocol
        if protocol.decay_per_epoch == 0:
            groups = tables.param_groups(protocol.learning_rate, protocol.weight_decay)
            return torch.optim.Adam(groups, fused=True)
        decay = protocol.decay_per_epoch * self.backbone.own_share / (protocol.learning_rate * steps_per_epoch)
        return torch.optim.AdamW(tables.param_groups(protocol.learning_rate, decay), fused=True)

    def _train_epoch(
        self, tables: EmbeddingTables, sampler: Sampler, optimizer: Optimizer, scheduler: LRScheduler
    ) -> Tensor:
        """One pass over the interactions; returns the mean loss of its steps, still on the device."""
        total = torch.zeros((), device=self.device)
        for batch in sampler.epoch():
            loss = self._loss(tables, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
            tables.on_step_end()
            total += loss.detach()
        return total / sampler.num_batches

    def _loss(self, tables: EmbeddingTables, batch: Batch) -> Tensor:
        loss = bpr_loss(self.backbone.score_differences(tables, batch), self.protocol.loss_epsilon)
        extra = tables.auxiliary_loss()
        return loss if extra is None else loss + extra

    def _end_epoch(self, tables: EmbeddingTables, epoch: int, optimizer: Optimizer) -> None:
        """Let the tables replace parameters; what Adam knew of the old ones is forgotten."""
        replaced = tables.on_epoch_end(epoch, partial(self.backbone.propagate, tables))
        if replaced is None:
            return
        for parameter in replaced:
            optimizer.state.pop(parameter, None)
        self.backbone.attach(tables)
