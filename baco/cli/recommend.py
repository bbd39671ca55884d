"""`baco recommend`: the best items for users of an exported model."""

from __future__ import annotations

import argparse
from pathlib import Path

from baco.cli.commands import add_command, add_data_option


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command of this module."""
    command = add_command(commands, recommend)
    command.add_argument("tables", type=Path, help="what export= wrote")
    command.add_argument("--users", nargs="+", help="their ids (default: all)")
    command.add_argument(
        "--interactions", type=Path, help="a log of users who were not in training, written as that of the training"
    )
    command.add_argument("-k", type=int, default=20, help="items for each (default: 20)")
    add_data_option(command)


def recommend(arguments: argparse.Namespace) -> None:
    """print the best items for users of an exported model, as CSV"""
    from baco.serving.export import read_interactions
    from baco.serving.recommender import Recommender

    new = None if arguments.interactions is None else read_interactions(arguments.interactions, arguments.tables)
    recommended = Recommender.load(arguments.tables, arguments.data).recommend(arguments.users, arguments.k, new)
    print(recommended.to_csv(index=False, float_format="%.6g", lineterminator="\n"), end="")
