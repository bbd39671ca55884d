"""Embedding-table compression by balanced co-clustering, compared fairly with other methods."""

from __future__ import annotations

import argparse
import os
import sys

from baco.cli import batches, clean, cluster, place, recommend, records, update
from baco.cli.console import explain
from baco.errors import UserError


def main() -> None:
    """Do what the command line asks for, and exit; what its user can mend is one line."""
    try:
        status = call(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # its reader, such as `head`, has enough; what is left must not fail at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except (OSError, UnicodeEncodeError) as error:
        explained = explain(error)
        if explained is None:
            raise
        print(f"error: {explained}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def call(arguments: list[str]) -> int:
    """Call the function of the command that the first argument names; returns the exit status."""
    if arguments[:1] == ["run"]:
        from baco.cli.run import run_command  # here, so that tables need not wait for Hydra

        return run_command(arguments[1:])
    if arguments[:1] == ["grid"]:
        from baco.cli.grid import run_grid

        return run_grid(arguments[1:])
    if arguments[:1] == ["stream"]:
        from baco.cli.stream import run_stream

        return run_stream(arguments[1:])
    chosen = build_parser().parse_args(arguments)
    try:
        chosen.function(chosen)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        print(f"error: {chosen.command} needs the package {error.name}: pip install -e '.[report]'", file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; `run`, `grid` and `stream` are listed only, since Hydra reads what follows them."""
    parser = argparse.ArgumentParser(prog="baco", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="train and evaluate a model, or several, and record them (`baco run --help`)")
    commands.add_parser("grid", help="do the runs of a grid that have no record yet (`baco grid --help`)")
    commands.add_parser("stream", help="train and rank segment by segment, as time goes on (`baco stream --help`)")
    for module in (records, batches, recommend, update, cluster, place, clean):
        module.add_commands(commands)
    return parser
