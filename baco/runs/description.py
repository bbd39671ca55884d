"""What a run is, as plain values: the one description that the runner, records and tables share.

A description names its groups (`GROUPS`) with their settings, and the run-level keys of conf/config.yaml that decide a
result. A new one is a field of `RunSettings` here and a line in conf/config.yaml; nothing else knows it by name.
This module imports no torch: tables are made where there is none.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from baco.errors import UserError
from baco.runs.experiments import CONF, GROUPS, Settings
from baco.runs.tuned import TUNED_FOR, tuned_file
from baco.validation import LIMITS, Limits, Validated, setting

MOST_DIM = 1000  # the width is the length of a tuple in compiled code, and numba takes none that is longer
BEFORE = "before"  # the key of a field's metadata
OWN_LOSS, OWN_TUNED = "/loss@_global_.loss", "optional /tuned@_global_"  # in the defaults of a protocol's file
# keys of conf/method that describe the run, not the method
OF_RUN = ("mf_code_share", "mf_popularity", "start", "trained")


def deciding(before: Any = MISSING, **limits: Any) -> Any:
    """A run-level setting that decides results.

    Parameters
    ----------
    before : optional
        The value of all runs that were recorded before there was this key. It is left out of ids, so that theirs stay.
    limits : as in `setting`
    """
    return field(metadata={LIMITS: Limits(**limits)} | {BEFORE: before} if limits else {BEFORE: before})


@dataclass(frozen=True, kw_only=True)
class RunSettings(Validated):
    """The keys of conf/config.yaml that are no groups; each is explained there."""

    budget: float
    budget_unit: str
    popularity: float = deciding(before=0.0, at_least=0, at_most=1)
    start: str = deciding(before="normal")
    dim: int = deciding(at_least=1, at_most=MOST_DIM)
    columns: int | None = deciding(before=None, at_least=1, at_most=MOST_DIM)
    lazy_rows: bool = deciding(before=False)
    ranked_users: int | None = deciding(before=None, at_least=1)
    seed: int = deciding(at_least=0)
    device: str
    threads: int | None
    data_dir: Path
    results_dir: Path
    runs_dir: Path
    export: Path | None
    full_export: Path | None
    force: bool
    checkpoint_every: float = setting(at_least=0)
    assign_only: bool
    minutes: float | None
    worker: int

    @property
    def width(self) -> int:
        """Of the embeddings that are trained."""
        return self.dim if self.columns is None else self.columns


DECIDING = {key.name: key.metadata[BEFORE] for key in fields(RunSettings) if BEFORE in key.metadata}
NOTHING = {"name": "none"}  # of a group that a run has no use for
ONCE_ONLY_LOSS = {"name": "bpr", "score": "dot"}  # of the runs before there were several, its epsilon the protocol's
PROTOCOL_ADDED_LATER = {"steps_per_epoch": None}
METHOD_ADDED_LATER: dict[str, dict[str, Any]] = {  # by method: keys, and what their lack means in its older records
    "random": {"share_sides": False},
    "double": {"share_sides": False},
    "baco": {"search": "solves"},
    "baco_plus": {"search": "solves"},
    "one_sided": {"search": "solves", "own_from": None},
}
ADDED_LATER = {"quantize": None} | {key: value for key, value in DECIDING.items() if value is not MISSING}


def complete(config: dict) -> dict:
    """A record's configuration with every key, whenever it was made."""
    if "loss" not in config:
        protocol = dict(config["protocol"])
        epsilon = protocol.pop("loss_epsilon", None)
        loss = NOTHING if epsilon is None else ONCE_ONLY_LOSS | {"epsilon": epsilon}
        if loss != NOTHING:
            protocol |= PROTOCOL_ADDED_LATER
        config = config | {"loss": loss, "protocol": protocol}
    method = config["method"]
    return ADDED_LATER | config | {"method": METHOD_ADDED_LATER.get(method["name"], {}) | method}


def distinguishing(config: dict) -> dict:
    """A record's configuration without what all runs had when there was no key for it: what its id is made of."""
    old = PROTOCOL_ADDED_LATER.items()
    protocol = {key: value for key, value in config["protocol"].items() if (key, value) not in old}
    method, later = config["method"], METHOD_ADDED_LATER.get(config["method"]["name"], {}).items()
    method = {key: value for key, value in method.items() if (key, value) not in later}
    config, loss = config | {"protocol": protocol, "method": method}, config.get("loss", {})
    if loss == NOTHING or ONCE_ONLY_LOSS.items() <= loss.items():
        epsilon = {} if loss == NOTHING else {"loss_epsilon": loss["epsilon"]}
        others = {key: value for key, value in config.items() if key != "loss"}
        config = others | {"protocol": protocol | epsilon}
    return {key: value for key, value in config.items() if key not in ADDED_LATER or value != ADDED_LATER[key]}


