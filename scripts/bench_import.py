"""How fast a log is imported, and in how much memory, beside what other readers need for the same file.

    python scripts/bench_import.py 10000000 --folder /large/disk --peers /other/venv/bin/python

makes a log of so many rows with text ids, ratings and times, as Parquet and as CSV (and as a RecBole atomic file), and
reads each in a process of its own. `import` is the whole of `dataset=custom`: hash of the file, ids, repeated pairs,
k-core, split, prepared file and its checks. pyarrow, polars and pandas only read the columns and number the ids, all in
memory. RecBole and LensKit build their dataset, from the Python that `--peers` names where this one lacks them. Readers
that are not installed, or fail, are left out with the reason.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

COLUMNS = ["user", "item", "rating", "timestamp"]


def make_log(rows: int, folder: Path) -> None:
    """Write log.parquet, log.csv and log.inter, the same rows in each, unless they are there."""
    import duckdb

    paths = {ending: folder / f"log-{rows}.{ending}" for ending in ("parquet", "csv", "inter")}
    with duckdb.connect(config={"memory_limit": "1500MB", "temp_directory": str(folder / "spilled")}) as connection:
        if not paths["parquet"].exists():
            users, items = (
                f"floor(pow(hash(i * {step}) / 18446744073709551616.0, {power}) * {max(10, rows // per_id)})::BIGINT"
                for step, power, per_id in ((1, 2, 50), (3, 3, 500))
            )
            connection.execute(
                f"COPY (SELECT 'u' || {users} AS user, 'item-' || {items} AS item, (1 + hash(i * 7 + 2) % 5)::DOUBLE "
                "AS rating, 1600000000 + (hash(i * 5 + 3) % 100000000)::BIGINT AS timestamp "
                f"FROM range({rows}) AS r(i)) TO '{paths['parquet']}'"
            )
        if not paths["csv"].exists():
            connection.execute(f"COPY (FROM '{paths['parquet']}') TO '{paths['csv']}' (HEADER)")
        if not paths["inter"].exists():
            connection.execute(
                'COPY (SELECT user AS "user_id:token", item AS "item_id:token", rating AS "rating:float", timestamp AS '
                f"\"timestamp:float\" FROM '{paths['parquet']}') TO '{paths['inter']}' (HEADER, DELIMITER '\\t')"
            )


def read_baco(path: Path) -> int:
    from baco.data.logs import Log

    log = Log(path=str(path), rating="rating", min_rating=2, timestamp="timestamp", split="time", k_core=5)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        return log.load(Path(folder)).import_report.rows


def read_pyarrow(path: Path) -> int:
    from pyarrow import csv, parquet

    table = parquet.read_table(path, columns=COLUMNS) if path.suffix == ".parquet" else csv.read_csv(path)
    for column in ("user", "item"):
        table[column].combine_chunks().dictionary_encode()
    return table.num_rows


def read_polars(path: Path) -> int:
    import polars

    frame = polars.read_parquet(path, columns=COLUMNS) if path.suffix == ".parquet" else polars.read_csv(path)
    return frame.with_columns(polars.col("user", "item").rank("dense")).height


def read_pandas(path: Path) -> int:
    import pandas as pd

    frame = pd.read_parquet(path, columns=COLUMNS) if path.suffix == ".parquet" else pd.read_csv(path)
    for column in ("user", "item"):
        pd.factorize(frame[column], sort=True)
    return len(frame)


def read_recbole(path: Path) -> int:
    from recbole.config import Config
    from recbole.data import create_dataset

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        target = Path(folder) / "log" / "log.inter"
        target.parent.mkdir()
        target.symlink_to(path)
        settings = {"data_path": folder, "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]}}
        sys.argv = sys.argv[:1]  # RecBole reads the command line
        return create_dataset(Config("Pop", "log", config_dict=settings)).inter_num


def read_lenskit(path: Path) -> int:
    import pandas as pd
    from lenskit.data import DatasetBuilder

    frame = pd.read_parquet(path, columns=COLUMNS) if path.suffix == ".parquet" else pd.read_csv(path)
    frame = frame.rename(columns={"user": "user_id", "item": "item_id"})
    builder = DatasetBuilder()  # not `from_interactions_df`, which refuses repeated pairs
    builder.add_interactions(
        "rating", frame, entities=["user", "item"], missing="insert", allow_repeats=False, remove_repeats=True
    )
    builder.build()
    return len(frame)


PEERS = ("lenskit", "recbole")  # which `--peers` runs
READERS = {  # the function, the modules that are imported before the clock starts, and the endings
    "import": (read_baco, ("duckdb", "baco.data.logs"), ("parquet", "csv")),
    "pyarrow": (read_pyarrow, ("pyarrow.parquet", "pyarrow.csv"), ("parquet", "csv")),
    "polars": (read_polars, ("polars",), ("parquet", "csv")),
    "pandas": (read_pandas, ("pandas", "pyarrow"), ("parquet", "csv")),
    "lenskit": (read_lenskit, ("lenskit.data",), ("parquet", "csv")),
    "recbole": (read_recbole, ("recbole.config", "recbole.data"), ("inter",)),
}


def measure(name: str, path: Path) -> None:
    """Read once and print rows, seconds and peak memory in MiB."""
    read, modules, _ = READERS[name]
    for module in modules:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            sys.exit(f"{error.name} is not installed")
    started = time.perf_counter()
    rows = read(path)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(rows, seconds, peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="of the generated files")
    parser.add_argument("--reader", choices=READERS, nargs="*", default=list(READERS))
    parser.add_argument("--peers", default=sys.executable, help=f"a Python that has {' and '.join(PEERS)}")
    parser.add_argument("--measure", nargs=2, metavar=("READER", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], Path(arguments.measure[1]))
        return
    # In a process of its own: to Linux the peak of a parent is that of its children, too.
    generation = get_context("spawn").Process(target=make_log, args=(arguments.rows, arguments.folder))
    generation.start()
    generation.join()
    if generation.exitcode:
        sys.exit(1)
    print(f"{'reader':10}{'file':10}{'seconds':>10}{'rows/s':>14}{'peak MiB':>10}")
    for name in arguments.reader:
        for ending in READERS[name][2]:
            path = arguments.folder / f"log-{arguments.rows}.{ending}"
            python = arguments.peers if name in PEERS else sys.executable
            command = [python, __file__, "0", "--measure", name, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                error = (done.stderr.strip().splitlines() or [f"stopped by signal {-done.returncode}"])[-1]
                print(f"{name:10}{ending:10}left out: {error}", flush=True)
                continue
            rows, seconds, peak = map(float, done.stdout.split()[-3:])
            print(f"{name:10}{ending:10}{seconds:10.1f}{rows / seconds:14,.0f}{peak:10,.0f}", flush=True)


if __name__ == "__main__":
    main()
