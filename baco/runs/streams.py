"""One stream, from a configuration to a record with a row for each segment: `baco stream`."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from baco.compressors.scoring import ScoringMethod
from baco.data.interactions import SPLITS, Interactions
from baco.data.release import Release
from baco.data.streams import Stream
from baco.device import resolve_device, set_threads, synchronize
from baco.errors import SettingError, UserError, keys_under
from baco.evaluation.evaluator import Evaluator, RankingReport
from baco.files import check_writable, write_text
from baco.runs.lock import hold_lock
from baco.runs.provenance import code_version, environment
from baco.runs.record import record_id, record_name
from baco.runs.run import describe_size, log_file
from baco.runs.settings import RunConfig, parse
from baco.runs.updates import UPDATES, Model, Step, begin
from baco.validation import Validated, build_settings, setting

log = logging.getLogger(__name__)

STREAM_SCHEMA = 1


@dataclass(frozen=True)
class StreamSettings(Validated):
    """The keys of conf/stream.yaml, which explains them."""

    update: str = setting(one_of=UPDATES)
    epochs: int | None = setting(at_least=0)
    first: float = setting(above=0)
    new_ids: float = setting(above=0)
    val_share: float = setting(above=0, below=1)


@dataclass(frozen=True, eq=False)
class StreamPlan:
    """A stream before it is followed: its data, cut and checked, what decides its result, and the name of its record.

    Attributes
    ----------
    steps : list of Interactions
        The dataset after each segment but the last, which is only a test.
    """

    config: RunConfig
    settings: StreamSettings
    stream: Stream
    steps: list[Interactions]
    identity: dict
    name: str

    @classmethod
    def of(cls, cfg: DictConfig) -> StreamPlan:
        """The plan of a composed configuration.

        Raises
        ------
        UserError
            For bad settings, and data that have no times or make no segments.
        """
        keys = [field.name for field in fields(StreamSettings)]
        settings = build_settings(StreamSettings, {key: cfg[key] for key in keys})
        config = parse(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in keys]))
        _check(config, settings)
        dataset = config.dataset
        if isinstance(dataset, Release):
            raise UserError(
                f"dataset '{dataset.name}' has no times, by which a stream is cut; take a log with a column of times, "
                "dataset=custom with dataset.timestamp, or dataset=synthetic"
            )
        with keys_under("dataset."):
            stream = Stream.cut(dataset.load_events(), settings.first, settings.new_ids)
        steps = [stream.step(segment, settings.val_share) for segment in range(stream.num_steps)]
        trained = not isinstance(config.method, ScoringMethod)
        identity = config.describe() | {
            "dataset": stream.fingerprint,
            "budget": [config.budget, config.budget_unit] if trained and config.method.has_budget else None,
            "stream": {"update": settings.update, "val_share": settings.val_share}
            | ({"epochs": _epochs(config, settings)} if settings.update in ("warm", "extend") else {}),
        }
        method = f"{config.method.name}-{settings.update}"
        name = record_name(stream.name, identity["backbone"]["name"], method, record_id(identity))
        return cls(config, settings, stream, steps, identity, name)

    @property
    def path(self) -> Path:
        """Where the record belongs."""
        return self.config.results_dir / f"{self.name}.json"

    def done(self) -> dict | None:
        """The record, where the stream need not be followed again."""
        if self.config.force or not self.path.exists():
            return None
        try:
            record = json.loads(self.path.read_bytes())
        except ValueError:
            log.warning("%s is damaged; the stream is followed again", self.path)
            return None
        return record if record.get("schema") == STREAM_SCHEMA else None


def follow(plan: StreamPlan) -> dict:
    """Follow a stream, or find its record; returns the record. An interrupted one begins again.

    Raises
    ------
    UserError, LockedError
        As `baco.runs.run.run`.
    """
    config = plan.config
    scores = isinstance(config.method, ScoringMethod)
    device = resolve_device("cpu" if scores else config.device)
    set_threads(config.threads)
    record = plan.done()
    if record is not None:
        log.info("already recorded in %s (force=true follows it again)", plan.path)
        return record
    check_writable(plan.path, "results_dir")
    log_path = config.runs_dir / f"{plan.name}.log"
    check_writable(log_path, "runs_dir")
    with hold_lock(config.runs_dir / "locks" / plan.name), log_file(log_path):
        log.debug("%s", json.dumps(plan.identity, indent=1))
        rows = _score_segments(plan) if scores else _train_segments(plan, device)
        record = {
            "schema": STREAM_SCHEMA,
            "id": record_id(plan.identity),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "names": {
                "dataset": plan.stream.name,
                "backbone": plan.identity["backbone"]["name"],
                "method": config.method.name,
                "update": plan.settings.update,
            },
            "labels": {"method": config.label},
            "config": plan.identity,
            "stream": asdict(plan.settings) | {"fingerprint": plan.stream.fingerprint},
            "segments": rows,
            "environment": environment(device),
            "code": code_version(),
        }
        write_text(plan.path, json.dumps(record, indent=1, sort_keys=True) + "\n")
        log.info("recorded in %s", plan.path)
    return record


def _check(config: RunConfig, settings: StreamSettings) -> None:
    """Refuse what a stream has no use for."""
    scores = isinstance(config.method, ScoringMethod)
    if scores and settings.update != "retrain":
        needs = f"goes on from embeddings, and method={config.method.name} has none; take retrain"
        raise SettingError("update", settings.update, needs)
    if config.quantize is not None and settings.update != "retrain":
        raise SettingError("update", settings.update, "goes on from rows that quantize= has packed; take retrain")
    asked = {"export": config.export, "full_export": config.full_export, "assign_only": config.assign_only or None}
    for key, value in asked.items():
        if value is not None:
            raise SettingError(key, None, "is for a single run, not for a stream; leave it out")


def _epochs(config: RunConfig, settings: StreamSettings) -> int:
    """Of an update that goes on."""
    return -(-config.protocol.max_epochs // 4) if settings.epochs is None else settings.epochs


def _train_segments(plan: StreamPlan, device: torch.device) -> list[dict]:
    config, update = plan.config, plan.settings.update
    epochs = _epochs(config, plan.settings)
    model: Model | None = None
    memory: dict[str, Any] = {}
    rows = []
    for segment, data in enumerate(plan.steps):
        budget = config.budget_on(data)
        step = Step(config, data, budget, device, epochs, memory)
        model = begin(step, update) if model is None else UPDATES[update](step, model)
        tables = model.tables if model.folded is None else model.folded
        start = time.perf_counter()
        test = step.trainer.evaluate(tables, "test")
        synchronize(device)
        seconds = model.seconds | {"test": time.perf_counter() - start}
        size = describe_size(model.tables, budget, data.train, config.dim) | {"limited": config.method.has_budget}
        measured = {"size": size, "epochs": model.epochs, "seconds": seconds}
        rows.append(_row(segment, data, measured, step.trainer.evaluate(tables, "val"), test))
    return rows


def _score_segments(plan: StreamPlan) -> list[dict]:
    """The same for a method that trains nothing."""
    method = plan.config.method
    assert isinstance(method, ScoringMethod)
    rows = []
    for segment, data in enumerate(plan.steps):
        evaluator = Evaluator(data, most_users=plan.config.ranked_users)
        start = time.perf_counter()
        with keys_under("method."):
            scorer = method.fit(data.train)
        fitted = time.perf_counter()
        test = evaluator.evaluate_scores(scorer.scores, "test")
        seconds = {"training": fitted - start, "test": time.perf_counter() - fitted}
        measured = {"size": asdict(scorer.ledger) | {"limited": False}, "epochs": 0, "seconds": seconds}
        rows.append(_row(segment, data, measured, evaluator.evaluate_scores(scorer.scores, "val"), test))
    return rows


def _row(segment: int, data: Interactions, measured: dict, val: RankingReport, test: RankingReport) -> dict:
    """What a record says of a segment: the last that was trained on; the test is the next."""
    row = {
        "segment": segment,
        "users": data.num_users,
        "items": data.num_items,
        "interactions": {split: getattr(data, split).num_edges for split in SPLITS},
        "test_users": len(test.users),
        **measured,
        "metrics": {"val": val.means(), "test": test.means()},
    }
    metrics = row["metrics"]["test"]
    log.info(
        "%s, segment %d of %d users and %d items: R@20 %.2f, N@20 %.2f on the next",
        data.name,
        segment,
        data.num_users,
        data.num_items,
        100 * metrics["recall@20"],
        100 * metrics["ndcg@20"],
    )
    return row
