"""Seconds to quality: `python scripts/bench_quality.py "dataset=beauty protocol=best loss=bpr" "dataset=beauty"`.

Each argument is a run, as `baco run` takes it; those that have a record are not done again. The first one sets the
mark: its best validation recall@20. Prints when each of the others reached it, in epochs and seconds of training,
validations aside, and where each of them ended.
"""

from __future__ import annotations

import argparse

from _common import configuration, run_script

from baco.cli.console import log_to_console
from baco.runs.run import Plan, run


def reached(record: dict, mark: float) -> int | None:
    """The first epoch whose validation was no lower than the mark."""
    return next((epoch for epoch, _, value in record["training"]["history"] if value >= mark), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="overrides of a run, quoted together")
    arguments = parser.parse_args()
    log_to_console()
    records = [run(Plan.of(configuration(overrides.split()))) for overrides in arguments.runs]
    mark = max(value for _, _, value in records[0]["training"]["history"])
    print(f"the mark: validation R@20 {100 * mark:.2f}")
    print(f"{'epochs':>8}{'seconds':>10}{'reached':>9}{'after s':>9}{'best val':>10}{'test R@20':>11}  run")
    for overrides, record in zip(arguments.runs, records, strict=True):
        training, seconds = record["training"], record["seconds"]
        epoch = reached(record, mark)
        until = ("never", "-") if epoch is None else (str(epoch), f"{epoch * seconds['epoch']:.1f}")
        best = max(value for _, _, value in training["history"])
        print(
            f"{training['epochs']:>8}{seconds['training']:>10.1f}{until[0]:>9}{until[1]:>9}{100 * best:>10.2f}"
            f"{100 * record['metrics']['test']['recall@20']:>11.2f}  {overrides}"
        )


if __name__ == "__main__":
    run_script(main)
