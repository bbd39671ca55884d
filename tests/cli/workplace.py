"""A folder to run `run.py` and other scripts in.

They get processes of their own, but not the seconds that their imports take: processes are forked from a server that
has imported this module, and with it all that a run needs. Where the interpreter itself matters, as for launchers,
tests use `subprocess`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

import hydra.main  # noqa: F401

from baco.registry import method_class

ROOT = Path(__file__).parents[2]
TINY = [
    "dataset=synthetic",
    "dataset.num_users=300",
    "dataset.num_items=200",
    "dataset.num_interactions=5000",
    "dataset.num_clusters=8",
    "protocol.max_epochs=3",
    "protocol.steps_per_epoch=4",
    "dim=16",
    "budget=0.5",
]

LATE = [  # what runs import when they need it; torch its compiler, for seconds, as soon as there is an optimizer
    "baco.cli.run",
    "baco.results.runs",
    "baco.runs.grid",
    "optuna",
    "torch._dynamo",
]
method_class("full")  # imports them all
forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload([__name__, *LATE])


class Workplace:
    """A folder to run in, with results and logs of its own."""

    def __init__(self, path: Path):
        self.path = path
        self.environment = {**os.environ, "BACO_DATA_DIR": str(path / "data")}

    def command(self, *arguments: str, script: str = "run.py") -> dict:
        """Arguments for `subprocess`."""
        folders = [f"results_dir={self.path / 'records'}", f"runs_dir={self.path / 'runs'}"]
        flags = [argument for argument in arguments if argument.startswith("-")]
        overrides = [argument for argument in arguments if not argument.startswith("-")]
        args = [sys.executable, str(ROOT / script), *flags, *folders, *overrides]
        return {"args": args, "cwd": self.path, "env": self.environment}

    def run(self, *arguments: str, script: str = "run.py") -> subprocess.CompletedProcess:
        """What `subprocess.run` gives, its output captured as text."""
        (done,) = self.run_together([{}], *arguments, script=script)
        return done

    def run_together(
        self, variables: list[dict[str, str]], *arguments: str, script: str = "run.py"
    ) -> list[subprocess.CompletedProcess]:
        """The same for several processes at the same time, each with variables of its own in its environment."""
        args = self.command(*arguments, script=script)["args"]
        with TemporaryDirectory() as folder, ExitStack() as still_running:
            outputs = [
                (Path(folder) / f"out{number}", Path(folder) / f"err{number}") for number in range(len(variables))
            ]
            processes = []
            for own, output in zip(variables, outputs, strict=True):
                process = forks.Process(target=_child, args=(args[1:], self.path, self.environment | own, *output))
                process.start()
                still_running.callback(process.kill)
                processes.append(process)
            for process in processes:
                process.join()
            return [
                subprocess.CompletedProcess(args, process.exitcode, out.read_text(), err.read_text())
                for process, (out, err) in zip(processes, outputs, strict=True)
            ]

    @contextmanager
    def running(self, *arguments: str) -> Iterator[Running]:
        """A process that goes on while the test looks at it, and no longer, whatever becomes of the test."""
        args, (reader, writer) = self.command(*arguments)["args"], forks.Pipe(duplex=False)
        out = Path(os.devnull)
        process = forks.Process(target=_child, args=(args[1:], self.path, self.environment, out, writer))
        process.start()
        writer.close()
        with open(reader.fileno(), closefd=False) as stderr:
            try:
                yield Running(process, stderr)
            finally:
                process.kill()
                process.join()

    def succeeds(self, *arguments: str, script: str = "run.py") -> subprocess.CompletedProcess:
        done = self.run(*arguments, script=script)
        assert done.returncode == 0, done.stderr
        return done

    def fails(self, *arguments: str) -> str:
        """The one line that a bad input gets; nothing is written."""
        before = self.files()
        done = self.run(*arguments)
        assert done.returncode != 0 and "Traceback" not in done.stderr, done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        assert self.files() == before
        return errors[0]

    def files(self) -> set[str]:
        """What lies there, logs aside."""
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.suffix not in ("", ".log")}

    def records(self) -> dict[str, dict]:
        return {path.stem: json.loads(path.read_text()) for path in sorted((self.path / "records").glob("*.json"))}


class Running:
    """What `subprocess.Popen` has of a process, as far as it is needed here."""

    def __init__(self, process: BaseProcess, stderr: TextIO):
        self._process, self.pid, self.stderr = process, process.pid, stderr

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def variables_of_processes(count: int) -> list[dict[str, str]]:
    """What torchrun tells each of some processes on this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    sizes = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank)} | sizes | place for rank in range(count)]


def _child(args: list[str], cwd: Path, environment: dict[str, str], out: Path, err: Path | Connection) -> None:
    for target, descriptor in ((out, 1), (err, 2)):
        with open(target, "wb") if isinstance(target, Path) else target as file:
            os.dup2(file.fileno(), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = args
    sys.path[0] = str(Path(args[0]).parent)  # as for any script
    runpy.run_path(args[0], run_name="__main__")
