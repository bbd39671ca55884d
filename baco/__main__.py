"""`python -m baco records` prints the finished runs; `python -m baco tables` writes the tables made from them."""

from __future__ import annotations

import argparse
from pathlib import Path

from baco.results.record import load_records
from baco.results.runs import OVERVIEW, frame, to_text
from baco.results.tables import write_tables

FILTERS = ("dataset", "backbone", "method", "protocol")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m baco", description=__doc__)
    parser.add_argument("command", choices=("records", "tables"))
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder that holds records/ and tables/")
    for key in FILTERS:
        parser.add_argument(f"--{key}", help="only records with this name (several: separated by commas)")
    arguments = parser.parse_args()
    records = load_records(arguments.results / "records")
    for key in FILTERS:
        wanted = getattr(arguments, key)
        if wanted is not None:
            records = [record for record in records if record["names"][key] in wanted.split(",")]
    if not records:
        parser.exit(1, f"there is no such record in {arguments.results / 'records'}; run.py makes them\n")
    if arguments.command == "records":
        print(to_text(frame(records, OVERVIEW)))
    else:
        for path in write_tables(records, arguments.results / "tables", arguments.results / "records"):
            print(path)


if __name__ == "__main__":
    main()
