"""The time limit."""

import contextlib
import os
import signal
import threading
import time

import pytest

from baco.errors import UserError
from baco.runs.time_limit import AskedToEnd, TimeUp, time_limit


def go_on_for_ever(left) -> None:
    """Work that takes every error for one of its own."""
    assert left() > 0
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def test_the_limit_ends_what_runs_and_no_handler_of_errors_stops_it():
    start = time.monotonic()
    with pytest.raises(TimeUp, match="the time is over"), time_limit(0.3 / 60) as left:
        go_on_for_ever(left)
    assert 0.3 <= time.monotonic() - start < 2


def test_sigterm_ends_it_as_well_and_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(AskedToEnd, match="asked to end"), time_limit(None) as left:
        go_on_for_ever(left)
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_ends_in_time_is_left_alone():
    with time_limit(0.1 / 60):
        pass
    time.sleep(0.15)


@pytest.mark.parametrize("minutes", [-1, float("nan"), float("inf"), "soon"])
def test_a_negative_limit_is_refused(minutes):
    with pytest.raises(UserError, match="minutes="), time_limit(minutes):
        pass
