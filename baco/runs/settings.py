"""From a composed configuration to typed settings, checked before anything else happens."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from baco.backbones.backbone import Backbone
from baco.compressors.budget import Budget
from baco.compressors.compressor import Compressor
from baco.compressors.scoring import ScoringMethod
from baco.data.interactions import Interactions
from baco.data.sources import SOURCES, Source
from baco.embedding.quantizer import Quantizer
from baco.embedding.quantizers import QUANTIZERS
from baco.embedding.start import STARTS
from baco.errors import SettingError, UserError, keys_under, unknown
from baco.losses.loss import Loss
from baco.registry import backbone_class, loss_class, method_class
from baco.runs.description import DECIDING, RunSettings, scales_count, with_defaults, without_training
from baco.runs.experiments import CONF, GROUPS
from baco.training.protocol import Protocol
from baco.validation import Limits, build_settings


@dataclass(frozen=True, kw_only=True)
class RunConfig(RunSettings):
    """One run: the run-level settings, and what the groups chose."""

    dataset: Source
    backbone: type[Backbone]
    backbone_config: Backbone.Config
    method: Compressor | ScoringMethod
    protocol: Protocol
    loss: Loss
    quantize: Quantizer | None

    @property
    def label(self) -> str:
        """What tables and figures call the method of this run."""
        return self.method.label if self.quantize is None else f"{self.method.label} + {self.quantize.label}"

    def budget_on(self, data: Interactions) -> Budget:
        """The budget on a dataset: a ratio is one of the full model of `dim` columns, however wide these rows are.

        A method without a budget has the full model's size for a limit, which nothing checks.
        """
        value, sizes = self.budget if self.method.has_budget else None, (data.num_users, data.num_items)
        return replace(Budget.parse(value, self.budget_unit, *sizes, self.dim, self.quantize), dim=self.width)

    def load_dataset(self) -> Interactions:
        """The interactions; a `UserError` where they cannot be read or made."""
        with keys_under("dataset."):
            return self.dataset.load(self.data_dir)

    def describe(self) -> dict:
        """What decides a result, as plain values: not the data's whereabouts, device or folders."""
        config = {
            "backbone": {"name": self.backbone.name} | asdict(self.backbone_config),
            "method": {"name": self.method.name} | asdict(self.method.config),
            "protocol": asdict(self.protocol),
            "loss": {"name": self.loss.name} | asdict(self.loss),
            "quantize": None if self.quantize is None else {"name": self.quantize.name} | asdict(self.quantize),
        } | {key: getattr(self, key) for key in DECIDING}
        return without_training(config) if isinstance(self.method, ScoringMethod) else config


def configuration(overrides: list[str]) -> RunConfig:
    """The configuration of `baco run` with these overrides.

    Raises
    ------
    UserError
        As `parse`.
    HydraException
        For overrides that cannot be read; `baco.runs.hydra_errors.reword` says why.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return parse(compose("config", overrides))


def parse(cfg: DictConfig) -> RunConfig:
    """Check a composed configuration and build what it names.

    Raises
    ------
    UserError
        For an unknown name or key (with the nearest known one), a value of the wrong type, or one out of range.
    """
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
    except InterpolationResolutionError as error:
        raise UserError(f"a setting refers to what is not there: {str(error).splitlines()[0]}") from None
    for group in GROUPS:
        if not isinstance(plain.get(group), dict):
            raise UserError(f"{group}=NAME must choose one of conf/{group}; `baco run --help` lists them")
    sections = {group: dict(plain.pop(group)) for group in GROUPS}
    source = _taken(sections, "dataset", "source")
    if source not in SOURCES:
        raise unknown("dataset.source", source, SOURCES)
    backbone = backbone_class(_taken(sections, "backbone", "name"))
    method_type = method_class(_taken(sections, "method", "name"))
    with keys_under("dataset."):
        dataset: Source = build_settings(SOURCES[source], sections["dataset"])
        if not re.fullmatch(r"\w[\w.-]*", dataset.name):
            raise SettingError("name", dataset.name, "names files: it must be of letters, digits, '_', '-' and '.'")
    with keys_under("backbone."):
        backbone_config = build_settings(backbone.Config, sections["backbone"])
    trained = sections["method"].get("trained", True)
    if trained != issubclass(method_type, Compressor):
        raise SettingError("method.trained", trained, f"is not true of method={method_type.name}; leave it as it was")
    groups = (sections[group] for group in ("dataset", "backbone", "loss", "method"))
    plain, sections["method"] = with_defaults(plain, *groups)
    run = build_settings(RunSettings, plain)
    Limits(one_of=STARTS).check("start", run.start)
    if run.popularity and not issubclass(method_type, Compressor):
        raise UserError(f"popularity={run.popularity} is for methods that are trained; '{method_type.name}' is not")
    if run.popularity and not scales_count(sections["backbone"], sections["loss"]):
        raise UserError(
            f"popularity={run.popularity} changes no cosine of backbone={backbone.name}; take loss.score=dot or "
            "popularity=0"
        )
    if run.start != "normal" and not method_type.has_start:
        raise UserError(f"start={run.start} does not work with method={method_type.name}; take start=normal")
    if run.width > run.dim:
        raise SettingError("columns", run.columns, f"is more than dim={run.dim}; lower it, or raise dim")
    quantizer = _taken(sections, "quantize", "name")
    if issubclass(method_type, ScoringMethod):
        _refuse_tables(method_type.name, run, quantizer)
    with keys_under("method."):
        method = method_type(build_settings(method_type.Config, sections["method"]))
    with keys_under("protocol."):
        protocol = build_settings(Protocol, sections["protocol"])
    loss_type = loss_class(_taken(sections, "loss", "name"))
    with keys_under("loss."):
        loss: Loss = build_settings(loss_type, sections["loss"])
    return RunConfig(
        dataset=dataset,
        backbone=backbone,
        backbone_config=backbone_config,
        method=method,
        protocol=protocol,
        loss=loss,
        quantize=_quantizer(quantizer, sections["quantize"], run.width),
        **asdict(run),
    )


def _refuse_tables(method: str, run: RunSettings, quantizer: str) -> None:
    """Refuse what is about embedding tables, for a method that has none."""
    asked = {
        "export": run.export,
        "full_export": run.full_export,
        "lazy_rows": run.lazy_rows or None,
        "quantize": quantizer if quantizer != "none" else None,
    }
    for key, value in asked.items():
        if value is not None:
            raise SettingError(key, None, f"is for embedding tables, and method={method} has none; leave it out")


def _taken(sections: dict[str, dict], group: str, key: str) -> str:
    """What says which class a section configures, taken out of it."""
    if key not in sections[group]:
        raise UserError(f"{group}.{key} is missing; the file of conf/{group} that was chosen must have it")
    return sections[group].pop(key)


def _quantizer(name: str, section: dict, dim: int) -> Quantizer | None:
    if name not in ("none", *QUANTIZERS):
        raise unknown("quantize.name", name, ["none", *QUANTIZERS])
    if name == "none":
        if section:
            key = next(iter(section))
            raise UserError(f"quantize.{key} is no setting of quantize=none; leave it out, or choose a format")
        return None
    with keys_under("quantize."):
        quantizer: Quantizer = build_settings(QUANTIZERS[name], section)
        quantizer.format(dim)  # refuses settings that do not suit the width
    return quantizer
