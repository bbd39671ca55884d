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
    command.add_argument("--out", type=Path, help="write a Parquet file in place of CSV on the terminal")
    add_data_option(command)


def recommend(arguments: argparse.Namespace) -> None:
    """rank the best items for users of an exported model, as CSV or Parquet"""
    from baco.serving.export import read_interactions
    from baco.serving.parquet import check_parquet, write_parquet
    from baco.serving.recommender import Recommender

    if arguments.out is not None:
        check_parquet(arguments.out, "--out")
    new = None if arguments.interactions is None else read_interactions(arguments.interactions, arguments.tables)
    recommender = Recommender.load(arguments.tables, arguments.data)
    frames = recommender.recommend_in_blocks(arguments.users, arguments.k, new)
    if arguments.out is not None:
        write_parquet(arguments.out, frames)
        return
    for place, frame in enumerate(frames):
        print(frame.to_csv(index=False, header=place == 0, float_format="%.6g", lineterminator="\n"), end="")
