"""`baco grid NAME`: the same as `baco run +grid=NAME`."""

from __future__ import annotations

import argparse

from baco.cli.choices import list_choices
from baco.cli.run import run_command

DESCRIPTION = """\
Run what has no record yet of a grid, in order. What follows its name is as for `baco run`: minutes=9 stops in time,
`-m NAME worker=0,1 hydra/launcher=processes` has two workers.

{choices}
"""


def run_grid(arguments: list[str]) -> int:
    """Run the grid that the first argument without a dash names; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="baco grid",
        usage="%(prog)s [-m] NAME [overrides ...]",
        description=DESCRIPTION.format(choices=list_choices("grid")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="one of the list above; with -m several, separated by commas")
    parser.add_argument("-m", "--multirun", action="store_true", help="sweep over overrides with several values")
    chosen, others = parser.parse_known_args(arguments)
    if "=" in chosen.name:
        parser.error(f"a name must come before {chosen.name}")
    return run_command(["--multirun"] * chosen.multirun + [f"+grid={chosen.name}", *others], parser.prog)
