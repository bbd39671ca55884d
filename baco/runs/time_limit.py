"""A time limit that ends a computation wherever it is."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

from baco.validation import Limits


class TimeUp(BaseException):
    """The time is over."""


class AskedToEnd(TimeUp):
    """The process was asked to end (SIGTERM): there is no time for anything else either."""


@contextmanager
def time_limit(minutes: float | None) -> Iterator[Callable[[], float]]:
    """Raise `TimeUp` in the block when the time is over, `AskedToEnd` on SIGTERM; yields a function: the seconds left.

    A call into compiled code ends first. None sets no limit. Only the main thread can have one.
    """
    if minutes is not None:
        Limits(at_least=0, below=inf).check("minutes", minutes)
    end = inf if minutes is None else time.monotonic() + 60 * minutes

    def stop(number: int, frame: object) -> None:
        raise TimeUp("the time is over") if number == signal.SIGALRM else AskedToEnd("the process was asked to end")

    signals = (signal.SIGALRM, signal.SIGTERM)
    previous = [signal.signal(number, stop) for number in signals]
    try:
        if minutes is not None:
            signal.setitimer(signal.ITIMER_REAL, max(60 * minutes, 1e-3))
        yield lambda: end - time.monotonic()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)
