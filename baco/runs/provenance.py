"""Where a run happens and with what code: hardware, versions, sources. What a record says of its surroundings."""

from __future__ import annotations

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

ROOT = Path(__file__).parents[2]
SOURCES = ("baco", "baselines")
LIBRARIES = ("torch", "numpy", "scipy", "numba", "pandas", "hydra-core", "scikit-network")


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
