"""Experiments as they stand: which of their runs are recorded, joined over seeds, and compared.

experiment -> sections (dataset, split, backbone, protocol, loss, width) -> rows (method, its settings, budget) ->
records
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from baco.embedding.cost import FLOAT_BYTES
from baco.evaluation.metrics import user_metrics
from baco.results.published import method_label
from baco.results.significance import Comparison, compare, holm
from baco.results.wanted import Wanted, is_limited
from baco.runs.experiments import CONF, Experiment, Settings, command, overrides
from baco.runs.record import lookup, record_arrays, unpack_hits

OURS = "baco"  # rows are tested against the first one of this method
IN_LABEL = ("quantize.blocks=", "quantize.bits=")  # what the label of a format says by itself


@dataclass(eq=False)
class Row:
    """The runs of one method, with its settings and budget, that differ in their seeds only.

    Attributes
    ----------
    settings : Settings
        Those of the method, and the budget, as the experiment gives them.
    known : bool
        Whether there is such a method.
    name : str
        What reports call the method.
    experiment : str
        Which asks for the row.
    records : list of dict
    missing : list of Settings
        Runs without a record.
    """

    settings: Settings
    known: bool
    name: str
    experiment: str
    records: list[dict] = field(default_factory=list)
    missing: list[Settings] = field(default_factory=list)

    @property
    def method(self) -> str:
        return self.settings.get("method", OURS)

    @property
    def variant(self) -> str:
        """The settings beside the method's name, as a reader needs them."""
        packed = {} if self.quantize == "none" else {"quantize": self.quantize}
        return ", ".join([*overrides(packed), *self._changed])

    @property
    def quantize(self) -> str:
        """How the rows are packed, as the command line says it."""
        return self.settings.get("quantize", "none")

    @property
    def _changed(self) -> list[str]:
        kinds = ("method.", "quantize.", "columns", "popularity", "start")
        own = {key: value for key, value in self.settings.items() if key.startswith(kinds)}
        return [text.removeprefix("method.") for text in overrides(own)]

    @property
    def budget(self) -> str:
        """What the row's budget is called; empty for the dataset's own."""
        value = self.settings.get("budget")
        if value == 1:
            return "none"
        amount = "" if value is None else f"{100 * value:g}%" if value < 1 else f"{value:,} rows"
        return f"{amount} in bytes".lstrip() if self.settings.get("budget_unit") == "bytes" else amount

    @property
    def label(self) -> str:
        """The method's name as reports print it, with what this row changes."""
        if not self.records:
            packed = "" if self.quantize == "none" else f" + {self.quantize}"
            return ", ".join([self.name + packed, *self._changed])
        changed = [text for text in self._changed if not text.startswith(IN_LABEL)]
        return ", ".join([self.records[0]["labels"]["method"], *changed])

    @property
    def limited(self) -> bool:
        """Whether the method can keep to a budget; one that cannot has the size that it has."""
        return not self.records or is_limited(self.records[0])

    @property
    def cut_off(self) -> bool:
        """Whether at least half of its runs were trained to the last epoch while validation recall rose."""
        return self.mean("training.convergence.cut_off") >= 0.5

    @property
    def seeds(self) -> list[int]:
        return [record["config"]["seed"] for record in self.records]

    def seeds_with(self, other: Row) -> frozenset[int]:
        """The seeds that both rows have: what differences between them are tested over."""
        return frozenset(self.seeds) & frozenset(other.seeds)

    def values(self, path: str) -> np.ndarray:
        """(records,) float64: what each record has at a path of keys; NaN where it has nothing."""
        found = (lookup(record, path) for record in self.records)
        return np.array([np.nan if value is None else value for value in found], np.float64)

    def differences(self, other: Row, path: str) -> list[float]:
        """This row's value minus the other's for each seed that both have, in the order of the seeds."""
        own, others = (dict(zip(row.seeds, row.values(path), strict=True)) for row in (self, other))
        return [float(own[seed] - others[seed]) for seed in sorted(self.seeds_with(other))]

    def mean(self, path: str) -> float:
        """NaN where nothing is recorded, or a record lacks it."""
        values = self.values(path)
        return float(values.mean()) if len(values) else float("nan")

    def deviation(self, path: str) -> float:
        """The sample standard deviation over seeds; NaN for a single one."""
        values = self.values(path)
        return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


