"""Exports: what a server needs of a run, in one file."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np

from baco.data.interactions import Interactions
from baco.data.sources import source_name
from baco.embedding.tables import EmbeddingTables
from baco.errors import UserError
from baco.files import from_json_array, json_array, read_arrays, write_arrays
from baco.runs.record import record_id

log = logging.getLogger(__name__)


def export_model(path: Path, tables: EmbeddingTables, config: dict, source: object, data: Interactions) -> None:
    """Write trained tables, packed as a server needs them, the ids of the source, and what `Recommender` must know.

    Parameters
    ----------
    config : dict
        What decides the run's result, as its record has it.
    source : Release, Log or Synthetic
        Where the data came from.
    """
    model = {
        "tables": tables.kind,
        "config": config,
        "dataset": {"source": source_name(source)} | asdict(source),
    }
    arrays = tables.export() | {"model": json_array(model)}
    if data.user_ids is not None:
        arrays |= {"user_ids": data.user_ids, "item_ids": data.item_ids}
    write_arrays(path, arrays)


def exported_config(path: Path) -> dict | None:
    """What decided the result of the run that wrote an export; None where there is no such file, or it is another."""
    try:
        return from_json_array(read_arrays(path, ["model"])["model"])["config"]
    except Exception:  # see `read_arrays`
        return None


def has_ids_of(path: Path, data: Interactions) -> bool:
    """Whether an export has the ids of these data, if they have any: a fingerprint is of positions only."""
    if data.user_ids is None:
        return True
    try:
        found = read_arrays(path, ["user_ids", "item_ids"])
    except KeyError:
        return False
    return np.array_equal(found["user_ids"], data.user_ids) and np.array_equal(found["item_ids"], data.item_ids)


def check_replaceable(path: Path, config: dict) -> None:
    """Before an export is written: tell if another run's is there, whose place it will take.

    Raises
    ------
    UserError
        When what is there is no export.
    """
    if not path.exists():
        return
    there = exported_config(path)
    if there is None:
        raise UserError(f"export: {path} is there and no export of a run; remove it or give another path")
    if record_id(there) != record_id(config):
        log.warning("%s holds the tables of another run; these will take their place", path)
