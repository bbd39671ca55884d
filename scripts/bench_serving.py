"""Time look-ups in packed tables and in float32: `python scripts/bench_serving.py --ids 100000 4000000`.

Each table has so many users, and a tenth of that in items, 64 wide, of random content. Each is opened in a process of
its own, without torch: how long opening takes, and what memory it and then 10,000 look-ups of random users add
(resident, pages of the file included), when the system has nothing of the file in memory. Then, when it has all of it,
how many users a second one core looks up, one at a time and 4,096 at a time.

`--export` measures the way into the file instead: what memory packing at the end of a training, and then writing, take
beyond the tables, their text ids and torch.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from baco.embedding.codes import Assignment, Codes
from baco.embedding.product_codes import ProductQuantizer
from baco.embedding.quantizer import Quantizer
from baco.embedding.rounding import UniformQuantizer
from baco.embedding.rules import Identity, ManyCodes
from baco.files import json_array, write_arrays
from baco.serving.packed import FORMAT, KIND, PackedTables

DIM = 64
BATCH = 4096
EXPORTED = ("float32", "int8", "shared rows")  # product codes of so many rows take long to learn
SOME = 10_000
SECONDS = 1.0  # of look-ups of one size
Lookup = Callable[[np.ndarray], np.ndarray]


def own_rows(num_users: int, num_items: int) -> Assignment:
    return Assignment.of_own_rows(num_users, num_items)


def shared_rows(num_users: int, num_items: int) -> Assignment:
    """A row for eight ids, and four codes for each, as many as BACO+ gives."""
    rng = np.random.default_rng(0)
    sides = []
    for size in (num_users, num_items):
        rows = size // 8
        ends = np.arange(size + 1, dtype=np.int64) * 4
        rule = ManyCodes.of(ends, rng.integers(rows, size=ends[-1], dtype=np.int32), rows)
        sides.append(Codes.from_rule(rule, size, rows))
    return Assignment(*sides)


def item_rows(num_users: int, num_items: int) -> Assignment:
    """Rows of items, and four of them for each user, as with one-sided tables."""
    ends = np.arange(num_users + 1, dtype=np.int64) * 4
    codes = np.random.default_rng(0).integers(num_items, size=ends[-1], dtype=np.int32)
    users = Codes.from_rule(ManyCodes.of(ends, codes, num_items), num_users, num_items)
    return Assignment(users, Codes.from_rule(Identity(), num_items, num_items), shared=True)


KINDS: dict[str, tuple[Callable[[int, int], Assignment], Quantizer | None]] = {
    "float32": (own_rows, None),
    "int8": (own_rows, UniformQuantizer(8)),
    "pq, 16 codes": (own_rows, ProductQuantizer(16, 8)),
    "shared rows": (shared_rows, None),
    "one-sided, pq": (item_rows, ProductQuantizer(16, 8)),
}


def write(path: Path, kind: str, num_users: int) -> None:
    """Tables of random rows, as `write_tables` would write them."""
    build, quantizer = KINDS[kind]
    assignment = build(num_users, num_users // 10)
    header, arrays = assignment.pack()
    arrays |= {f"{side}.marks": getattr(assignment, side).rule.marks() for side in ("users", "items")}
    names = ("rows",) if assignment.shared else ("users/rows", "items/rows")
    rng = np.random.default_rng(1)
    for name, rows in zip(names, assignment.rows_of_codebooks, strict=True):
        if quantizer is None:
            arrays[name] = rng.standard_normal((rows, DIM), np.float32)
        elif isinstance(quantizer, UniformQuantizer):
            arrays[f"{name}.levels"] = rng.integers(255, size=(rows, DIM), dtype=np.uint8)
            arrays[f"{name}.scale"] = np.full(rows, 0.01, np.float16)
        else:
            arrays[f"{name}.codes"] = rng.integers(256, size=(rows, 16), dtype=np.uint8)
            arrays[f"{name}.centroids"] = rng.standard_normal((256, DIM), np.float32)
    if quantizer is not None:
        settings = {"name": quantizer.name} | asdict(quantizer)  # type: ignore[call-overload]
        header = {"quantizer": settings, "widths": dict.fromkeys(names, DIM), "header": header}
    model = json_array({"format": FORMAT, "tables": KIND})
    write_arrays(path, arrays | {"model": model, "header": json_array(header)}, compress=False)


def resident(line: str = "VmRSS") -> int:
    """Bytes of this process that are in memory, or by the line VmHWM were at most; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    return int(re.findall(rf"{line}:\s+(\d+) kB", status.read_text())[0]) * 1024 if status.exists() else 0


