"""One experiment, from a configuration to a record: the only place where the parts meet."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baco.compressors.budget import Budget
from baco.compressors.compressor import CodeCompressor, Compressor
from baco.compressors.popularity import popularity_scale, remaining_budget, scale_items
from baco.compressors.scoring import ScoringMethod
from baco.data.interactions import SPLITS, Interactions
from baco.device import check_memory, peak_memory, reset_peak_memory, resolve_device, set_threads, synchronize
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import SIDES, Assignment
from baco.embedding.cost import FLOAT_BYTES, Ledger, code_ledger
from baco.embedding.quantized import QuantizedTables
from baco.embedding.scaled import ScaledTables
from baco.embedding.tables import EmbeddingTables
from baco.errors import SettingError, UnrecordedError, UserError, keys_under
from baco.evaluation.distance import distances, embeddings
from baco.evaluation.evaluator import Evaluator, RankingReport
from baco.evaluation.groups import means_by_activity
from baco.evaluation.ranking import rank_items, rank_scores
from baco.files import check_writable
from baco.graph import SQUARE, Biadjacency
from baco.numerics.triples import Batch
from baco.processes import ALONE, Processes
from baco.rng import stream
from baco.runs.assignment_cache import cached_assignment, describe_assignment
from baco.runs.lock import hold_lock
from baco.runs.provenance import code_version, environment
from baco.runs.record import (
    RECORD_SCHEMA,
    RESULTS_VERSION,
    describe_convergence,
    load_record,
    pack_hits,
    record_id,
    record_name,
    save_record,
)
from baco.runs.settings import RunConfig
from baco.runs.tuned import TUNED_FOR, TUNED_PROTOCOL, tuned_file
from baco.serving.export import check_replaceable, export_model, exported_config, has_ids_of, load_full_model
from baco.training.checkpoint import Checkpoint
from baco.training.lazy_adamw import LazyAdamW, check_lazy_rows
from baco.training.trainer import Trainer

log = logging.getLogger(__name__)

COPIES = 5  # of the tables' floats in a training: themselves, gradients, Adam's two moments and the best state
GROUP_CUTOFF = 20  # of the means by user activity, as in the paper's Figure 5


@dataclass(frozen=True, eq=False)
class Plan:
    """A run before it starts: its data, its budget, what decides its result, and the name of its record."""

    config: RunConfig
    data: Interactions
    budget: Budget
    identity: dict
    name: str

    @classmethod
    def of(cls, config: RunConfig, data: Interactions | None = None) -> Plan:
        """The plan of a configuration on its dataset, which is loaded if it is not given."""
        method = config.method
        data = config.load_dataset() if data is None else data
        budget = config.budget_on(data)
        kept = None if isinstance(method, ScoringMethod) else budget.as_dict()
        identity = config.describe() | {"dataset": data.fingerprint, "budget": kept}
        name = record_name(data.name, identity["backbone"]["name"], method.name, record_id(identity))
        return cls(config, data, budget, identity, name)

    @property
    def path(self) -> Path:
        """Where the record belongs."""
        return self.config.results_dir / f"{self.name}.json"

    @property
    def checkpoint_paths(self) -> tuple[Path, Path]:
        """From where an interrupted training goes on, and that of the full model which some methods train first."""
        folder = self.config.runs_dir
        return folder / f"{self.name}.checkpoint", folder / f"{self.name}.full.checkpoint"

    @property
    def log_path(self) -> Path:
        """What happened, in detail."""
        return self.config.runs_dir / f"{self.name}.log"

    @property
    def lock_path(self) -> Path:
        """What whoever does the run holds."""
        return self.config.runs_dir / "locks" / self.name

    def done(self) -> dict | None:
        """The record, where the run need not be done again: not `force`, and it has left all that it was asked for."""
        config, record = self.config, load_record(self.path)
        if record is None or config.force:
            return None
        if config.export is not None:
            exported = exported_config(config.export)
            same_run = exported is not None and record_id(exported) == record_id(self.identity)
            if not (same_run and has_ids_of(config.export, self.data)):
                return None
        return None if config.full_export is not None and "distance" not in record else record


@dataclass(frozen=True, eq=False)
class Prepared:
    """Tables with their first values, on the device, and what led to them.

    Attributes
    ----------
    trainer : Trainer
        Who trains them.
    tables : EmbeddingTables
    clustering_seconds, search_seconds : float
    details : dict
        What the method says of its assignment.
    """

    trainer: Trainer
    tables: EmbeddingTables
    clustering_seconds: float
    search_seconds: float
    details: dict


def run(plan: Plan, processes: Processes = ALONE) -> dict:
    """Do a run, or find its record; returns the record.

    Parameters
    ----------
    processes : Processes
        That do it together, each of them by this function.

    Raises
    ------
    UserError
        For everything that can be checked before training: device, threads, folders, budget.
    LockedError
        When another process is at it.
    """
    config = plan.config
    device = _join(plan, processes)
    set_threads(config.threads, processes.local_count)
    if config.lazy_rows:
        _check_lazy_rows(config, device)
    plan.data.log_summary()
    record = processes.of_leader(plan.done)
    if record is not None:
        log.info("already recorded in %s (force=true runs it again)", plan.path)
        return record
    warn_if_untuned(config)
    if not processes.leads:
        return processes.of_leader(plan.done) or _run(plan, device, None, processes)
    check_writable(plan.path, "results_dir")
    check_writable(plan.log_path, "runs_dir")
    if config.export is not None:
        check_writable(config.export, "export")
        check_replaceable(config.export, plan.identity)
    full = None if config.full_export is None else embeddings(load_full_model(config.full_export, plan.identity))
    with hold_lock(plan.lock_path):  # whoever held the lock until now may have recorded it
        return processes.of_leader(plan.done) or _run(plan, device, full, processes)


def _check_lazy_rows(config: RunConfig, device: torch.device) -> None:
    """Refuse a run that cannot have them before its clustering; the trainer would do so after it."""
    check_lazy_rows(config.protocol, config.loss, getattr(config.backbone_config, "num_layers", 0), device)
    if not isinstance(config.method, CodeCompressor) or config.quantize is not None:
        raise SettingError("lazy_rows", True, "is for methods that only assign codes, without quantize")


def _join(plan: Plan, processes: Processes) -> torch.device:
    """The device of this process, where all have come with the same run, and can do it together."""
    config = plan.config
    trains = not isinstance(config.method, ScoringMethod)
    if processes.count == 1:
        return resolve_device(config.device if trains else "cpu")
    if trains and not config.loss.splits:
        mend = "compares all pairs of a batch with one another: train it in one process, or take another loss"
        raise SettingError("loss", config.loss.name, mend)
    device = resolve_device(config.device if trains else "cpu", processes.local_rank)
    if len(set(processes.gather((plan.name, device.type)))) > 1:
        raise UserError("the processes have different data, settings or devices; start all with the same")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL asks for it
    return device


def warn_if_untuned(config: RunConfig) -> None:
    """Say so where the protocol has settings of each method's own, and this method none, and how to get some."""
    if config.protocol.name != TUNED_PROTOCOL or isinstance(config.method, ScoringMethod):
        return
    names = config.dataset.name, config.backbone.name, config.loss.name, config.method.name
    if not tuned_file(names).exists():
        choices = " ".join(f"{group}={name}" for group, name in zip(TUNED_FOR, names, strict=True))
        log.warning(
            "protocol=%s is not tuned for %s: what is not given has the values of conf/protocol and conf/loss; "
            "`python scripts/tune.py --best %s` tunes it",
            TUNED_PROTOCOL,
            choices,
            choices,
        )