Tests = dict[Row, list[tuple[Comparison, float]]]  # for each metric a comparison with ours, and its p-value


@dataclass(eq=False)
class Section:
    """Rows that can be compared: of one dataset and split, one backbone, protocol, loss and width.

    Attributes
    ----------
    experiment : Experiment
    about : Wanted
        One of its runs, without the settings of the dataset in which others differ from it.
    backbone : str
        What reports call the backbone.
    fingerprint : str or None
        Of the split; None where nothing is recorded yet.
    rows : list of Row
        In the experiment's order.
    folder : Path
        Where the records lie.
    one_of_several : bool
        Whether other sections differ from this one in their split only.
    """

    experiment: Experiment
    about: Wanted
    backbone: str
    fingerprint: str | None
    rows: list[Row]
    folder: Path
    one_of_several: bool = False

    @property
    def records(self) -> list[dict]:
        return [record for row in self.rows for record in row.records]

    @property
    def name(self) -> str:
        """Dataset, backbone and protocol in three words, what is changed of the last two, and which split it is."""
        protocol = self.about.config["protocol"]["name"]
        training = ["without training"] if protocol == "none" else [self.backbone, f"protocol {protocol}"]
        parts = [self.about.dataset["name"], *training, self.changed]
        split = f"split {self.fingerprint[:8]}" if self.one_of_several and self.fingerprint else ""
        return ", ".join(part for part in (*parts, split) if part)

    @property
    def changed(self) -> str:
        """What the experiment changes of backbone, protocol and loss."""
        kinds = ("backbone.", "protocol.", "loss")
        own = {key: value for key, value in self.about.settings.items() if key.startswith(kinds)}
        return ", ".join(text.removeprefix("backbone.").removeprefix("protocol.") for text in overrides(own))

    @property
    def command(self) -> str:
        """The command that runs what is missing here of the section's own experiment."""
        return self.command_of(self.experiment.name)

    def command_of(self, experiment: str) -> str:
        """The command that runs what is missing here of an experiment."""
        run = self.about.settings
        own = {
            k: v for k, v in run.items() if k.partition(".")[0] in ("dataset", "backbone", "protocol", "loss", "dim")
        }
        return command({"+grid": experiment} | own)

    @cached_property
    def groups(self) -> list[list[Row]]:
        """Rows of equal budget; only within such a group is one row better than another."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.budget, []).append(row)
        return list(groups.values())

    def ranked(self, path: str, *, highest: bool = True) -> dict[Row, int]:
        """The best row of each group as 0 and the runner-up as 1, among those within the group's budget."""
        places: dict[Row, int] = {}
        for group in self.groups:
            limited = [row.records[0]["size"] for row in group if row.records and row.limited]
            if not limited:
                continue  # without a budget the larger one is no better
            limit, unit = min(size["budget_limit"] for size in limited), limited[0]["budget_unit"]
            if limit >= limited[0]["full_parameters"] * (FLOAT_BYTES if unit == "bytes" else 1):
                continue
            within = [row for row in group if row.records and row.mean(f"size.{unit}") <= limit]
            within = [row for row in within if not np.isnan(row.mean(path))]
            if len(within) > 1:
                within.sort(key=lambda row: row.mean(path), reverse=highest)
                places |= {within[0]: 0, within[1]: 1}
        return places

    def tested(self, metrics: list[tuple[str, int]], ours_is: str = OURS) -> Tests:
        """Each row against the first of a method in its group, by each metric; p-values are Holm-corrected.

        Paired over users, each user's value the mean over the seeds that both rows have. Rows without per-user values
        or a common seed are left out. The family of a correction is the tested rows of a group, each metric by itself.
        """
        results = {}
        for group in self.groups:
            ours = first_of(ours_is, group)
            made, of_ours = {}, {}  # the second by seeds, which most rows share
            for row in group:
                if ours is None or row is ours:
                    continue
                seeds = row.seeds_with(ours)
                if not seeds:
                    continue
                if seeds not in of_ours:
                    of_ours[seeds] = self._per_user(ours, seeds, metrics)
                values, others = self._per_user(row, seeds, metrics), of_ours[seeds]
                if values is not None and others is not None:
                    made[row] = [compare(*pair) for pair in zip(values, others, strict=True)]
            adjusted = [holm([made[row][number].p for row in made]) for number in range(len(metrics))]
            for place, (row, comparisons) in enumerate(made.items()):
                results[row] = [(one, adjusted[number][place]) for number, one in enumerate(comparisons)]
        return results

    def _per_user(self, row: Row, seeds: frozenset[int], metrics: list[tuple[str, int]]) -> np.ndarray | None:
        """(len(metrics), users) float64, means over the seeds; None if they were not kept."""
        found: list[np.ndarray] = []
        for record in row.records:
            if record["config"]["seed"] in seeds:
                arrays = record_arrays(record, self.folder)
                if "hits" not in arrays:
                    return None
                _, num_relevant, hits = unpack_hits(arrays)
                at = {k: user_metrics(hits, num_relevant, k) for k in {k for _, k in metrics}}
                found.append(np.stack([at[k][metric] for metric, k in metrics]))
        return np.sum(found, axis=0) / len(seeds)


