"""Recommendations from an exported model: what a server does with the file that `export=` wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from baco.backbones import Backbone
from baco.config import typed
from baco.data.interactions import SPLITS, Interactions
from baco.data.sources import SOURCES, source_name
from baco.errors import UserError
from baco.evaluation.evaluator import tie_order
from baco.evaluation.ranking import NO_ITEM, rank_items
from baco.files import read_arrays, write_arrays
from baco.quantization import unpack_export
from baco.registry import backbone_class, tables_class
from baco.tables import EmbeddingTables


def export_model(path: Path, tables: EmbeddingTables, backbone: Backbone, source: object, data: Interactions) -> None:
    """Write trained tables, packed as a server needs them, the ids of the source, and what `Recommender` must know.

    Parameters
    ----------
    source : Release, Log or Synthetic
        Where the data came from.
    """
    model = {
        "tables": tables.kind,
        "backbone": {"name": backbone.name} | asdict(backbone.config),
        "dataset": {"source": source_name(source)} | asdict(source),
        "fingerprint": data.fingerprint,
    }
    arrays = tables.export() | {"model": np.frombuffer(json.dumps(model).encode(), np.uint8)}
    if data.user_ids is not None:
        arrays |= {"user_ids": data.user_ids, "item_ids": data.item_ids}
    write_arrays(path, arrays)


class Recommender:
    """The final embeddings of a model, and what its users have already.

    Parameters
    ----------
    data : Interactions
    users, items : (num_users, dim) and (num_items, dim) float32
        Final embeddings, whose dot products are the scores.
    """

    def __init__(self, data: Interactions, users: Tensor, items: Tensor):
        self.data, self.users, self.items = data, users, items
        self._known = data.union(SPLITS).by_user
        self._tie_order = tie_order(data.num_items)

    @classmethod
    def load(cls, path: Path, data_dir: Path) -> Recommender:
        """Read what `export=` wrote, of any method, and propagate over the data that it was trained on.

        Parameters
        ----------
        data_dir : Path
            Where the prepared datasets lie, as in training.

        Raises
        ------
        UserError
            When the file is no such export, or the data are not to be had or are other ones.
        """
        advice = "write it with run.py and export="
        try:
            arrays = read_arrays(path)
        except FileNotFoundError:
            raise UserError(f"there is no file {path}; {advice}") from None
        except Exception as error:  # see `read_arrays`
            raise UserError(f"{path} cannot be read ({error}); {advice}") from None
        if "model" not in arrays:
            raise UserError(f"{path} does not say of which model it is; {advice}")
        model = json.loads(arrays["model"].tobytes())
        dataset = typed(SOURCES[model["dataset"].pop("source")], model["dataset"], "dataset.")
        data = dataset.load(data_dir)
        if data.fingerprint != model["fingerprint"]:
            raise UserError(
                f"{path} was trained on other interactions than '{data.name}' in {data_dir} has now; point "
                "BACO_DATA_DIR to those, or train again"
            )
        tables = tables_class(model["tables"]).from_export(unpack_export(arrays))
        backbone = backbone_class(model["backbone"].pop("name"))
        backbone = backbone(data.train, typed(backbone.Config, model["backbone"], "backbone."))
        with torch.no_grad():
            return cls(data, *backbone.final_embeddings(tables))

    def recommend(self, users: Sequence | None = None, k: int = 20) -> pd.DataFrame:
        """The best items that users do not have yet.

        Parameters
        ----------
        users : sequence, optional
            Their ids, as the data have them or as text; None: all.
        k : int
            Items for each user; fewer where a user has nearly all.

        Returns
        -------
        DataFrame : `user`, `rank` from 1, `item`, `score`; ids are those of the source where it had its own.

        Raises
        ------
        UserError
            When the data do not have a user.
        """
        if k < 1:
            raise UserError(f"k={k} must be 1 or more")
        numbers = np.arange(self.data.num_users) if users is None else self._numbers(users)
        ranked = rank_items(self.users, self.items, numbers, self._known, self._tie_order, k)
        row, rank = np.nonzero(ranked != NO_ITEM)
        user, item = numbers[row], ranked[row, rank]
        return pd.DataFrame(
            {
                "user": user if self.data.user_ids is None else self.data.user_ids[user],
                "rank": rank + 1,
                "item": item if self.data.item_ids is None else self.data.item_ids[item],
                "score": (self.users[user] * self.items[item]).sum(1).numpy(),
            }
        )

    def _numbers(self, users: Sequence) -> np.ndarray:
        """(len(users),) int64: their positions in the embeddings."""
        ids = np.arange(self.data.num_users) if self.data.user_ids is None else self.data.user_ids
        position = {str(one): number for number, one in enumerate(ids)}
        strangers = [user for user in users if str(user) not in position]
        if strangers:
            raise UserError(f"user '{strangers[0]}' has no interaction in '{self.data.name}'; such as '{ids[0]}' have")
        return np.array([position[str(user)] for user in users], np.int64)