def _run(plan: Plan, device: torch.device, full: tuple[np.ndarray, np.ndarray] | None, processes: Processes) -> dict:
    config, data, identity, method = plan.config, plan.data, plan.identity, plan.config.method
    code = code_version()  # now: the sources may change while the run lasts
    surroundings = environment(device) | {"processes": processes.count}
    made_by = {"code": code["sources"], "libraries": surroundings["libraries"], "device": device.type}
    checkpoints = [Checkpoint(path, config.checkpoint_every, made_by) for path in plan.checkpoint_paths]
    if config.force and processes.leads:
        for checkpoint in checkpoints:
            checkpoint.remove()
    continues = any(checkpoint.path.exists() for checkpoint in checkpoints)
    with log_file(plan.log_path, append=continues) if processes.leads else nullcontext():
        log.debug("%s", json.dumps(identity, indent=1))
        if isinstance(method, ScoringMethod):
            tables, backbone = None, "—"
            test, measured = score_and_test(plan, method, device, processes)
        else:
            backbone = config.backbone.label
            tables, test, measured = train_and_test(plan, method, device, processes, *checkpoints)
        record = {
            "schema": RECORD_SCHEMA,
            "results_version": RESULTS_VERSION,
            "id": record_id(identity),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "names": {
                "dataset": data.name,
                "backbone": identity["backbone"]["name"],
                "method": method.name,
                "protocol": identity["protocol"]["name"],
            },
            "labels": {"dataset": data.name, "backbone": backbone, "method": config.label},
            "config": identity,
            "dataset": describe_data(data),
            **measured,
            "environment": surroundings,
            "code": code,
        }

        def written() -> dict:
            record.update(_distance(plan, tables, full))
            _write(plan, record, tables, test)
            for checkpoint in checkpoints:
                checkpoint.remove()
            return record

        return processes.of_leader(written)