def scales_count(backbone: dict, loss: dict) -> bool:
    """Whether scaled items have other scores: cosines undo it, unless layer 0 is propagated."""
    return backbone.get("num_layers", 0) > 0 or loss.get("score") != "cosine"


def with_defaults(run: dict, dataset: dict, backbone: dict, loss: dict, method: dict) -> tuple[dict, dict]:
    """Replace nulls of run-level settings by what dataset and method say.

    Of a method, the keys in `OF_RUN` describe the run. `mf_code_share` is the `code_share` of backbones that do not
    propagate, unless it is given; `mf_popularity` is for those whose scores are dot products.

    Parameters
    ----------
    run : dict
        The run-level settings.
    dataset, backbone, loss, method : dict
        The settings of these groups.

    Returns
    -------
    run, method : dict
        The run-level settings without such nulls, and the method's settings proper.

    Raises
    ------
    UserError
        When there is no budget.
    """
    propagates = backbone.get("num_layers", 0) > 0
    scaled = not propagates and scales_count(backbone, loss)
    own = {
        "budget": dataset.get("budget"),
        "popularity": method.get("mf_popularity", 0.0) if scaled else 0.0,
        "start": method.get("start", "normal"),
    }
    if run["budget"] is None and own["budget"] is None:
        raise UserError("this dataset has no budget of its own; give one, such as budget=0.25")
    proper = {key: value for key, value in method.items() if key not in OF_RUN}
    if "mf_code_share" in method and proper["code_share"] is None:
        proper["code_share"] = 0.0 if propagates else method["mf_code_share"]
    return run | {key: value for key, value in own.items() if run[key] is None}, proper


def without_training(config: dict) -> dict:
    """The description of a run of a method that trains nothing: what only a training has decides nothing."""
    groups = dict.fromkeys(("backbone", "protocol", "loss"), NOTHING)
    return config | ADDED_LATER | groups | {"dim": 0, "seed": 0}


@dataclass(frozen=True)
class Description:
    """A run in the words of a record.

    Attributes
    ----------
    dataset : dict
        What conf/dataset says of it.
    config : dict
        As `config` of a record has it, without the data's fingerprint and the budget, which depend on the data. Its
        `method` is None while there is no such method.
    budget : float
        A ratio of the full model, or a number of rows.
    budget_unit : str
    untuned : dict
        `config` without what was tuned for the method: its protocol and loss are what methods of one table share.
    """

    dataset: dict
    config: dict
    budget: float
    budget_unit: str
    untuned: dict

    @classmethod
    def of(cls, settings: Settings, conf: Path = CONF) -> Description:
        """Describe a run by its settings, which are on top of conf/config.yaml, and the files of the configuration.

        Raises
        ------
        UserError
            For a file of the configuration that does not exist, other than a method's.
        """
        run = dict(_yaml(conf / "config.yaml"))
        choices = {
            group: name for entry in run.pop("defaults") if isinstance(entry, dict) for group, name in entry.items()
        } | {group: settings[group] for group in GROUPS if group in settings}
        own_loss, *others = _yaml(conf / "protocol" / f"{choices['protocol']}.yaml")["defaults"]
        choices.setdefault("loss", own_loss[OWN_LOSS])
        path = tuned_file((choices[group] for group in TUNED_FOR), conf / "tuned")
        tuned = _yaml(path) if any(OWN_TUNED in entry for entry in others) and path.exists() else {}
        sections: dict[str, dict | None] = {}
        plain: dict[str, dict] = {}
        for group in GROUPS:
            path = conf / group / f"{choices[group]}.yaml"
            if group == "method" and not path.exists():
                sections[group] = None
                continue
            file = {key: value for key, value in _yaml(path).items() if key != "defaults"}
            given = {key.partition(".")[2]: value for key, value in settings.items() if key.startswith(f"{group}.")}
            sections[group], plain[group] = file | tuned.get(group, {}) | given, file | given
        dataset, method = sections.pop("dataset") or {}, sections["method"]
        backbone, loss = sections["backbone"] or {}, sections["loss"] or {}
        run, proper = with_defaults(run | settings, dataset, backbone, loss, method or {})
        if method is not None:
            sections["method"] = proper
        quantize = sections["quantize"] or {}
        if quantize["name"] == "none":
            sections["quantize"] = None
        config = sections | {key: run[key] for key in DECIDING}
        untuned = config | {group: plain[group] for group in ("protocol", "loss")}
        if method is not None and not method.get("trained", True):
            config, untuned = without_training(config), without_training(untuned)
        return cls(dataset, config, run["budget"], run["budget_unit"], untuned)


@cache
def _yaml(path: Path) -> dict:
    if not path.exists():
        raise UserError(f"there is no file {path}, which an experiment needs")
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    if not isinstance(content, dict):
        raise UserError(f"{path} must be a mapping from keys to values")
    return {str(key): value for key, value in content.items()}
