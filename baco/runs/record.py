"""Records: one JSON per finished run, named by a hash of what decides its result."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import numpy as np

from baco.errors import UserError
from baco.files import read_arrays, write_arrays, write_text
from baco.runs.description import complete, distinguishing

log = logging.getLogger(__name__)

RECORD_SCHEMA = 1
SECTIONS = {"id", "names", "labels", "config", "size", "seconds", "metrics", "environment"}  # that readers rely on
RESULTS_VERSION = 1  # part of every id; raised when results change on purpose, after which older records do not count


def record_id(config: dict) -> str:
    """12 hexadecimal digits of what decides a result. The order of keys does not matter; every value does."""
    text = json.dumps(distinguishing(config) | {"results_version": RESULTS_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def record_name(dataset: str, backbone: str, method: str, identity: str) -> str:
    """The file name of a record, without its ending: readable first, unique last."""
    return f"{dataset}-{backbone}-{method}-{identity}"


def save_record(folder: Path, name: str, record: dict, per_user: dict[str, np.ndarray]) -> Path:
    """Write `name.npz` with the per-user arrays, then `name.json`, which alone proves that the run is finished."""
    write_arrays(folder / f"{name}.npz", per_user)
    path = folder / f"{name}.json"
    write_text(path, json.dumps(record, indent=1, sort_keys=True) + "\n")
    return path


def load_record(path: Path) -> dict | None:
    """The record, or None when there is no valid one at this path."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("schema") != RECORD_SCHEMA or not record.keys() >= SECTIONS:
        return None
    if record.get("results_version", 1) != RESULTS_VERSION:
        return None
    record["config"] = complete(record["config"])
    record["seconds"].setdefault("search", 0.0)  # the first records do not have it, and had no search
    return record


def load_records(folder: Path) -> list[dict]:
    """All valid records of a folder, ordered by file name; a warning names what is none."""
    found = {path: load_record(path) for path in sorted(folder.glob("*.json"))}
    for path, record in found.items():
        if record is None:
            log.warning("%s is damaged or of another version: it does not count", path)
    return [record for record in found.values() if record is not None]


def record_arrays(record: dict, folder: Path) -> dict[str, np.ndarray]:
    """The arrays kept beside a record; empty where they are gone.

    Raises
    ------
    UserError
        When the file is damaged.
    """
    names = record["names"]
    path = folder / f"{record_name(names['dataset'], names['backbone'], names['method'], record['id'])}.npz"
    try:
        return read_arrays(path) if path.exists() else {}
    except Exception as error:  # a damaged archive fails in many ways
        raise UserError(
            f"{path} cannot be read ({error}); delete it and the .json beside it, and run that again"
        ) from None


def lookup(record: dict, path: str) -> object:
    """The value at keys joined by dots, such as 'metrics.test.recall@20'; None where there is none."""
    value: object = record
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def pack_hits(users: np.ndarray, num_relevant: np.ndarray, hits: np.ndarray) -> dict[str, np.ndarray]:
    """Per-user results in a few kilobytes: every metric at every cut-off can be computed from them again.

    Parameters
    ----------
    users, num_relevant : (m,) integers
    hits : (m, k) bool
    """
    return {
        "users": users.astype(np.int32),
        "num_relevant": num_relevant.astype(np.int32),
        "hits": np.packbits(hits, axis=1),
        "k": np.int32(hits.shape[1]),
    }


def unpack_hits(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inverse of `pack_hits`: users, num_relevant, hits."""
    hits = np.unpackbits(arrays["hits"], axis=1, count=int(arrays["k"])).astype(bool)
    return arrays["users"], arrays["num_relevant"], hits
