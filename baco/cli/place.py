"""`baco place`: the rows of embedding tables on several devices."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from baco.cli.commands import add_command
from baco.errors import keys_under
from baco.files import check_writable

UNITS = {unit: 1024**power for power, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB"))}
SIZE = re.compile(rf"(\d+(?:\.\d+)?)({'|'.join(UNITS)})")


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command of this module."""
    command = add_command(commands, place)
    command.add_argument("source", help="a dataset, for its full tables, what export= wrote, or a file of codes")
    command.add_argument("overrides", nargs="*", help="as for `baco run`: dim=128; codes need dataset=NAME")
    command.add_argument("--devices", type=int, required=True, help="how many")
    command.add_argument("--memory", type=size, required=True, help="of each, such as 5GiB")
    command.add_argument(
        "--sharders", nargs="+", metavar="NAME", default=["coclusters"], help="one or several (default: coclusters)"
    )
    command.add_argument("--out", type=Path, help=".npz file for the placement by the first sharder")


def place(arguments: argparse.Namespace) -> None:
    """put the rows of embedding tables on several devices"""
    from hydra.errors import HydraException

    from baco.placement.cost import Devices
    from baco.placement.placing import HEADER, place_rows, sharder_named, write_placement
    from baco.placement.sources import rows_of
    from baco.runs.hydra_errors import reword

    with keys_under("devices."):
        devices = Devices(arguments.devices, arguments.memory)
    for name in arguments.sharders:
        sharder_named(name)  # refuses unknown ones before anything takes time
    if arguments.out is not None:
        check_writable(arguments.out, "--out")
    try:
        rows, seed = rows_of(arguments.source, arguments.overrides)
    except HydraException as error:
        raise reword(error) from None
    placements = [place_rows(rows, devices, name, seed) for name in arguments.sharders]
    print(HEADER, *placements, sep="\n")
    if arguments.out is not None:
        write_placement(arguments.out, rows, placements[0].device)


def size(text: str) -> int:
    """The bytes of a text such as 512MiB."""
    found = SIZE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no size such as 5GiB; units are {', '.join(UNITS)}")
    return int(float(found[1]) * UNITS[found[2]])
