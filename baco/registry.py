"""Names of methods, backbones and losses, as configurations spell them, and of kinds of tables, as exports do.

A class registers itself with one decorator; looking a name up imports `baco`'s own classes and every module of the
`baselines` package first. A new method or loss is therefore one class and one YAML, and no list has to be extended.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any

from baco.errors import unknown

METHODS: dict[str, type[Any]] = {}
BACKBONES: dict[str, type[Any]] = {}
LOSSES: dict[str, type[Any]] = {}
TABLES: dict[str, type[Any]] = {}


def register_method(name: str) -> Callable[[type], type]:
    """Class decorator: make a compressor known by that name."""
    return _register(METHODS, name)


def register_backbone(name: str) -> Callable[[type], type]:
    """Class decorator: make a backbone known by that name."""
    return _register(BACKBONES, name)


def register_loss(name: str) -> Callable[[type], type]:
    """Class decorator: make a training loss known by that name."""
    return _register(LOSSES, name)


def register_tables(name: str) -> Callable[[type], type]:
    """Class decorator: make embedding tables known to whoever reads their exports, which have this name in them."""
    return _register(TABLES, name)


def method_class(name: str) -> type[Any]:
    """The compressor of that name; an unknown name is an error that suggests the nearest known one."""
    return _find(METHODS, "method", name)


def backbone_class(name: str) -> type[Any]:
    """The backbone of that name; an unknown name is an error that suggests the nearest known one."""
    return _find(BACKBONES, "backbone", name)


def loss_class(name: str) -> type[Any]:
    """The loss of that name; an unknown name is an error that suggests the nearest known one."""
    return _find(LOSSES, "loss", name)


def tables_class(name: str) -> type[Any]:
    """The embedding tables of that name; an unknown name is an error that suggests the nearest known one."""
    return _find(TABLES, "kind of tables", name)


def _register(known: dict[str, type[Any]], name: str) -> Callable[[type], type]:
    def decorate(cls: type[Any]) -> type[Any]:
        if name in known:
            raise ValueError(f"'{name}' is registered twice: {known[name].__module__} and {cls.__module__}")
        cls.name = name
        known[name] = cls
        return cls

    return decorate


def _find(known: dict[str, type[Any]], kind: str, name: str) -> type[Any]:
    _import_all()
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


@cache
def _import_all() -> None:
    importlib.import_module("baco.backbones.backbone")
    importlib.import_module("baco.embedding.codebook")
    importlib.import_module("baco.embedding.scaled")
    importlib.import_module("baco.coclustering.baco")
    importlib.import_module("baco.coclustering.baco_plus")
    importlib.import_module("baco.coclustering.one_sided")
    for package in ("baco.losses", "baselines"):
        path = importlib.import_module(package).__path__
        for module in sorted(found.name for found in pkgutil.iter_modules(path)):
            importlib.import_module(f"{package}.{module}")
