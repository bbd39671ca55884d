"""Claims between processes."""

import contextlib
import fcntl
import subprocess
import sys
import threading

import pytest

from baco.runs.lock import LockedError, find_dead_holder, hold_lock, is_held

HOLD = """
import sys, os, pathlib
from baco.runs.lock import hold_lock
c = hold_lock(pathlib.Path(sys.argv[1]))
c.__enter__()
"""


def test_a_claim_excludes_other_holders_until_it_ends(tmp_path):
    path = tmp_path / "locks" / "a"
    with hold_lock(path):
        with pytest.raises(LockedError, match=r"run by process \d+ on "), hold_lock(path):
            pass
        assert find_dead_holder(path) is None, "held, not dead"
    with hold_lock(path):
        pass
    assert find_dead_holder(path) is None and path.read_text() == ""


def test_a_claim_ends_with_an_error_too(tmp_path):
    with pytest.raises(ZeroDivisionError), hold_lock(tmp_path / "a"):
        _ = 1 / 0
    assert find_dead_holder(tmp_path / "a") is None
    with hold_lock(tmp_path / "a"):
        pass


def test_another_process_holds_it_while_it_lives(tmp_path):
    script = HOLD + "print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "a"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"process {process.pid} on"), hold_lock(tmp_path / "a"):
            pass
        process.kill()
    holder = find_dead_holder(tmp_path / "a")
    assert holder.startswith(f"process {process.pid} on")
    assert find_dead_holder(tmp_path / "a") is None, "one caller learns it"
    with hold_lock(tmp_path / "a"):
        pass


def test_a_holder_that_has_not_written_its_name_yet_is_told_as_well(tmp_path):
    with open(tmp_path / "a", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="run by another process; wait"), hold_lock(tmp_path / "a"):
            pass


def test_looking_for_the_dead_does_not_take_the_claim_from_the_living(tmp_path):
    path = tmp_path / "a"
    path.write_text("process 1 on moon since 1969")
    stop = threading.Event()
    looking = threading.Thread(target=lambda: [find_dead_holder(path) for _ in iter(stop.is_set, True)])
    looking.start()
    try:
        for _ in range(200):
            with hold_lock(path):
                assert find_dead_holder(path) is None
            path.write_text("process 1 on moon since 1969")
    finally:
        stop.set()
        looking.join()


def test_a_claim_never_made_has_no_dead_holder(tmp_path):
    assert find_dead_holder(tmp_path / "nothing") is None


def test_whether_it_is_held_is_told_without_leaving_a_file(tmp_path):
    path = tmp_path / "a"
    assert not is_held(path) and not path.exists()
    with hold_lock(path):
        assert is_held(path)
    assert not is_held(path)


def test_claims_exclude_each_other_although_holders_remove_the_file(tmp_path):
    path, inside, most = tmp_path / "a", [], []

    def claim() -> None:
        for _ in range(200):
            with contextlib.suppress(LockedError), hold_lock(path):
                inside.append(1)
                most.append(len(inside))
                inside.pop()  # before the file goes: then another may come in
                path.unlink()

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) > 100 and set(most) == {1}
