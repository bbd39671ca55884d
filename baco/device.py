"""The device of a run and the host beneath it: which one, how many threads, how much memory."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numba
import torch

from baco.errors import UserError

MOST_THREADS: int = vars(numba.config)["NUMBA_NUM_THREADS"]  # numba sets it when it is imported
ALL_THREADS = torch.get_num_threads(), MOST_THREADS  # before anything limits them


def resolve_device(name: str) -> torch.device:
    """The device of a run; 'auto' is the GPU when there is one.

    Raises
    ------
    UserError
        When the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu" or (re.fullmatch(r"cuda(:\d+)?", name) and torch.cuda.is_available()):
        device = torch.device(name)
        if (device.index or 0) < max(1, torch.cuda.device_count()):
            return device
    have = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA device"
    raise UserError(f"device={name} does not exist here: this machine has {have}; take device=cpu or device=auto")


def set_threads(threads: int | None) -> None:
    """Limit the threads of torch and numba; None leaves them what they had when the process began."""
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UserError(f"threads={threads} must lie between 1 and the {MOST_THREADS} cores of this machine")
    for_torch, for_numba = ALL_THREADS if threads is None else (threads, threads)
    numba.set_num_threads(for_numba)  # first: where it starts its threads, it changes torch's number
    torch.set_num_threads(for_torch)


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a clock read next tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Forget earlier peaks, so that the next reading is that of this run."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # not Linux, or not allowed: the host's peak is then that of the process
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Peak bytes on the host and on the device since the last reset; None where they cannot be told."""
    try:
        line = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        line = None
    host = None if line is None else int(line.group(1)) * 1024
    on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"host_peak_bytes": host, "device_peak_bytes": on_device}


def available_memory() -> int | None:
    """Bytes that the host can give to this process without swapping; None where that cannot be told."""
    with contextlib.suppress(OSError):
        line = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        return None if line is None else int(line.group(1)) * 1024
    return None
