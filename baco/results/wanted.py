"""The runs that an experiment asks for, found among the records.

A run is described by its settings and the files of conf/, a record by its configuration; they are compared key by key,
without the data, so that tables can be made where no data are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf

from baco.compressors.budget import Budget
from baco.errors import UserError
from baco.runs.defaults import filled
from baco.runs.experiments import CONF, Settings


@dataclass(frozen=True)
class Wanted:
    """A run of an experiment, in the words of a record.

    Attributes
    ----------
    settings : Settings
        As the experiment gives them.
    dataset : dict
        What conf/dataset says of it.
    backbone, protocol, method : dict
        Settings with their names. The method's is None while there is no such method.
    quantize : dict or None
        Settings with their names; None where rows stay in float32.
    popularity : float
        The exponent of the items' scale.
    start : str
        First values, normal or spectral.
    dim, seed : int
    budget : float
        A ratio of the full model, or rows.
    budget_unit : str
    """

    settings: Settings
    dataset: dict
    backbone: dict
    protocol: dict
    method: dict | None
    quantize: dict | None
    popularity: float
    start: str
    dim: int
    seed: int
    budget: float
    budget_unit: str

    @classmethod
    def of(cls, settings: Settings, conf: Path = CONF) -> Wanted:
        """Describe a run; `settings` are on top of conf/config.yaml.

        Raises
        ------
        UserError
            For a file of conf/ that does not exist, other than a method's.
        """
        main = dict(_yaml(conf / "config.yaml"))
        choices = {
            group: name for entry in main.pop("defaults") if isinstance(entry, dict) for group, name in entry.items()
        }
        sections = {}
        for group in ("dataset", "backbone", "protocol", "method", "quantize"):
            path = conf / group / f"{settings.get(group, choices[group])}.yaml"
            own = {key.partition(".")[2]: value for key, value in settings.items() if key.startswith(f"{group}.")}
            sections[group] = dict(_yaml(path)) | own if group != "method" or path.exists() else None
        if sections["quantize"]["name"] == "none":
            sections["quantize"] = None
        of_method = sections["method"] or {}
        scalars = filled(main | settings, sections["dataset"], sections["backbone"], of_method)
        own = {key: scalars[key] for key in ("popularity", "start", "dim", "seed", "budget", "budget_unit")}
        return cls(settings, **sections, **own)

    @property
    def key(self) -> tuple[str, str | None]:
        """The names of dataset and method: what records of this run have for sure."""
        return self.dataset["name"], None if self.method is None else self.method["name"]

    def matches(self, record: dict) -> bool:
        """Whether the record is of this run, on whatever split of the dataset."""
        config = record["config"]
        return (
            record["names"]["dataset"] == self.dataset["name"]
            and config["method"] == self.method
            and config.get("quantize") == self.quantize
            and config.get("popularity", 0.0) == self.popularity
            and config.get("start", "normal") == self.start
            and config["backbone"] == self.backbone
            and config["protocol"] == self.protocol
            and (config["dim"], config["seed"]) == (self.dim, self.seed)
            and (not is_limited(record) or self._same_budget(record))
        )

    def _same_budget(self, record: dict) -> bool:
        data, size = record["dataset"], record["size"]
        budget = Budget.parse(self.budget, self.budget_unit, data["num_users"], data["num_items"], self.dim)
        return (size["budget_limit"], size["budget_unit"]) == (budget.limit, budget.unit)

    @property
    def shared(self) -> str:
        """What all rows of one section have in common, the split aside; equal strings for equal things."""
        return json.dumps([self.dataset["name"], self.backbone, self.protocol, self.dim], sort_keys=True)

    @property
    def row(self) -> Settings:
        """The settings that make a row of a table: of the method, its rows' format, scale and start, and the budget."""
        groups = ("method", "quantize", "popularity", "start", "budget", "budget_unit")
        return {key: value for key, value in self.settings.items() if key.partition(".")[0] in groups}


def is_limited(record: dict) -> bool:
    """Whether the run had to keep to a budget; the first records do not say so, but only the full model had none."""
    return record["size"].get("limited", record["names"]["method"] != "full")


@cache
def _yaml(path: Path) -> dict:
    if not path.exists():
        raise UserError(f"there is no file {path}, which an experiment needs")
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