def most_added(step: Callable[[], None]) -> float:
    """MiB that a step takes at its peak beyond what was there before it."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident()
    step()
    return (resident("VmHWM") - before) / 2**20


def exported(path: Path, kind: str, num_users: int) -> dict[str, float]:
    """MiB that the export of one kind of tables takes, in this process."""
    import torch

    from baco.embedding.codebook import CodebookTables
    from baco.embedding.quantized import QuantizedTables
    from baco.embedding.tables import EmbeddingTables
    from baco.serving.export import write_tables

    build, quantizer = KINDS[kind]
    inner = CodebookTables(build(num_users, num_users // 10), DIM)
    inner.reset_parameters(0.1, torch.Generator().manual_seed(0))
    tables: EmbeddingTables = inner if quantizer is None else QuantizedTables(inner, quantizer, 0)
    ids = {"users": num_users, "items": num_users // 10}
    texts = {
        f"{side}_ids": np.array([f"{n:09d}" for n in range(size)], np.dtypes.StringDType())
        for side, size in ids.items()
    }
    rows = sum(parameter.numel() for parameter in inner.parameters()) * 4 / 2**20
    return {
        "rows": rows,
        "packing": most_added(tables.on_training_end),
        "writing": most_added(lambda: write_tables(path, tables, {}, texts)),
    }


def forget(path: Path) -> None:
    """Ask the system to keep nothing of a file, which is on the disk, in memory."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(lookup: Lookup, num_users: int, size: int) -> float:
    """Users a second."""
    rng = np.random.default_rng(2)
    batches = rng.integers(num_users, size=(64, size))
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        lookup(batches[done % len(batches)])
        done += 1
    return done * size / (time.perf_counter() - start)


def measured(path: Path, num_users: int, in_memory: bool) -> dict[str, float]:
    """Of one file, in this process; `in_memory` reads the rows of users as an array."""
    PackedTables.open(path).users.lookup(np.zeros(1, np.int64))  # what is imported late is there
    forget(path)
    before, start = resident(), time.perf_counter()
    lookup: Lookup
    if in_memory:
        with np.load(path) as archive:
            lookup = archive["users/rows"].__getitem__
    else:
        lookup = PackedTables.open(path).users.lookup
    seconds, opened = time.perf_counter() - start, resident()
    for ids in np.random.default_rng(3).integers(num_users, size=(SOME // 100, 100)):
        lookup(ids)
    used = resident()
    path.read_bytes()
    return {
        "open ms": 1e3 * seconds,
        "opened MiB": (opened - before) / 2**20,
        "used MiB": (used - before) / 2**20,
        "one at a time": rate(lookup, num_users, 1),
        "batches": rate(lookup, num_users, BATCH),
    }


def in_a_process(path: Path, *words: object) -> dict[str, float]:
    """What this script measures of a file in a process of its own, on one thread."""
    command = [sys.executable, __file__, *map(str, words), str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def compare_lookups(path: Path, num_users: int) -> None:
    print(f"\n{num_users:,} users, {num_users // 10:,} items, {DIM} wide")
    print(f"{'':<22}{'MiB':>8}{'open ms':>10}{'opened MiB':>12}{'used MiB':>10}{'one/s':>11}{'batched/s':>12}")
    for kind in KINDS:
        write(path, kind, num_users)
        for in_memory in (True, False) if kind == "float32" else (False,):
            found = in_a_process(path, "--measure", num_users, in_memory)
            name = "float32, in memory" if in_memory else kind
            print(
                f"{name:<22}{path.stat().st_size / 2**20:>8.0f}{found['open ms']:>10.1f}"
                f"{found['opened MiB']:>12.1f}{found['used MiB']:>10.1f}{found['one at a time']:>11,.0f}"
                f"{found['batches']:>12,.0f}"
            )


def compare_exports(path: Path, num_users: int) -> None:
    print(f"\n{num_users:,} users, {num_users // 10:,} items, {DIM} wide; MiB")
    print(f"{'':<22}{'rows':>8}{'packing':>10}{'writing':>10}{'file':>8}")
    for kind in EXPORTED:
        found = in_a_process(path, "--export", "--measure", num_users, kind)
        sizes = f"{found['rows']:>8.0f}{found['packing']:>10.0f}{found['writing']:>10.0f}"
        print(f"{kind:<22}{sizes}{path.stat().st_size / 2**20:>8.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ids", type=int, nargs="+", default=[100_000, 4_000_000], help="users of each table")
    parser.add_argument("--export", action="store_true", help="measure the memory of exports")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if arguments.measure:
        num_users, about, path = arguments.measure
        if arguments.export:
            found = exported(Path(path), about, int(num_users))
        else:
            found = measured(Path(path), int(num_users), about == "True")
        print(json.dumps(found))
        return
    compare = compare_exports if arguments.export else compare_lookups
    for num_users in arguments.ids:
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder) / "tables.npz", num_users)


if __name__ == "__main__":
    main()
