"""The machine a run happens on: device, threads, memory, versions. What a record says of its surroundings."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import numba
import torch

from baco import __version__
from baco.errors import UserError

ROOT = Path(__file__).parents[2]
SOURCES = ("baco", "baselines")
ALL_THREADS = torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS  # before anything limits them
LIBRARIES = ("torch", "numpy", "scipy", "numba", "pandas", "hydra-core", "scikit-network")


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
    raise UserError(f"device={name} is not to be had: this machine has {have}; take device=cpu or device=auto")


def set_threads(threads: int | None) -> None:
    """Limit the threads of torch and numba; None leaves them what they had when the process began."""
    most = numba.config.NUMBA_NUM_THREADS
    if threads is not None and not 1 <= threads <= most:
        raise UserError(f"threads={threads} must lie between 1 and the {most} cores of this machine")
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


def environment(device: torch.device) -> dict:
    """Versions and hardware, as plain values."""
    return {
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "platform": platform.platform(),
        **processor(),
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


def processor() -> dict:
    """The CPU, and how many threads there are on it for torch and for what numba compiles: training and clustering."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "numba_threads": numba.get_num_threads(),
    }


def code_version() -> dict:
    """Version of the package and a hash of its sources; in a git checkout also its revision, and whether they are as
    there."""

    def git(*arguments: str) -> str | None:
        if not (ROOT / ".git").exists():  # an installed package may lie inside of another repository
            return None
        try:
            done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain", "--", *SOURCES, "conf")
    return {
        "version": __version__,
        "sources": _sources_hash(),
        "revision": git("rev-parse", "HEAD"),
        "clean": None if changes is None else changes == "",
    }


def _sources_hash() -> str:
    """12 hexadecimal digits of the names and contents of all modules, whether git knows them or not."""
    digest = hashlib.sha256()
    for path in sorted(path for name in SOURCES for path in (ROOT / name).rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _cpu_name() -> str:
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1) if found else platform.processor()
