"""What there is beside runs: lists, tables and figures of them, batches for other machines, and recommendations."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from baco.errors import UserError
from baco.files import check_folder, check_writable, write_text
from baco.runs.record import load_records

FILTERS = ("dataset", "backbone", "method", "protocol")
RESULTS, RUNS, DATA = Path("results"), Path("runs"), Path(os.environ.get("BACO_DATA_DIR", "data"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m baco", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for function in (records, tables, figures, report, batch, collect, recommend):
        command = commands.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
        if function is recommend:
            command.add_argument("tables", type=Path, help="what export= wrote")
            command.add_argument("--users", nargs="+", help="their ids (default: all)")
            command.add_argument("-k", type=int, default=20, help="items for each (default: 20)")
            command.add_argument("--data", type=Path, default=DATA, help=f"holds the datasets (default: {DATA})")
        else:
            command.add_argument("--results", type=Path, default=RESULTS, help="holds records/ (default: results)")
        if function in (batch, collect):
            command.add_argument("--runs", type=Path, default=RUNS, help="holds logs and caches (default: runs)")
        if function is batch:
            command.add_argument("--grid", default="all", help="of conf/grid (default: all)")
            command.add_argument("--minutes", type=float, required=True, help="stop after so many")
            command.add_argument("--out", type=Path, required=True, help="folder for batch.zip")
            command.add_argument("overrides", nargs="*", help="as for run.py, such as device=cuda")
        if function is collect:
            command.add_argument("files", type=Path, nargs="+", help="batch.zip of another machine")
        if function is records:
            for key in FILTERS:
                command.add_argument(f"--{key}", help="only records with this name (several: separated by commas)")
        command.set_defaults(function=function)
    arguments = parser.parse_args()
    try:
        arguments.function(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # its reader, such as `head`, has enough; what is left must not fail at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except UserError as error:
        parser.exit(1, f"error: {error}\n")
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        parser.exit(1, f"error: {arguments.command} needs the package {error.name}: pip install -e '.[report]'\n")


def records(arguments: argparse.Namespace) -> None:
    """list the finished runs"""
    from baco.results.runs import OVERVIEW, frame, to_text

    found = load(arguments.results)
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
    found = load(folder)
    check_folder(folder / "tables", "--results")
    say(write_tables(found, folder / "tables", folder / "records"))


def figures(arguments: argparse.Namespace) -> None:
    """write the figures to figures/"""
    from baco.results.figures import Gallery, write_figures

    folder = arguments.results
    found = load(folder)
    check_folder(folder / "figures", "--results")
    pictures = Gallery(found, folder / "records").pictures()
    say(write_figures(pictures, folder / "figures"))
    for picture in pictures:
        if picture.figure is None:
            print(f"{picture.name}: nothing is recorded yet; {picture.command} runs it", file=sys.stderr)


def report(arguments: argparse.Namespace) -> None:
    """write tables and figures to one page, report.html"""
    from baco.results import report as page
    from baco.results.figures import Gallery
    from baco.results.tables import documents

    found, folder = load(arguments.results), arguments.results / "records"
    path = arguments.results / "report.html"
    check_writable(path, "--results")
    write_text(path, page.report(documents(found, folder), Gallery(found, folder).pictures()))
    say([path])


def batch(arguments: argparse.Namespace) -> None:
    """run an experiment for some minutes, leaving the new records in one small file"""
    from baco.runs.batch import run_batch

    options = vars(arguments)
    keys = ("grid", "minutes", "out", "results", "runs", "overrides")
    count = run_batch(**{key: options[key] for key in keys})
    print(f"{count} new records in {arguments.out / 'batch.zip'}")


def collect(arguments: argparse.Namespace) -> None:
    """merge the files that batches left into the records"""
    from baco.runs import batch

    for path in arguments.files:
        recorded, failed = batch.collect(path, arguments.results, arguments.runs)
        print(f"{path}: {recorded} new records, {failed} failures")


def recommend(arguments: argparse.Namespace) -> None:
    """print the best items for users of an exported model, as CSV"""
    from baco.serving.recommender import Recommender

    recommended = Recommender.load(arguments.tables, arguments.data).recommend(arguments.users, arguments.k)
    print(recommended.to_csv(index=False, float_format="%.6g", lineterminator="\n"), end="")


def load(results: Path) -> list[dict]:
    """The records of a results folder; none at all is an error."""
    found = load_records(results / "records")
    if not found:
        raise UserError(f"there is no such record in {results / 'records'}; run.py makes them")
    return found


def say(paths: Iterable[Path]) -> None:
    for path in paths:
        print(path)


if __name__ == "__main__":
    main()
