"""The runs that an experiment asks for, found among the records.

A run is described by its settings and the files of conf/, a record by its configuration; they are compared key by key,
without the data, so that tables can be made where no data are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from baco.compressors.budget import Budget
from baco.runs.description import DECIDING, Description
from baco.runs.experiments import CONF, Settings


@dataclass(frozen=True)
class Wanted:
    """A run of an experiment.

    Attributes
    ----------
    settings : Settings
        As the experiment gives them.
    run : Description
        The same in the words of a record.
    """

    settings: Settings
    run: Description

    @classmethod
    def of(cls, settings: Settings, conf: Path = CONF) -> Wanted:
        """Describe a run; raises as `Description.of`."""
        return cls(settings, Description.of(settings, conf))

    @property
    def dataset(self) -> dict:
        """What conf/dataset says of it."""
        return self.run.dataset

    @property
    def config(self) -> dict:
        """The settings that decide its result, with the names of their groups."""
        return self.run.config

    @property
    def key(self) -> tuple[str, str | None]:
        """The names of dataset and method: what records of this run have for sure."""
        method = self.config["method"]
        return self.dataset["name"], None if method is None else method["name"]

    def matches(self, record: dict) -> bool:
        """Whether the record is of this run, on whatever split of the dataset."""
        return (
            record["names"]["dataset"] == self.dataset["name"]
            and all(record["config"][key] == value for key, value in self.config.items())
            and (not is_limited(record) or self._same_budget(record))
        )

    def _same_budget(self, record: dict) -> bool:
        data, size, run = record["dataset"], record["size"], self.run
        budget = Budget.parse(run.budget, run.budget_unit, data["num_users"], data["num_items"], self.config["dim"])
        return (size["budget_limit"], size["budget_unit"]) == (budget.limit, budget.unit)

    @property
    def shared(self) -> str:
        """What all rows of one section have in common, the split aside; equal strings for equal things."""
        shared = [self.dataset["name"], *(self.run.untuned[key] for key in ("backbone", "protocol", "loss", "dim"))]
        return json.dumps(shared, sort_keys=True)

    @property
    def row(self) -> Settings:
        """The settings that make a row of a table: of the method, the rows' format, the budget, and run-level ones."""
        of_row = {"method", "quantize", "budget", "budget_unit", *DECIDING} - {"dim", "seed"}  # a section's, a record's
        return {key: value for key, value in self.settings.items() if key.partition(".")[0] in of_row}


def is_limited(record: dict) -> bool:
    """Whether the run had to keep to a budget; the first records do not say so, but only the full model had none."""
    return record["size"].get("limited", record["names"]["method"] != "full")