def _distance(plan: Plan, tables: EmbeddingTables | None, full: tuple[np.ndarray, np.ndarray] | None) -> dict:
    """How far the embeddings lie from the full model's, as a part of a record, where that is or was asked for."""
    if tables is not None and full is not None:
        return {"distance": distances(embeddings(tables), full)}
    before = load_record(plan.path) or {}
    return {"distance": before["distance"]} if "distance" in before and not plan.config.force else {}


def _write(plan: Plan, record: dict, tables: EmbeddingTables | None, test: RankingReport) -> None:
    """Save the record, and export the tables where that is asked for."""
    config = plan.config
    arrays = pack_hits(test.users, test.num_relevant, test.hits)
    if tables is not None:
        arrays |= ids_per_row(tables)
    try:
        save_record(config.results_dir, plan.name, record, arrays)
    except OSError as error:
        raise UnrecordedError(
            f"the record {plan.path} cannot be written ({error.strerror}); make room, or give another results_dir, "
            "and run it again: the last checkpoint is kept",
            record,
        ) from None
    log.info("recorded in %s", plan.path)
    if tables is not None and config.export is not None:
        export_model(config.export, tables, plan.identity, config.dataset, plan.data)
        log.info("exported the tables to %s", config.export)


def assign(plan: Plan) -> None:
    """Only compute the codes of a run, into the cache that `run` looks into; nothing for methods without codes.

    Raises
    ------
    UserError, LockedError
        As `run`.
    """
    config, method = plan.config, plan.config.method
    set_threads(config.threads)
    plan.data.log_summary()
    if isinstance(method, CodeCompressor):
        check_writable(plan.log_path, "runs_dir")
        with hold_lock(plan.lock_path):
            codes(config, method, plan.data.train, plan.budget)


def train_and_test(
    plan: Plan,
    method: Compressor,
    device: torch.device,
    processes: Processes,
    checkpoint: Checkpoint,
    full_checkpoint: Checkpoint,
) -> tuple[EmbeddingTables, RankingReport, dict]:
    """Compress, train and rank; returns the trained tables, the test's report, and what was measured on the way."""
    config, data, budget = plan.config, plan.data, plan.budget
    prepared = prepare(config, method, data, budget, device, full_checkpoint, processes=processes)
    trainer, tables = prepared.trainer, prepared.tables
    report = trainer.fit(tables, checkpoint=checkpoint)
    check_budget(config, budget, tables.ledger())

    start = time.perf_counter()
    test = trainer.evaluate(tables, "test")
    synchronize(device)
    test_seconds = time.perf_counter() - start
    training = {
        "epochs": report.epochs,
        "steps": report.steps,
        "best_epoch": report.best_epoch,
        "history": report.history,
        "continued_after": report.continued_after,
    }
    measured = {
        "size": describe_size(tables, budget, data.train, config.dim) | {"limited": method.has_budget},
        "assignment": prepared.details,
        "training": training | {"convergence": describe_convergence(training, trainer.max_epochs)},
        "seconds": {
            "clustering": prepared.clustering_seconds,
            "search": prepared.search_seconds,
            "training": report.training_seconds,
            "epoch": report.training_seconds / report.epochs,
            "validation": report.validation_seconds,
            "test": test_seconds,
        },
        "memory": peak_memory(device),
        "metrics": describe_metrics(trainer.evaluate(tables, "val"), test, data.train),
    }
    return tables, test, measured


def prepare(
    config: RunConfig,
    method: Compressor,
    data: Interactions,
    budget: Budget,
    device: torch.device,
    full_checkpoint: Checkpoint | None = None,
    memory: dict[str, Any] | None = None,
    processes: Processes = ALONE,
) -> Prepared:
    """Compress, and search where the method does: all that comes before the training proper.

    Parameters
    ----------
    memory : dict, optional
        What the method keeps from one segment of a stream for the next.
    processes : Processes
        That train together.
    """
    check_training_memory(0, data.train, config.width, device)  # before a clustering, which may take long
    warm_up(config, device)
    reset_peak_memory(device)
    scale = item_scale(config, method, data.train)
    tables, clustering_seconds, details = fit_tables(config, method, data.train, budget, device, scale, processes)
    trainer = trainer_of(config, data, device, full_checkpoint, scale, memory, processes)
    start = time.perf_counter()
    with keys_under("method."):
        tables = method.search(trainer.initialize(tables), trainer)
    search_seconds = time.perf_counter() - start + trainer.continued_seconds
    tables = trainer.scaled(quantized(config, tables))
    check_budget(config, budget, tables.ledger())
    return Prepared(trainer, tables, clustering_seconds, search_seconds, details)


