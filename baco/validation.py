"""Settings that are declared with their limits, and built from plain values.

A field takes only what its type says: a whole number is neither `true` nor 2.5. A dataclass of settings declares the
limits of a field beside its default:

    @dataclass(frozen=True)
    class Config(Validated):
        bits: int = setting(8, at_least=1, at_most=8)
        scope: str = setting("both", one_of=("both", "side"))

Checks between several fields follow `super().__post_init__()` in a `__post_init__` of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from math import inf
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from baco.errors import SettingError, nearest, unknown_setting

T = TypeVar("T")
LIMITS = "limits"  # the key of a field's metadata
TO_BE_GIVEN = "???"  # OmegaConf's spelling of a value that is still missing
SPELLED = {"None": "null", "True": "true", "False": "false"}  # as whoever writes a configuration does


@dataclass(frozen=True)
class Kind:
    """What the fields of a plain type take.

    Attributes
    ----------
    plain : type
    instances : tuple of type
        Of what may be in an instance; bool, which Python counts among the numbers, is in none but its own.
    convertible : tuple of type
        Of what may stand in a configuration instead, and is converted.
    words : str
    """

    plain: type
    instances: tuple[type, ...]
    convertible: tuple[type, ...]
    words: str

    def holds(self, value: object) -> bool:
        """Whether a value may be in an instance."""
        return self._is_of(value, self.instances)

    def converted(self, key: str, value: object) -> Any:
        """A value of a configuration as the type has it; raises a `SettingError` where it would become another."""
        if self._is_of(value, self.instances + self.convertible):
            try:
                return self.plain(value)
            except (ValueError, OverflowError):
                pass
        raise SettingError(key, SPELLED.get(repr(value), str(value)), f"must be {self.words}")

    def _is_of(self, value: object, types: tuple[type, ...]) -> bool:
        return isinstance(value, types) and isinstance(value, bool) == (self.plain is bool)


KINDS = {
    kind.plain: kind
    for kind in (
        Kind(bool, (bool,), (), "true or false"),
        Kind(int, (Integral,), (str,), "a whole number"),
        Kind(float, (Real,), (str,), "a number"),
        Kind(str, (str,), (Integral,), "text; quotes within quotes, as in \"'2.0'\", make text of anything"),
        Kind(Path, (Path,), (str,), "a path, such as ./runs"),
    )
}


@dataclass(frozen=True)
class Limits:
    """What a value may be: a finite number within bounds, or one of several names.

    Attributes
    ----------
    at_least, at_most : float
        Bounds that are allowed themselves.
    above, below : float
        Bounds that are not.
    one_of : collection of str
        The names; empty for a number.
    """

    at_least: float = -inf
    above: float = -inf
    at_most: float = inf
    below: float = inf
    one_of: Collection[str] = ()

    def check(self, key: str, value: object) -> None:
        """Raise a `SettingError` where the value is not within the limits."""
        if self.one_of:
            if not isinstance(value, str) or value not in self.one_of:
                raise SettingError(key, value, f"must be {self}{nearest(str(value), self.one_of)}")
        elif not KINDS[float].holds(value):
            raise SettingError(key, value, "must be a number")
        elif not self._holds(value):
            raise SettingError(key, value, f"must {'lie' if self._is_range else 'be'} {self}")

    def _holds(self, number: Any) -> bool:
        """Whether a number is within the bounds; NaN never is."""
        return self.at_least <= number <= self.at_most and self.above < number < self.below

    def __str__(self) -> str:
        if self.one_of:
            *names, last = self.one_of
            return f"{', '.join(names)} or {last}"
        if self._is_range:
            return f"between {self.at_least} and {self.at_most}"
        if (self.above, self.at_most, self.below) == (0, inf, inf):
            return "positive"
        bounds = {
            f"{self.at_least} or more": self.at_least > -inf,
            f"above {self.above}": self.above > -inf,
            f"at most {self.at_most}": self.at_most < inf,
            f"below {self.below}": self.below < inf,
        }
        return " and ".join(bound for bound, given in bounds.items() if given) or "finite"

    @property
    def _is_range(self) -> bool:
        return self.at_least > -inf and self.at_most < inf


def setting(default: Any = MISSING, **limits: Any) -> Any:
    """A field of a dataclass of settings, with the limits that `check_settings` holds it to.

    Parameters
    ----------
    default : optional
    limits : the attributes of `Limits`
    """
    return field(default=default, metadata={LIMITS: Limits(**limits)})


def kinds_of(cls: Any) -> dict[str, tuple[Kind | None, bool]]:
    """Of each field of a dataclass: its kind, and whether it may be None.

    The kind is None where the field is of no plain type, or its limits name all that it may be.
    """
    hints = get_type_hints(cls)
    found = {}
    for declared in fields(cls):
        choices = get_args(hints[declared.name]) or (hints[declared.name],)
        named = LIMITS in declared.metadata and declared.metadata[LIMITS].one_of
        kind = None if named else next((KINDS[one] for one in choices if one in KINDS), None)
        found[declared.name] = kind, NoneType in choices
    return found


def check_settings(settings: Any) -> None:
    """Check every field of a dataclass: its type, and the limits of those that were declared with `setting`.

    Raises
    ------
    SettingError
        For the first value that is of another type or not within its limits.
    """
    kinds = kinds_of(type(settings))
    for declared in fields(settings):
        value = getattr(settings, declared.name)
        kind, may_be_none = kinds[declared.name]
        if value is None and may_be_none:
            continue
        with _or_not_given(may_be_none):
            if kind is not None and not kind.holds(value):
                raise SettingError(declared.name, str(value), f"must be {kind.words}")
            if LIMITS in declared.metadata:
                declared.metadata[LIMITS].check(declared.name, value)


@contextmanager
def _or_not_given(may_be_none: bool) -> Iterator[None]:
    """Let a `SettingError` that is raised meanwhile say so where None is allowed as well."""
    try:
        yield
    except SettingError as error:
        if not may_be_none:
            raise
        raise SettingError(error.key, error.value, f"{error.requirement}, or not be given") from None


class Validated:
    """Base class of dataclasses of settings: an instance is checked when it is made."""

    def __post_init__(self) -> None:
        check_settings(self)


def build_settings(cls: type[T], section: Mapping[str, Any]) -> T:
    """An instance of a dataclass of settings from the plain values of a configuration.

    Text becomes the number or path that it spells, and a whole number the text; nothing else changes its type.

    Raises
    ------
    SettingError
        For an unknown key (with the nearest known one), a missing value, one of the wrong type, or one that the class
        refuses.
    """
    dataclass_type: Any = cls  # fields() asks for one, and a type variable cannot say so
    kinds = kinds_of(cls)
    values = {}
    for key, value in section.items():
        if key not in kinds:
            raise unknown_setting(key, kinds)
        kind, may_be_none = kinds[key]
        if kind is None or (value is None and may_be_none) or value == TO_BE_GIVEN:
            values[key] = value
        else:
            with _or_not_given(may_be_none):
                values[key] = kind.converted(key, value)
    for declared in fields(dataclass_type):
        if values.get(declared.name, declared.default) in (MISSING, TO_BE_GIVEN):
            raise SettingError(declared.name, None, "must be given")
    return cls(**values)
