from pathlib import Path

import numba
import pytest
import torch

from baco.device import ALL_THREADS, available_memory, peak_memory, reset_peak_memory, resolve_device, set_threads
from baco.errors import UserError

CPU = torch.device("cpu")


def test_auto_takes_the_gpu_when_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match=r"device=cuda:2 .* 2 CUDA devices"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "tpu", "cuda:x"])
def test_a_missing_device_is_named(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"device={name} .* no CUDA device; take device=cpu"):
        resolve_device(name)


def test_threads_are_limited():
    try:
        set_threads(1)
        assert (torch.get_num_threads(), numba.get_num_threads()) == (1, 1)
    finally:
        set_threads(None)
    assert (torch.get_num_threads(), numba.get_num_threads()) == ALL_THREADS, "a sweep's next run has them again"
    for threads in (0, numba.config.NUMBA_NUM_THREADS + 1):
        with pytest.raises(UserError, match=f"threads={threads} must lie between 1 and"):
            set_threads(threads)


def test_peak_memory_is_that_since_the_reset():
    big = torch.ones(50_000_000)  # 200 MB
    assert peak_memory(CPU)["host_peak_bytes"] > big.nbytes
    before = peak_memory(CPU)["host_peak_bytes"]
    del big
    reset_peak_memory(CPU)
    after = peak_memory(CPU)
    assert after["host_peak_bytes"] < before - 100_000_000
    assert after["device_peak_bytes"] is None


def test_memory_that_the_kernel_does_not_tell_is_none(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: "Name: python")
    assert peak_memory(CPU)["host_peak_bytes"] is None


def test_the_memory_that_is_free_is_told_in_bytes(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: "MemFree: 1 kB\nMemAvailable:   2048 kB\n")
    assert available_memory() == 2**21
    monkeypatch.setattr(Path, "read_text", lambda path: "")
    assert available_memory() is None
