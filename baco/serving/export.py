"""Exports: one file with all that a server needs of a run, and how it is read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from baco.backbones.backbone import Backbone
from baco.data.interactions import Interactions, interaction_arrays, load_interactions
from baco.data.logs import Log
from baco.data.sources import SOURCES, Source, source_name
from baco.embedding.codes import SIDES
from baco.embedding.quantizers import unpack_export
from baco.embedding.tables import EmbeddingTables
from baco.errors import SettingError, UserError
from baco.files import from_json_array, json_array, read_arrays, read_given, write_arrays
from baco.graph import Biadjacency
from baco.registry import backbone_class, tables_class
from baco.serving.packed import FORMAT
from baco.validation import build_settings

log = logging.getLogger(__name__)

DATA = "data."  # begins the names of the arrays of an updated export's interactions
ADVICE = "it must be the export of a run"
# settings of a run of the full model as it is
PLAIN = {"quantize": None, "popularity": 0, "start": "normal", "columns": None}


def export_model(
    path: Path,
    tables: EmbeddingTables,
    config: dict,
    source: Source,
    data: Interactions,
    updates: Sequence[dict] = (),
) -> None:
    """Write trained tables, packed as a server needs them, the ids of the source, and what `Recommender` must know.

    Parameters
    ----------
    config : dict
        What decides the run's result, as its record has it.
    source : Release, Log or Synthetic
        Where the data came from.
    updates : sequence of dict
        What each update did, if there were any. Then no source has these data, and the file has them itself.
    """
    description: dict[str, Any] = {"config": config, "dataset": {"source": source_name(source)} | asdict(source)}
    arrays = {} if tables.assignment is None else tables.assignment.clusters()
    if updates:
        description |= {"updates": list(updates)}
        arrays |= {DATA + name: array for name, array in interaction_arrays(data).items()}
    if data.user_ids is not None and data.item_ids is not None:
        arrays |= {"user_ids": data.user_ids, "item_ids": data.item_ids}
    write_tables(path, tables, description, arrays)


def write_tables(
    path: Path, tables: EmbeddingTables, description: dict, arrays: dict[str, np.ndarray] | None = None
) -> None:
    """Write tables, packed as a server needs them, in a file that `baco.serving.packed` can map into memory.

    Parameters
    ----------
    description : dict
        Plain values about the model.
    arrays : dict, optional
        Others that belong to it.
    """
    model = {"format": FORMAT, "tables": tables.kind} | description
    rules = {} if tables.assignment is None else {side: getattr(tables.assignment, side).rule for side in SIDES}
    marks = {f"{side}.marks": rule.marks() for side, rule in rules.items() if rule is not None}
    written = tables.export() | marks | {"model": json_array(model)} | (arrays or {})
    write_arrays(path, written, compress=False)


def read_export(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file that `export_model` wrote.

    Beside those of the tables there are `model`, a description as JSON, and `user_ids` and `item_ids` where the source
    had ids of its own.

    Raises
    ------
    UserError
        When there is no such file, or it is no export.
    """
    arrays = read_given(path, ADVICE)
    _description(path, arrays)
    return arrays


def read_description(path: str | Path) -> dict:
    """What an export says of its model: `tables`, `config`, `dataset` and more. The rest of the file is not read.

    Raises
    ------
    UserError
        As `read_export`.
    """
    return _description(path, read_given(path, ADVICE, _read_model))


def _read_model(path: Path) -> dict[str, np.ndarray]:
    """The array with the description, where there is one."""
    try:
        return read_arrays(path, ["model"])
    except KeyError:
        return {}


def _description(path: str | Path, arrays: dict[str, np.ndarray]) -> dict:
    """What the arrays of an export say of it; raises `UserError` where they are of another file."""
    model = from_json_array(arrays["model"]) if "model" in arrays else {}
    if not {"tables", "config", "dataset"} <= model.keys():
        raise UserError(f"{path} does not say of which model it is; {ADVICE}")
    return model


def load_tables(arrays: dict[str, np.ndarray]) -> EmbeddingTables:
    """The trained tables, of any method, that an export holds; rows that it has in fewer bits become float32.

    Parameters
    ----------
    arrays : dict
        What `read_export` returns.

    Raises
    ------
    UserError
        When the tables are of a kind, or packed in a way, that this version does not know.
    """
    kind = from_json_array(arrays["model"])["tables"]
    return tables_class(kind).from_export(unpack_export(arrays))


