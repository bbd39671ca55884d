"""Settings that are declared with their limits, and built from plain values.

A dataclass of settings declares the limits of a field beside its default:

    @dataclass(frozen=True)
    class Config(Validated):
        bits: int = setting(8, at_least=1, at_most=8)
        scope: str = setting("both", one_of=("both", "side"))

Checks between several fields follow `super().__post_init__()` in a `__post_init__` of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from math import inf
from numbers import Real
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, ValidationError

from baco.errors import SettingError, nearest, unknown_setting

T = TypeVar("T")
LIMITS = "limits"  # the key of a field's metadata


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
            if value not in self.one_of:
                raise SettingError(key, value, f"must be {self}{nearest(str(value), self.one_of)}")
        elif not isinstance(value, Real):
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
        None allows None as well, whatever the limits.
    limits : the attributes of `Limits`
    """
    return field(default=default, metadata={LIMITS: Limits(**limits)})


def check_settings(settings: Any) -> None:
    """Check every field of a dataclass that was declared with `setting`.

    Raises
    ------
    SettingError
        For the first value that is not within its limits.
    """
    for declared in fields(settings):
        value = getattr(settings, declared.name)
        may_be_none = declared.default is None
        if LIMITS not in declared.metadata or (value is None and may_be_none):
            continue
        try:
            declared.metadata[LIMITS].check(declared.name, value)
        except SettingError as error:
            if not may_be_none:
                raise
            raise SettingError(error.key, value, f"{error.requirement}, or not be given") from None


class Validated:
    """Base class of dataclasses of settings: an instance is checked when it is made."""

    def __post_init__(self) -> None:
        check_settings(self)


def build_settings(cls: type[T], section: Mapping[str, Any]) -> T:
    """An instance of a dataclass of settings from plain values, converted to the types of its fields.

    Raises
    ------
    SettingError
        For an unknown key (with the nearest known one), a missing value, one of the wrong type, or one that the class
        refuses.
    """
    dataclass_type: Any = cls  # fields() asks for one, and a type variable cannot say so
    types = {declared.name: declared.type for declared in fields(dataclass_type)}
    for key in section:
        if key not in types:
            raise unknown_setting(key, types)
    try:
        built: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), section))
    except ValidationError as error:
        key = error.full_key or ""
        wanted = types[key.partition(".")[0]]
        raise SettingError(key, str(section.get(key, "")), f"must be of the type {wanted}") from None
    except MissingMandatoryValue as error:
        raise SettingError(error.full_key or "", None, "must be given") from None
    return built
