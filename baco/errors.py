"""The one exception for mistakes that the user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_LISTED = 25  # names in one message


class UserError(ValueError):
    """Bad input. The message names the file, row or key and says what to change; it is shown without a traceback."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for an unknown name: with the nearest known one, and with all of them unless they are many."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    choices = f" (known: {', '.join(known) or 'none'})" if len(known) <= MOST_LISTED or not near else ""
    return UserError(f"{kind} '{name}' is unknown{hint}{choices}")