def trainer_of(
    config: RunConfig,
    data: Interactions,
    device: torch.device,
    full_checkpoint: Checkpoint | None = None,
    scale: np.ndarray | None = None,
    memory: dict[str, Any] | None = None,
    processes: Processes = ALONE,
) -> Trainer:
    """The trainer that a configuration describes, on its data."""
    return Trainer(
        config.backbone(data.train, config.backbone_config, config.loss.score),
        Evaluator(data, processes, config.ranked_users),
        config.protocol,
        config.seed,
        device,
        progress=processes.leads,
        start=config.start,
        full_checkpoint=full_checkpoint,
        loss=config.loss,
        item_scale=scale,
        memory=memory,
        lazy_rows=config.lazy_rows,
        processes=processes,
    )


def score_and_test(
    plan: Plan, method: ScoringMethod, device: torch.device, processes: Processes
) -> tuple[RankingReport, dict]:
    """Fit a method that trains nothing, and rank; as `train_and_test`, without tables."""
    data, evaluator = plan.data, Evaluator(plan.data, processes, plan.config.ranked_users)
    zeros = np.zeros((1, 2), np.float32)
    rank_scores(lambda _: zeros, np.arange(1), SQUARE.by_user, np.arange(2), 2)  # compiled before anything is timed
    reset_peak_memory(device)
    times = [time.perf_counter()]
    with keys_under("method."):
        scorer = method.fit(data.train)
    times.append(time.perf_counter())
    val = evaluator.evaluate_scores(scorer.scores, "val")
    times.append(time.perf_counter())
    test = evaluator.evaluate_scores(scorer.scores, "test")
    times.append(time.perf_counter())
    fitting, validation, testing = np.diff(times).tolist()
    measured = {
        "size": asdict(scorer.ledger) | {"limited": False},  # ratios are to a full model, whose width is not given
        "assignment": {},
        "training": {"epochs": 0},
        "seconds": {"clustering": 0.0, "search": 0.0, "training": fitting, "validation": validation, "test": testing},
        "memory": peak_memory(device),
        "metrics": describe_metrics(val, test, data.train),
    }
    return test, measured


def warm_up(config: RunConfig, device: torch.device) -> None:
    """Compile what training and ranking call for embeddings of this width, so that their seconds are those of work."""
    backbone = config.backbone(SQUARE, config.backbone_config, config.loss.score)
    tables = CodebookTables(Assignment.of_own_rows(2, 2), config.width).to(device)
    for size in (1, 2):  # batches that touch few nodes and batches that touch all go different ways
        ids = torch.zeros(size, dtype=torch.int32, device=device)
        config.loss(backbone, tables, Batch(ids, ids, ids)).backward()
    if config.lazy_rows:
        optimizer = LazyAdamW(tables.param_groups(1.0, 0.0))
        backbone.refresh = optimizer.catch_up
        backbone.attach(tables)
        for _ in range(2):  # what a row has missed is made up from the second step on
            optimizer.zero_grad()
            config.loss(backbone, tables, Batch(ids, ids, ids)).backward()
            optimizer.step()
    users, items = (side.detach() for side in backbone.final_embeddings(tables))
    rank_items(users, items, np.arange(2), SQUARE.by_user, np.arange(2), 2)


def fit_tables(
    config: RunConfig,
    method: Compressor,
    train: Biadjacency,
    budget: Budget,
    device: torch.device,
    scale: np.ndarray | None,
    processes: Processes = ALONE,
) -> tuple[EmbeddingTables, float, dict]:
    """Tables before their first values, the seconds the compressor took, and what it says of its assignment.

    The tables lie on the host; `device` is where they will train. They leave room in the budget for a `scale` of items.
    """
    if isinstance(method, CodeCompressor):
        assignment, seconds = processes.of_leader(partial(codes, config, method, train, budget))
        ledger = code_ledger(assignment, config.width, budget.row_format())
        check_budget(config, budget, ledger)  # before a table is allocated
        check_training_memory(COPIES * ledger.training_floats, train, config.width, device)
        tables: EmbeddingTables = CodebookTables(assignment, config.width, method.scaled)
        details = assignment.details
    else:
        method.warm_up()
        start = time.perf_counter()
        with keys_under("method."):
            tables = method.fit(train, remaining_budget(scale, budget), stream(config.seed, "assign"))
        seconds = time.perf_counter() - start
        details = {} if tables.assignment is None else describe_assignment(tables.assignment, train)
        check_training_memory((COPIES - 1) * tables.ledger().training_floats, train, config.width, device)
    finished = quantized(config, tables)
    share = budget.share((finished if scale is None else ScaledTables(finished, scale)).ledger())
    if method.has_budget and share < 0.98:
        log.warning("%s uses %.1f %% of its budget only", method.name, 100 * share)
    return tables, seconds, details


