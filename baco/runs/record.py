"""Records: one JSON per finished run, named by a hash of what decides its result."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np

from baco.errors import UserError
from baco.files import read_arrays, write_arrays, write_text
from baco.runs.description import complete, distinguishing
from baco.training.convergence import convergence

log = logging.getLogger(__name__)

RECORD_SCHEMA = 1
NEEDED = (  # values that readers rely on
    "id",
    *(f"names.{key}" for key in ("dataset", "backbone", "method", "protocol")),
    *(f"labels.{key}" for key in ("dataset", "backbone", "method")),
    *(f"config.{key}.name" for key in ("backbone", "method", "protocol")),
    *("config.dim", "config.seed", "dataset.fingerprint", "dataset.num_users", "dataset.num_items"),
    *("size.parameters", "size.bytes", "seconds.clustering", "seconds.training", "metrics.test", "environment.device"),
)
RESULTS_VERSION = 1  # part of every id; raised when results change on purpose, after which older records do not count
TEST_USERS = ("users", "num_relevant")  # the arrays that all records of one split have in common


def record_id(config: dict) -> str:
    """12 hexadecimal digits of what decides a result. The order of keys does not matter; every value does."""
    text = json.dumps(distinguishing(config) | {"results_version": RESULTS_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def record_name(dataset: str, backbone: str, method: str, identity: str) -> str:
    """The file name of a record, without its ending: readable first, unique last."""
    return f"{dataset}-{backbone}-{method}-{identity}"


def users_name(record: dict) -> str:
    """The file name, without its ending, of the test users that all records of one split share."""
    return f"test_users-{record['dataset']['fingerprint'][:12]}"


def save_record(folder: Path, name: str, record: dict, arrays: dict[str, np.ndarray]) -> Path:
    """Write `name.npz` with the arrays, then `name.json`, which alone proves that the run is finished.

    The arrays of `TEST_USERS` go into the file that all records of the split share, before both.

    Parameters
    ----------
    arrays : dict
        What `pack_hits` makes, and others.

    Raises
    ------
    UserError
        As `share_users`.
    """
    share_users(folder / f"{users_name(record)}.npz", {key: arrays[key] for key in TEST_USERS})
    write_arrays(folder / f"{name}.npz", {key: values for key, values in arrays.items() if key not in TEST_USERS})
    path = folder / f"{name}.json"
    write_text(path, json.dumps(record, indent=1, sort_keys=True) + "\n")
    return path


def share_users(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the test users of a split where they are missing.

    Raises
    ------
    UserError
        When the file is there and has other users or other numbers of relevant items, or is damaged.
    """
    if not path.exists():
        write_arrays(path, arrays)
        return
    kept = _read(path, "delete it and repeat this")
    if kept.keys() != arrays.keys() or not all(np.array_equal(kept[key], arrays[key]) for key in kept):
        raise UserError(
            f"{path} has other test users than a new record of the same split; put the record into another folder, "
            "or delete this file and the records that share it"
        )


def load_record(path: Path) -> dict | None:
    """The record, or None when there is no valid one at this path."""
    try:
        return parse_record(path.read_bytes())
    except OSError:
        return None


def parse_record(content: bytes) -> dict | None:
    """The record in the content of its file, with what older ones lack; None when it is not a whole and valid one."""
    try:
        record = json.loads(content)
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("schema") != RECORD_SCHEMA:
        return None
    if any(lookup(record, path) is None for path in NEEDED):
        return None
    if record.get("results_version", 1) != RESULTS_VERSION:
        return None
    record["config"] = complete(record["config"])
    record["seconds"].setdefault("search", 0.0)  # the first records do not have it, and had no search
    training = record.get("training", {})
    if "history" in training and "convergence" not in training:  # older records
        training["convergence"] = describe_convergence(training, record["config"]["protocol"]["max_epochs"])
    return record


def describe_convergence(training: dict, max_epochs: int) -> dict:
    """What a record says of the end of its training, from the rest of what it says of it; see `Convergence`."""
    return asdict(convergence(training["history"], training["epochs"], max_epochs, training["best_epoch"]))


def load_records(folder: Path) -> list[dict]:
    """All valid records of a folder, ordered by file name; a warning names what is none."""
    found = {path: load_record(path) for path in sorted(folder.glob("*.json"))}
    for path, record in found.items():
        if record is None:
            log.warning("%s is damaged or of another version: it does not count", path)
    return [record for record in found.values() if record is not None]


def record_arrays(record: dict, folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a record with the test users of its split; empty where the .npz beside the record is gone.

    Raises
    ------
    UserError
        When the file is damaged or of an older version, or the test users are damaged or missing.
    """
    names = record["names"]
    path = folder / f"{record_name(names['dataset'], names['backbone'], names['method'], record['id'])}.npz"
    if not path.exists():
        return {}
    again = "delete it and the .json beside it, and run that again"
    arrays = _read(path, again)
    if not arrays.keys().isdisjoint(TEST_USERS):
        raise UserError(f"{path} is of an older version, which kept the test users with each record; {again}")
    shared = folder / f"{users_name(record)}.npz"
    if not shared.exists():
        raise UserError(
            f"{shared} is missing, which {path.name} needs; "
            "copy it from where that record was made, or run that again with force=true"
        )
    return arrays | _read(shared, "delete it and copy it from where the records were made")


def _read(path: Path, mend: str) -> dict[str, np.ndarray]:
    try:
        return read_arrays(path)
    except Exception as error:  # a damaged archive fails in many ways
        raise UserError(f"{path} cannot be read ({error}); {mend}") from None


def lookup(record: dict, path: str) -> object:
    """The value at keys joined by dots, such as 'metrics.test.recall@20'; None where there is none."""
    value: object = record
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def pack_hits(users: np.ndarray, num_relevant: np.ndarray, hits: np.ndarray) -> dict[str, np.ndarray]:
    """Per-user results as small arrays, from which every metric at every cut-off can be computed again.

    Parameters
    ----------
    users, num_relevant : (m,) integers
    hits : (m, k) bool
    """
    return {
        "users": users.astype(np.int32),
        "num_relevant": num_relevant.astype(np.int32),
        "hits": np.packbits(hits, axis=1),
        "k": np.array(hits.shape[1], np.int32),
    }


def unpack_hits(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inverse of `pack_hits`: users, num_relevant, hits."""
    hits = np.unpackbits(arrays["hits"], axis=1, count=int(arrays["k"])).astype(bool)
    return arrays["users"], arrays["num_relevant"], hits
