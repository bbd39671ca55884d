"""The commands that read records: `baco records`, `tables`, `figures` and `report`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from baco.cli.commands import add_command, add_results_option
from baco.errors import UserError
from baco.files import check_folder, check_writable, write_text
from baco.runs.record import load_records

FILTERS = ("dataset", "backbone", "method", "protocol")


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands of this module."""
    for function in (records, tables, figures, report):
        add_results_option(add_command(commands, function))
    for key in FILTERS:
        commands.choices["records"].add_argument(
            f"--{key}", help="only records with this name (several: separated by commas)"
        )


def records(arguments: argparse.Namespace) -> None:
    """list the finished runs"""
    from baco.results.runs import OVERVIEW, frame, to_text

    found = _load(arguments.results)
    for key in FILTERS:
        wanted = getattr(arguments, key)
        if wanted is not None:
            found = [record for record in found if record["names"][key] in wanted.split(",")]
    if not found:
        raise UserError(f"there is no such record in {arguments.results / 'records'}")
    print(to_text(frame(found, OVERVIEW, hide_defaults=True)))


def tables(arguments: argparse.Namespace) -> None:
    """write the tables to tables/"""
    from baco.results.tables import write_tables

    folder = arguments.results
    found = _load(folder)
    check_folder(folder / "tables", "--results")
    _print_paths(write_tables(found, folder / "tables", folder / "records"))


def figures(arguments: argparse.Namespace) -> None:
    """write the figures to figures/"""
    from baco.results.figures import Gallery, write_figures

    folder = arguments.results
    found = _load(folder)
    check_folder(folder / "figures", "--results")
    pictures = Gallery(found, folder / "records").pictures()
    _print_paths(write_figures(pictures, folder / "figures"))
    for picture in pictures:
        if picture.figure is None:
            print(f"{picture.name}: nothing is recorded yet; {picture.command} runs it", file=sys.stderr)


def report(arguments: argparse.Namespace) -> None:
    """write tables and figures to one page, report.html"""
    from baco.results import report as page
    from baco.results.figures import Gallery
    from baco.results.tables import documents

    found, folder = _load(arguments.results), arguments.results / "records"
    path = arguments.results / "report.html"
    check_writable(path, "--results")
    write_text(path, page.report(documents(found, folder), Gallery(found, folder).pictures()))
    _print_paths([path])


def _load(results: Path) -> list[dict]:
    """The records of a results folder; none at all is an error."""
    found = load_records(results / "records")
    if not found:
        raise UserError(f"there is no record in {results / 'records'}; `baco run` makes them")
    return found


def _print_paths(paths: Iterable[Path]) -> None:
    for path in paths:
        print(path)
