import os
import subprocess
import sys

import numba
import pytest
import torch

from baco import device
from baco.device import (
    ALL_THREADS,
    available_memory,
    check_memory,
    peak_memory,
    reset_peak_memory,
    resolve_device,
    set_threads,
)
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


def test_each_of_several_processes_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto", 1) == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [resolve_device(name, 1) for name in ("auto", "cuda", "cpu")] == [torch.device("cuda:1")] * 2 + [CPU]
    with pytest.raises(UserError, match=r"device=cuda:1 is one GPU for several processes; take device=cuda"):
        resolve_device("cuda:1", 0)
    with pytest.raises(UserError, match=r"fewer GPUs \(2\) than processes; take torchrun --nproc-per-node=2"):
        resolve_device("auto", 2)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "tpu", "cuda:x"])
def test_a_missing_device_is_named(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"device={name} .* no CUDA device; take device=cpu"):
        resolve_device(name)


def test_threads_are_limited():
    try:
        set_threads(1)
        assert (torch.get_num_threads(), numba.get_num_threads()) == (1, 1)
        set_threads(None, sharing=2)
        assert numba.get_num_threads() == max(1, numba.config.NUMBA_NUM_THREADS // 2), "an even part of the cores"
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


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Writes a file that the kernel shows, by its path; there are no others."""
    monkeypatch.setattr(device, "PROC", tmp_path / "proc")
    monkeypatch.setattr(device, "CONTROL_GROUPS", tmp_path / "sys/fs/cgroup")

    def write(path: str, content: object) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")

    return write


def test_memory_that_the_kernel_does_not_tell_is_none(kernel):
    assert peak_memory(CPU)["host_peak_bytes"] is None and available_memory() is None
    check_memory(10**18, "dim=64", "lower dim")
    kernel("proc/self/status", "Name: python")
    kernel("proc/meminfo", "MemFree: 1 kB")
    assert peak_memory(CPU)["host_peak_bytes"] is None and available_memory() is None


def test_the_memory_that_is_free_is_told_in_bytes(kernel):
    kernel("proc/meminfo", "MemFree: 1 kB\nMemAvailable:   2048 kB")
    assert available_memory() == 2**21


@pytest.mark.parametrize("around", ["job", "."])
def test_control_groups_allow_what_the_tightest_does(kernel, around):
    kernel("proc/meminfo", "MemAvailable: 2048 kB")
    kernel("proc/self/cgroup", "0::/job/step")
    kernel("sys/fs/cgroup/job/step/memory.max", "max")
    kernel("sys/fs/cgroup/job/step/memory.current", 500)
    assert available_memory() == 2**21
    kernel(f"sys/fs/cgroup/{around}/memory.max", 1000)
    kernel(f"sys/fs/cgroup/{around}/memory.current", 900)
    assert available_memory() == 100
    kernel(
        f"sys/fs/cgroup/{around}/memory.stat",
        "anon 570\nfile 330\ninactive_file 300\nactive_file 30\nslab_reclaimable 7\nslab 8",
    )
    assert available_memory() == 437
    kernel("sys/fs/cgroup/memory.max", 10**12)
    kernel(f"sys/fs/cgroup/{around}/memory.max", 10)
    assert available_memory() == 0


def test_control_groups_of_the_first_version_are_known(kernel):
    kernel("proc/self/cgroup", "5:devices:/\n4:cpu,memory:/docker/0123\n0::/")
    kernel("sys/fs/cgroup/memory/memory.limit_in_bytes", 1000)
    kernel("sys/fs/cgroup/memory/memory.usage_in_bytes", 900)
    kernel("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 20\ntotal_active_file 3")
    assert available_memory() == 123


def test_the_memory_of_a_gpu_counts_what_torch_keeps_for_itself(monkeypatch):
    for name, value in {"mem_get_info": (100, 800), "memory_reserved": 50, "memory_allocated": 20}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert available_memory(torch.device("cuda", 1)) == 130
    with pytest.raises(UserError, match=r"^dim=64 needs .*, and 0\.0 GB are free on cuda:1; lower dim$"):
        check_memory(131, "dim=64", "lower dim", torch.device("cuda", 1))


def test_what_needs_more_than_is_free_is_refused_with_both_sizes(kernel):
    kernel("proc/meminfo", "MemAvailable: 2000000 kB")
    check_memory(2_048_000_000, "dim=64", "lower dim")
    message = "^dim=64 needs at least 1,234.6 GB of memory, and 2.0 GB are free on cpu; lower dim$"
    with pytest.raises(UserError, match=message):
        check_memory(1_234_567_890_123, "dim=64", "lower dim")


def test_what_waits_to_be_collected_is_free(monkeypatch):
    told = iter([10, 100])
    monkeypatch.setattr(device, "available_memory", lambda device: next(told))
    check_memory(50, "dim=64", "lower dim")


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_that_wait_leave_their_core_soon_unless_the_user_says_otherwise(given, expected):
    others = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import baco, os, sys; assert 'torch' not in sys.modules; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", code], env=others | given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
