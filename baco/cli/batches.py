"""The commands that share a grid with other machines: `baco batch` and `baco collect`."""

from __future__ import annotations

import argparse
from pathlib import Path

from baco.cli.commands import add_command, add_results_option, add_runs_option
from baco.runs import batch as batches


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands of this module."""
    for function in (batch, collect):
        command = add_command(commands, function)
        add_results_option(command)
        add_runs_option(command)
    making, merging = commands.choices["batch"], commands.choices["collect"]
    making.add_argument("--grid", default="all", help="of conf/grid (default: all)")
    making.add_argument("--minutes", type=float, required=True, help="stop after so many")
    making.add_argument("--out", type=Path, required=True, help="folder for batch.zip")
    making.add_argument("overrides", nargs="*", help="as for `baco run`, such as device=cuda")
    merging.add_argument("files", type=Path, nargs="+", help="batch.zip of another machine")


def batch(arguments: argparse.Namespace) -> None:
    """run a grid for some minutes, leaving the new records in one small file"""
    options = vars(arguments)
    keys = ("grid", "minutes", "out", "results", "runs", "overrides")
    count = batches.run_batch(**{key: options[key] for key in keys})
    print(f"{count} new records in {arguments.out / 'batch.zip'}")


def collect(arguments: argparse.Namespace) -> None:
    """merge the files that batches left into the records"""
    for path in arguments.files:
        recorded, failed = batches.collect(path, arguments.results, arguments.runs)
        print(f"{path}: {recorded} new records, {failed} failures")
