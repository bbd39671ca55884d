"""From a composed configuration to typed settings, checked before anything else happens."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, ValidationError

from baco.backbones.backbone import Backbone
from baco.compressors.compressor import CodeCompressor, Compressor
from baco.compressors.popularity import check_popularity
from baco.data.sources import SOURCES
from baco.embedding.quantizers import QUANTIZERS, Quantizer
from baco.embedding.start import STARTS
from baco.errors import UserError, unknown
from baco.registry import backbone_class, method_class
from baco.runs.defaults import filled
from baco.runs.experiments import GROUPS
from baco.training.protocol import Protocol


@dataclass(frozen=True)
class Scalars:
    """The keys of conf/config.yaml that are no groups; each is explained there."""

    budget: float
    budget_unit: str
    dim: int
    popularity: float
    start: str
    seed: int
    device: str
    threads: int | None
    data_dir: Path
    results_dir: Path
    runs_dir: Path
    export: Path | None
    full_export: Path | None
    force: bool
    checkpoint_every: float
    assign_only: bool
    minutes: float | None
    worker: int

    def __post_init__(self):
        if self.checkpoint_every < 0:
            raise UserError(f"checkpoint_every={self.checkpoint_every} must be 0 or more seconds")
        if self.dim < 1:
            raise UserError(f"dim={self.dim} must be 1 or more")
        check_popularity(self.popularity)
        if self.start not in STARTS:
            raise unknown("start", self.start, STARTS)
        if self.seed < 0:
            raise UserError(f"seed={self.seed} must be 0 or more")


@dataclass(frozen=True)
class RunConfig(Scalars):
    """One run: the scalars, and what the groups chose."""

    dataset: object
    backbone: type[Backbone]
    backbone_config: object
    method: Compressor
    protocol: Protocol
    quantize: Quantizer | None

    @property
    def label(self) -> str:
        """What tables and figures call the method of this run."""
        return self.method.label if self.quantize is None else f"{self.method.label} + {self.quantize.label}"

    def decides(self) -> dict:
        """The settings that decide a result, as plain values: not the data's whereabouts, device or folders."""
        decides = {
            "backbone": {"name": self.backbone.name} | asdict(self.backbone_config),
            "method": {"name": self.method.name} | asdict(self.method.config),
            "protocol": asdict(self.protocol),
            "dim": self.dim,
            "seed": self.seed,
        }
        if self.quantize is not None:
            decides["quantize"] = {"name": self.quantize.name} | asdict(self.quantize)
        if self.popularity != 0:
            decides["popularity"] = self.popularity
        if self.start != "normal":
            decides["start"] = self.start
        return decides


def parse(cfg: DictConfig) -> RunConfig:
    """Check a composed configuration and build what it names.

    Raises
    ------
    UserError
        For an unknown name or key (with the nearest known one), a value of the wrong type, or one out of range.
    """
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
    except InterpolationResolutionError as error:
        raise UserError(f"a setting refers to what is not there: {str(error).splitlines()[0]}") from None
    sections = {group: dict(plain.pop(group)) for group in GROUPS}
    source = _taken(sections, "dataset", "source")
    if source not in SOURCES:
        raise unknown("dataset.source", source, SOURCES)
    backbone = backbone_class(_taken(sections, "backbone", "name"))
    method = method_class(_taken(sections, "method", "name"))
    dataset = typed(SOURCES[source], sections["dataset"], "dataset.")
    if not re.fullmatch(r"\w[\w.-]*", dataset.name):
        raise UserError(f"dataset.name={dataset.name} names files: it must be of letters, digits, '_', '-' and '.'")
    backbone_config = typed(backbone.Config, sections["backbone"], "backbone.")
    scalars = typed(Scalars, filled(plain, sections["dataset"], sections["backbone"], sections["method"]), "")
    if scalars.popularity and not issubclass(method, CodeCompressor):
        raise UserError(f"popularity={scalars.popularity} is for methods that assign codes; '{method.name}' does not")
    if scalars.start != "normal" and not method.has_start:
        raise UserError(f"start={scalars.start} is not to be had with method={method.name}; take start=normal")
    return RunConfig(
        dataset=dataset,
        backbone=backbone,
        backbone_config=backbone_config,
        method=method(typed(method.Config, sections["method"], "method.")),
        protocol=typed(Protocol, sections["protocol"], "protocol."),
        quantize=_quantizer(_taken(sections, "quantize", "name"), sections["quantize"]),
        **asdict(scalars),
    )


def _taken(sections: dict[str, dict], group: str, key: str) -> str:
    """What says which class a section configures, taken out of it."""
    if key not in sections[group]:
        raise UserError(f"{group}.{key} is missing; the file of conf/{group} that was chosen must have it")
    return sections[group].pop(key)


def _quantizer(name: str, section: dict) -> Quantizer | None:
    if name not in ("none", *QUANTIZERS):
        raise unknown("quantize.name", name, ["none", *QUANTIZERS])
    if name == "none":
        if section:
            key = next(iter(section))
            raise UserError(f"quantize.{key} is no setting of quantize=none; leave it out, or choose a format")
        return None
    return typed(QUANTIZERS[name], section, "quantize.")


def typed(cls: type, section: dict, prefix: str):
    """An instance of a settings dataclass; `prefix` is where its keys stand on the command line."""
    known = [field.name for field in fields(cls)]
    for key in section:
        if key not in known:
            raise unknown("setting", f"{prefix}{key}", [f"{prefix}{name}" for name in known])
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), section))
    except ValidationError as error:
        (wanted,) = (field.type for field in fields(cls) if field.name == error.full_key.partition(".")[0])
        value = section.get(error.full_key, "")
        raise UserError(f"{prefix}{error.full_key}={value} must be of the type {wanted}") from None
    except MissingMandatoryValue as error:
        raise UserError(f"{prefix}{error.full_key} must be given, as in {prefix}{error.full_key}=VALUE") from None
