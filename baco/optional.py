"""Packages that one part needs and the installation does without: for their licence, or since few want them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from baco.errors import UserError


def optional_package(name: str, needed_by: str, requirement: str, licence: str = "") -> ModuleType:
    """The package, imported.

    Parameters
    ----------
    needed_by : str
        What needs it, such as "the method 'leiden'".
    requirement : str
        What pip has to install.
    licence : str
        To be named where it is stricter than that of this project.

    Raises
    ------
    UserError
        When it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        named = f"{name} ({licence})" if licence else name
        raise UserError(f"{needed_by} needs the package {named}: pip install '{requirement}'") from None