def item_scale(config: RunConfig, method: Compressor, train: Biadjacency) -> np.ndarray | None:
    """The scale of items of a method's tables, where it is asked for and not a part of their codes."""
    return None if isinstance(method, CodeCompressor) else popularity_scale(train.item_degrees, config.popularity)


def codes(config: RunConfig, method: CodeCompressor, train: Biadjacency, budget: Budget) -> tuple[Assignment, float]:
    """The method's codes, from the cache if they are there, with scaled items if that is asked for; and its seconds."""
    scale = popularity_scale(train.item_degrees, config.popularity)
    folder = config.runs_dir / "assignments"
    rest = remaining_budget(scale, budget)
    with keys_under("method."):
        assignment, seconds = cached_assignment(method, train, rest, config.seed, folder, afresh=config.force)
    return scale_items(assignment, scale), seconds


def quantized(config: RunConfig, tables: EmbeddingTables) -> EmbeddingTables:
    """The tables with rows that are packed after training, where the run asks for it."""
    if config.quantize is None:
        return tables
    return QuantizedTables(tables, config.quantize, int(stream(config.seed, "quantize").integers(2**31)))


def check_budget(config: RunConfig, budget: Budget, ledger: Ledger) -> None:
    """Refuse tables over the budget; a method without one is measured, not limited."""
    if config.method.has_budget:
        budget.check(ledger, config.method.name)


def check_training_memory(floats: int, train: Biadjacency, dim: int, device: torch.device) -> None:
    """Refuse a training that does not fit into memory, whatever else backbone, loss and evaluation take.

    Parameters
    ----------
    floats : int
        What is still to be allocated of the tables' `COPIES`, as far as it is known; the final embeddings come on top.
    """
    what = f"dim={dim} for {train.num_nodes:,} users and items"
    mend = "lower dim or the budget, or run it where there is more"
    check_memory(FLOAT_BYTES * (floats + train.num_nodes * dim), what, mend, device)


def describe_data(data: Interactions) -> dict:
    """What a record says of its dataset."""
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "num_users": data.num_users,
        "num_items": data.num_items,
        **{split: getattr(data, split).num_edges for split in SPLITS},
        "report": asdict(data.report),
    } | ({} if data.import_report is None else {"import_report": asdict(data.import_report)})


def describe_size(tables: EmbeddingTables, budget: Budget, train: Biadjacency, dim: int) -> dict:
    """What a record says of the tables' cost; the ratios are to the cost of a full model of `dim` columns."""
    ledger = tables.ledger()
    full_parameters = train.num_nodes * dim
    return asdict(ledger) | {
        "budget_limit": budget.limit,
        "budget_unit": budget.unit,
        "budget_used": budget.share(ledger),
        "full_parameters": full_parameters,
        "parameter_ratio": ledger.parameters / full_parameters,
        "byte_ratio": ledger.bytes / (FLOAT_BYTES * full_parameters),
    }


def describe_metrics(val: RankingReport, test: RankingReport, train: Biadjacency) -> dict:
    """What a record says of the rankings of both splits."""
    return {
        "val": val.means(),
        "test": test.means(),
        "test_by_activity": means_by_activity(test, train.user_degrees, GROUP_CUTOFF),
    }


def ids_per_row(tables: EmbeddingTables) -> dict[str, np.ndarray]:
    """`users_per_row` and `items_per_row`, int32, descending: how many ids have each row as their first code."""
    if tables.assignment is None:
        return {}
    counts = {}
    for side in SIDES:
        codes = getattr(tables.assignment, side)
        sizes = np.bincount(codes.first, minlength=codes.num_rows)
        counts[f"{side}_per_row"] = np.sort(sizes)[::-1].astype(np.int32)
    return counts


@contextmanager
def log_file(path: Path, append: bool = False) -> Iterator[None]:
    """Write all that this project logs meanwhile, details and a failure included, to a file as well."""
    handler = logging.FileHandler(path, mode="a" if append else "w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    loggers = [logging.getLogger(package) for package in ("baco", "baselines")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield
    except Exception:
        log.debug("the run failed", exc_info=True)
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
        handler.close()
