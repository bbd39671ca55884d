"""The device of a run and the host beneath it: which one, how many threads, how much memory."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterator
from pathlib import Path

import numba
import torch

from baco.errors import UserError

MOST_THREADS: int = vars(numba.config)["NUMBA_NUM_THREADS"]  # numba sets it when it is imported
ALL_THREADS = torch.get_num_threads(), MOST_THREADS  # before anything limits them
CPU = torch.device("cpu")
PROC, CONTROL_GROUPS = Path("/proc"), Path("/sys/fs/cgroup")  # of Linux
VERSION_1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"  # names of control groups' files and lines


def resolve_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device of a run; 'auto' is the GPU when there is one.

    Parameters
    ----------
    local_rank : int, optional
        The number of this process among several on this machine, each of which has a GPU of its own.

    Raises
    ------
    UserError
        When the device does not exist here.
    """
    if local_rank is not None and name != "cpu" and torch.cuda.is_available():
        return _own_gpu(name, local_rank)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu" or (re.fullmatch(r"cuda(:\d+)?", name) and torch.cuda.is_available()):
        device = torch.device(name)
        if (device.index or 0) < max(1, torch.cuda.device_count()):
            return device
    have = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA device"
    raise UserError(f"device={name} does not exist here: this machine has {have}; take device=cpu or device=auto")


def _own_gpu(name: str, local_rank: int) -> torch.device:
    """The GPU of one of several processes; its number is the process's."""
    if name not in ("auto", "cuda"):
        raise UserError(f"device={name} is one GPU for several processes; take device=cuda, which gives each its own")
    count = torch.cuda.device_count()
    if local_rank >= count:
        mend = f"take torchrun --nproc-per-node={count}, or device=cpu"
        raise UserError(f"this machine has fewer GPUs ({count}) than processes; {mend}")
    return torch.device("cuda", local_rank)


def set_threads(threads: int | None, sharing: int = 1) -> None:
    """Limit the threads of torch and numba.

    Parameters
    ----------
    threads : int, optional
        None leaves them what they had when the process began, or gives an even part of the cores to each of several.
    sharing : int
        Processes on this machine that train together.
    """
    if threads is None and sharing > 1:
        threads = max(1, MOST_THREADS // sharing)
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
        (PROC / "self" / "clear_refs").write_text("5")


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Peak bytes on the host and on the device since the last reset; None where they cannot be told."""
    line = re.search(r"VmHWM:\s+(\d+) kB", _text_of(PROC / "self" / "status"))
    host = None if line is None else int(line.group(1)) * 1024
    on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"host_peak_bytes": host, "device_peak_bytes": on_device}


def check_memory(needed: int, what: str, mend: str, device: torch.device = CPU) -> None:
    """Refuse what does not fit into the memory that is free, before it is allocated.

    Parameters
    ----------
    needed : int
        Bytes, the least that it takes: what may fit is not refused.
    what, mend : str
        The beginning and the end of the message.
    device : torch.device
        Where it would lie.

    Raises
    ------
    UserError
    """
    free = available_memory(device)
    if free is not None and needed > free:
        gc.collect()  # what an earlier run of this process allocated may wait for that
        free = available_memory(device)
    if free is not None and needed > free:
        sizes = f"{needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free on {device}"
        raise UserError(f"{what} needs at least {sizes}; {mend}")


def available_memory(device: torch.device = CPU) -> int | None:
    """Bytes that a device can give to this process, the host without swapping; None where that cannot be told.

    On the host, control groups (of containers, of SLURM) may allow less than there is.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    line = re.search(r"MemAvailable:\s+(\d+) kB", _text_of(PROC / "meminfo"))
    free_in_all = [] if line is None else [int(line.group(1)) * 1024]
    return min([*free_in_all, *_free_in_control_groups()], default=None)


def _free_in_control_groups() -> Iterator[int]:
    """Bytes that each group with a limit leaves to this process: its own group, and those around it.

    Version 2 has one hierarchy, which is numbered 0 and names no controllers; version 1 has one for memory. A container
    may see its own group as the root, under whatever name it has outside.
    """
    for line in _text_of(PROC / "self" / "cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            root, limit, usage, prefix = CONTROL_GROUPS, "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            root, limit, usage, prefix = CONTROL_GROUPS / "memory", *VERSION_1
        else:
            continue
        group = root / name.lstrip("/")
        for folder in (group, *group.parents[: len(group.relative_to(root).parts)]):
            most, used = _text_of(folder / limit).strip(), _text_of(folder / usage).strip()
            if most.isdecimal() and used.isdecimal():  # "max" is no limit
                dropped = rf"^{prefix}(?:active_file|inactive_file|slab_reclaimable) (\d+)$"  # where memory is short
                cached = re.findall(dropped, _text_of(folder / "memory.stat"), re.MULTILINE)
                yield max(0, int(most) - int(used) + sum(map(int, cached)))


def _text_of(path: Path) -> str:
    """The content of a file of the kernel, empty where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
