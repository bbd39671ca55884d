"""`baco clean`: what killed runs have left behind."""

from __future__ import annotations

import argparse

from baco.cli.commands import add_command, add_data_option, add_results_option, add_runs_option


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command of this module."""
    command = add_command(commands, clean)
    add_results_option(command)
    add_runs_option(command)
    add_data_option(command)
    command.add_argument("--remove", action="store_true", help="remove them (default: only list them)")


def clean(arguments: argparse.Namespace) -> None:
    """list the files that killed runs have left and nobody needs, and remove them if asked to"""
    from baco.runs.leftovers import find_leftovers

    found = find_leftovers(arguments.results, arguments.runs, arguments.data)
    if arguments.remove:
        found = [leftover for leftover in found if leftover.remove()]
    for leftover in found:
        print(f"{leftover.size:>15,}  {leftover.path}  ({leftover.reason})")
    done = "removed" if arguments.remove else "left over; --remove removes them"
    print(f"{sum(leftover.size for leftover in found):>15,}  bytes in {len(found)} files {done}")
