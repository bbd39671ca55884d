"""`baco update`: an exported model takes in new interactions."""

from __future__ import annotations

import argparse
from pathlib import Path

from baco.cli.commands import add_command, add_data_option


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command of this module."""
    command = add_command(commands, update)
    command.add_argument("tables", type=Path, help="what export=, or an earlier update, wrote")
    command.add_argument(
        "interactions", type=Path, help="a log of new interactions, written as that of the training; ids may be new"
    )
    command.add_argument("--export", type=Path, required=True, help="the file to write")
    command.add_argument("--epochs", type=int, help="of training (default: 1)")
    command.add_argument(
        "--threshold",
        type=float,
        help="what the objective must gain for an old id to get other codes, as a part of its interactions (default: "
        "0.2; inf: none does)",
    )
    command.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add_data_option(command)


def update(arguments: argparse.Namespace) -> None:
    """take new interactions, users and items into an exported model, and write another one"""
    from baco.cli.console import log_to_console
    from baco.serving.export import read_interactions
    from baco.serving.update import update

    log_to_console()
    given = {key: value for key in ("epochs", "threshold") if (value := getattr(arguments, key)) is not None}
    new = read_interactions(arguments.interactions, arguments.tables)
    print(update(arguments.tables, new, arguments.export, arguments.data, device=arguments.device, **given))
