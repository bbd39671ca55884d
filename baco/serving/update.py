"""Updates: an exported model takes in new interactions, users and items, without a training from the start."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from baco.coclustering.one_sided import OneSided
from baco.coclustering.update import THRESHOLD
from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.compressors.growth import Growth
from baco.compressors.popularity import popularity_scale, remaining_budget, scale_items
from baco.data.interactions import Interactions
from baco.data.sources import SOURCES
from baco.device import resolve_device
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import SIDES, Assignment, Codes
from baco.embedding.continuation import continue_rows
from baco.embedding.product_codes import RefinedQuantizer
from baco.embedding.quantized import QuantizedTables
from baco.embedding.quantizer import Quantizer
from baco.embedding.quantizers import quantizer_of
from baco.embedding.tables import EmbeddingTables
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.files import check_writable, from_json_array
from baco.graph import Biadjacency
from baco.losses.loss import Loss
from baco.registry import loss_class, method_class
from baco.rng import stream
from baco.serving.export import (
    check_replaceable,
    export_model,
    load_backbone,
    load_data,
    load_tables,
    read_export,
)
from baco.serving.grown import Added, grown
from baco.training.protocol import Protocol
from baco.training.trainer import Trainer
from baco.validation import Limits, build_settings

EPOCHS = 1  # docs/update.md has what more of them give


@dataclass(frozen=True)
class Update:
    """What an update did.

    Attributes
    ----------
    added : Added
        What was new.
    codes_changed : float
        The share of old users and items whose codes are others now.
    rows_kept, rows_new : int
        Codebook rows that began with their old values, and others.
    epochs : int
    assignment_seconds, training_seconds : float
        Of new codes, and of the epochs with their validations.
    """

    added: Added
    codes_changed: float
    rows_kept: int
    rows_new: int
    epochs: int
    assignment_seconds: float
    training_seconds: float

    def __str__(self) -> str:
        added = self.added
        return (
            f"{added.interactions:,} new interactions ({added.repeated:,} were there), {added.users:,} new users, "
            f"{added.items:,} new items\n"
            f"{100 * self.codes_changed:.2f} % of the old ids have other codes; {self.rows_kept:,} rows kept, "
            f"{self.rows_new:,} new\n"
            f"assignment {self.assignment_seconds:.2f} s, {self.epochs} epochs {self.training_seconds:.2f} s"
        )


def update(
    tables: str | Path,
    interactions: pd.DataFrame,
    export: str | Path,
    data_dir: str | Path,
    epochs: int = EPOCHS,
    threshold: float = THRESHOLD,
    device: str = "auto",
) -> Update:
    """Take new interactions into an exported model, and export the result.

    New users and items get codes from the co-clusters that there are, and old ones other codes where that raises the
    objective enough (`baco.coclustering.update.update_labels`). Rows that stand for the same co-cluster as before begin
    with their values, and all are trained for a few epochs by the model's own protocol and loss on all interactions.
    The budget grows with the number of users and items. Validation and test stay what they were.

    Parameters
    ----------
    tables : file
        An export of a run, or of an update.
    interactions : DataFrame
        `user` and `item`, see `baco.serving.grown.grown`.
    export : file
        Where to write; it may be `tables`. The result has its interactions in it, so that it needs no other data.
    data_dir : folder
        Where the prepared datasets lie, as in training.
    epochs : int
        0 only gives codes and rows.
    threshold : float
        What the objective must gain for an old id to move, as a part of the id's interactions; infinite: none moves.

    Raises
    ------
    UserError
        When the method's codes cannot be updated, the export is too old to say what its codes stand for, the data are
        missing, the interactions are not fit, or the result is over the budget. Nothing is written then.
    """
    path, export = Path(tables), Path(export)
    Limits(at_least=0).check("epochs", epochs)
    chosen = resolve_device(device)
    arrays = read_export(path)
    model = from_json_array(arrays["model"])
    config = model["config"]
    settings = dict(config["method"])
    method: Compressor = (cls := method_class(settings.pop("name")))(build_settings(cls.Config, settings))
    check_writable(export, "export")
    before = load_data(arrays, path, Path(data_dir))
    data, added = grown(before, interactions)
    old = load_tables(arrays)
    if not isinstance(old, CodebookTables):
        raise UserError(f"these tables of method '{method.name}' cannot be updated; train again with all interactions")
    quantizer = quantizer_of(from_json_array(arrays["header"]))
    limit = config["budget"]["limit"] * data.train.num_nodes // before.train.num_nodes
    budget = Budget(limit, config["budget"]["unit"], config["budget"]["dim"], quantizer)
    config |= {"dataset": data.fingerprint, "budget": config["budget"] | {"limit": limit}}
    check_replaceable(export, config)

    start = time.perf_counter()
    growth = Growth(before.train, data.train)
    scale = popularity_scale(data.train.item_degrees, config["popularity"])
    assignment = method.update(old.assignment, growth, remaining_budget(scale, budget), threshold)
    new = CodebookTables(scale_items(assignment, scale), old.users.rows.shape[1])
    seconds = [time.perf_counter() - start]
    kept, fresh = continue_rows(new, old, data.train)
    result: EmbeddingTables = new if quantizer is None else packed(new, quantizer, config["seed"], data.train, method)
    cost = budget.amount(result.ledger())
    if method.has_budget and cost > limit:
        raise UserError(
            f"{path} would take {cost:,} {budget.unit} with the new users and items, over the {limit:,} that its "
            "budget comes to for so many; train again with all interactions"
        )

    start = time.perf_counter()
    train(result.to(chosen), data, config, epochs, chosen)
    seconds.append(time.perf_counter() - start)
    report = Update(added, share_changed(old.assignment, assignment), kept, fresh, epochs, *seconds)
    dataset = model["dataset"]
    source = build_settings(SOURCES[dataset.pop("source")], dataset)
    export_model(export, result, config, source, data, [*model.get("updates", []), asdict(report)])
    return report


def packed(
    tables: CodebookTables, quantizer: Quantizer, seed: int, graph: Biadjacency, method: Compressor
) -> QuantizedTables:
    """Tables whose rows are packed after training; ids with many interactions better, where the quantizer does that."""
    weights = None
    if isinstance(quantizer, RefinedQuantizer):
        assert isinstance(method, OneSided)  # no other method has such rows
        degrees = method.degrees_of_rows(graph, tables.assignment.details["rows"])
        weights = dict.fromkeys(tables.quantizable(), degrees)
    return QuantizedTables(tables, quantizer, int(stream(seed, "quantize").integers(2**31)), weights)


def train(tables: EmbeddingTables, data: Interactions, config: dict, epochs: int, device: torch.device) -> None:
    """Train tables, which lie on the device, from the values that they have, as the run of a configuration did."""
    if epochs == 0:
        tables.on_training_end()
        return
    settings = dict(config["loss"])
    loss: Loss = build_settings(loss_class(settings.pop("name")), settings)
    backbone = load_backbone(config, data.train)
    protocol = build_settings(Protocol, config["protocol"])
    Trainer(backbone, Evaluator(data), protocol, config["seed"], device, loss=loss).fit(tables, epochs)


def share_changed(old: Assignment, new: Assignment) -> float:
    """The share of old users and items whose codes name other rows now."""
    changed = [_changed(getattr(old, side), getattr(new, side)) for side in SIDES]
    return float(np.concatenate(changed).mean())


def _changed(old: Codes, new: Codes) -> np.ndarray:
    """(old ids,) bool, of one side."""
    size = old.num_ids
    found = np.zeros(size, bool)
    starts, lengths = zip(*((codes.bounds[:size], np.diff(codes.bounds)[:size]) for codes in (old, new)), strict=True)
    names, new_names = (codes.row_names[codes.index].ravel() for codes in (old, new))
    for place in range(max(lengths[0].max(), lengths[1].max())):
        first, second = (
            own[begin + np.minimum(place, length - 1)]
            for own, begin, length in zip((names, new_names), starts, lengths, strict=True)
        )
        found |= first != second
    return found
