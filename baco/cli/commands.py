"""What the commands that Hydra has no part in share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path


def add_command(
    commands: argparse._SubParsersAction, function: Callable[[argparse.Namespace], None]
) -> argparse.ArgumentParser:
    """Add a command that is called as its function is; the function's docstring is its help."""
    command = commands.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
    command.set_defaults(function=function)
    return command


def add_results_option(command: argparse.ArgumentParser) -> None:
    """Add --results."""
    command.add_argument("--results", type=Path, default=Path("results"), help="holds records/ (default: results)")


def add_runs_option(command: argparse.ArgumentParser) -> None:
    """Add --runs."""
    command.add_argument("--runs", type=Path, default=Path("runs"), help="holds logs and caches (default: runs)")


def add_data_option(command: argparse.ArgumentParser) -> None:
    """Add --data."""
    default = Path(os.environ.get("BACO_DATA_DIR", "data"))
    command.add_argument("--data", type=Path, default=default, help=f"holds the datasets (default: {default})")