def load_backbone(config: dict, train: Biadjacency) -> Backbone:
    """The backbone that an export's configuration describes, over a training graph."""
    settings = dict(config["backbone"])
    kind = backbone_class(settings.pop("name"))
    score = config.get("loss", {"score": "dot"})["score"]  # exports had none before there were cosines
    return kind(train, build_settings(kind.Config, settings), score)


def load_data(arrays: dict[str, np.ndarray], path: str | Path, data_dir: Path) -> Interactions:
    """What the model of an export was trained on, under the ids of the log that it was trained on.

    An updated export has them itself. Otherwise it is the prepared file that holds them, wherever its source is by now,
    or the source.

    Parameters
    ----------
    arrays : dict
        What `read_export` returns.
    path : file
        Of the export, for messages.
    data_dir : folder
        Where the prepared datasets lie, as in training.

    Raises
    ------
    UserError
        When the data are missing or have changed.
    """
    model = from_json_array(arrays["model"])
    own = {name.removeprefix(DATA): array for name, array in arrays.items() if name.startswith(DATA)}
    data = Interactions.from_arrays(model["dataset"]["name"], own) if own else training_data(model, path, data_dir)
    if "user_ids" in arrays:  # the same data may be there under other ids, too
        data = replace(data, user_ids=arrays["user_ids"], item_ids=arrays["item_ids"])
    return data


def read_interactions(path: str | Path, export: str | Path) -> pd.DataFrame:
    """The interactions of a log, for `Recommender.recommend`: written as the log that an export's model was trained on.

    A model of a prepared dataset had no log; then the columns are `user` and `item`. Of the export only the description
    is read.

    Returns
    -------
    DataFrame : `user` and `item`
    """
    settings = read_description(export)["dataset"]
    source = build_settings(SOURCES[settings.pop("source")], settings)
    return (source if isinstance(source, Log) else Log()).read_alike(path)


def load_full_model(path: Path, config: dict) -> EmbeddingTables:
    """The tables of the full model that a run is compared with, from the file that `export=` wrote of it.

    Parameters
    ----------
    config : dict
        What decides the run's result. The full model must have the same data, backbone, protocol, loss, width and seed.

    Raises
    ------
    UserError
        When there is no such file, or it is of another model.
    """
    advice = "export a run of the method 'full' to it"
    if not path.exists():
        raise SettingError("full_export", path, f"is not there; {advice}")
    found = exported_config(path)
    altered = found is not None and any(found.get(key, value) != value for key, value in PLAIN.items())
    if found is None or found["method"]["name"] != "full" or altered:
        raise SettingError("full_export", path, f"is no export of a full model; {advice}")
    keys = ("dataset", "backbone", "protocol", "loss", "dim", "seed")
    differing = [key for key in keys if found.get(key) != config[key]]
    if differing:
        raise SettingError("full_export", path, f"is of a full model with another {differing[0]}; {advice}")
    return load_tables(read_export(path))


def exported_config(path: Path) -> dict | None:
    """What decided the result of the run that wrote an export; None where there is no such file, or it is another."""
    try:
        return from_json_array(read_arrays(path, ["model"])["model"])["config"]
    except Exception:  # see `read_arrays`
        return None


def has_ids_of(path: Path, data: Interactions) -> bool:
    """Whether an export has the ids of these data, if they have any: a fingerprint is of positions only."""
    if data.user_ids is None or data.item_ids is None:
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
        raise SettingError("export", path, "is there and no export of a run; remove it or give another path")
    if there != from_json_array(json_array(config)):  # a tuple is a list in a file
        log.warning("%s holds the tables of another run; these will take their place", path)


def training_data(model: dict, path: str | Path, data_dir: Path) -> Interactions:
    """The prepared file that holds what a model was trained on, or its source."""
    settings, wanted = model["dataset"], model["config"]["dataset"]
    for prepared in sorted((data_dir / settings["name"]).rglob("*.npz")):
        try:
            data = load_interactions(prepared, settings["name"])
        except UserError:
            continue  # some other file
        if data.fingerprint == wanted:
            return data
    data = build_settings(SOURCES[settings.pop("source")], settings).load(data_dir)
    if data.fingerprint != wanted:
        raise UserError(
            f"{path} was trained on other interactions than '{data.name}' in {data_dir} has now; point "
            "BACO_DATA_DIR to those, or train again"
        )
    return data