def first_of(method: str, group: list[Row]) -> Row | None:
    """What the rows of a group are compared with: its first recorded row of a method, if it has one."""
    return next((row for row in group if row.method == method and row.records), None)


def sections(experiment: Experiment, records: list[dict], folder: Path, conf: Path = CONF) -> list[Section]:
    """The experiment's sections, in its order; one for each split that is recorded, or one without a split."""
    plain = (record for record in records if record["config"]["quantize"] is None)
    names = {record["names"]["method"]: record["labels"]["method"] for record in plain}
    backbones = {record["names"]["backbone"]: record["labels"]["backbone"] for record in records}
    recorded: dict[tuple[str, str | None], list[dict]] = {}  # by dataset and method, to look through few for each run
    for record in reversed(records):
        recorded.setdefault((record["names"]["dataset"], record["config"]["method"]["name"]), []).append(record)
    by_shared: dict[str, list[Wanted]] = {}
    for settings in experiment.runs:
        wanted = Wanted.of(settings, conf)
        known = by_shared.setdefault(wanted.shared, [])
        if all((wanted.run, wanted.row) != (other.run, other.row) for other in known):
            known.append(wanted)  # what trains nothing is one run for all seeds and backbones
    made = []
    for runs in by_shared.values():
        alike: dict[tuple, list[Wanted]] = {}  # runs that differ in their split, or the order of settings, only
        for wanted in runs:
            alike.setdefault((wanted.config["seed"], frozenset(wanted.row.items())), []).append(wanted)
        found = [
            {one["dataset"]["fingerprint"]: one for one in recorded.get(wanted.key, ()) if wanted.matches(one)}
            for wanted, *_ in alike.values()
        ]
        backbone_name = runs[0].config["backbone"]["name"]
        backbone = backbones.get(backbone_name, backbone_name)
        splits = sorted(set().union(*found)) or [None]
        about = replace(runs[0], settings=_agreed(runs))
        for split in splits:
            rows: dict[frozenset, Row] = {}
            for group, by_split in zip(alike.values(), found, strict=True):
                wanted = group[0]
                method = wanted.row.get("method", OURS)
                label = names.get(method) or method_label(method)
                new = Row(wanted.row, wanted.config["method"] is not None, label, experiment.name)
                row = rows.setdefault(frozenset(wanted.row.items()), new)
                if split in by_split:
                    row.records.append(by_split[split])
                else:
                    row.missing.append(wanted.settings)
                if split == splits[-1]:  # runs of splits of which nothing is recorded
                    row.missing += [other.settings for other in group[max(1, len(by_split)) :]]
            made.append(Section(experiment, about, backbone, split, list(rows.values()), folder, len(splits) > 1))
    return made


def _agreed(runs: list[Wanted]) -> Settings:
    """The settings of the first run, but those of the dataset in which others differ: these tell splits apart."""
    first = runs[0].settings
    return {
        key: value
        for key, value in first.items()
        if not key.startswith("dataset.") or all(run.settings.get(key) == value for run in runs)
    }


def join_sections(several: list[Section]) -> list[Section]:
    """Sections of several experiments; of those that share split, backbone, protocol and width one, with all rows."""
    made: dict[tuple, Section] = {}
    for section in several:
        key = section.about.shared, section.fingerprint
        rows = made[key].rows if key in made else []
        known = [row.settings for row in rows]
        fresh = [row for row in section.rows if row.settings not in known]
        made[key] = replace(made.get(key, section), rows=rows + fresh)
    return list(made.values())
