"""Exceptions for mistakes that the user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

MOST_LISTED = 25  # names in one message


class UserError(ValueError):
    """Bad input. The message names the file, row or key and says what to change; it is shown without a traceback."""


class UnrecordedError(UserError):
    """A run whose result was measured and could not be written.

    Attributes
    ----------
    record : dict
        What would have been written.
    """

    def __init__(self, message: str, record: dict):
        super().__init__(message)
        self.record = record


class SettingError(UserError):
    """A setting that is unknown, missing or has an impossible value: `bits=9 must lie between 2 and 8`.

    Whoever checks settings knows a key only by its bare name. Whoever gathered them from a larger configuration puts
    the prefix in front with `under` or `keys_under`.

    Attributes
    ----------
    key : str
    value : object
        None where the message shows no value.
    requirement : str
        The rest of the sentence, such as 'must be 1 or more'.
    """

    def __init__(self, key: str, value: object, requirement: str):
        super().__init__(key, value, requirement)
        self.key, self.value, self.requirement = key, value, requirement

    def __str__(self) -> str:
        setting = self.key if self.value is None else f"{self.key}={self.value}"
        return f"{setting} {self.requirement}"

    def under(self, prefix: str) -> SettingError:
        """The same error with a prefix in front of its key."""
        return SettingError(prefix + self.key, self.value, self.requirement)


@contextmanager
def keys_under(prefix: str) -> Iterator[None]:
    """Put a prefix, such as 'quantize.', in front of the key of a `SettingError` that is raised meanwhile."""
    try:
        yield
    except SettingError as error:
        raise error.under(prefix) from error


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for an unknown name: with the nearest known one, and with all of them unless they are many."""
    return UserError(f"{kind} '{name}' is unknown{known_names(name, known)}")


def unknown_setting(key: str, known: Iterable[str]) -> SettingError:
    """The error for the key of no setting, with the same hints as `unknown`."""
    return SettingError(key, None, f"is not a known setting{known_names(key, known)}")


def known_names(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, and all of them unless they are many."""
    known = sorted(known)
    near = nearest(name, known)
    choices = f" (known: {', '.join(known) or 'none'})" if len(known) <= MOST_LISTED or not near else ""
    return near + choices


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the known one that is nearest to it; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""
