"""`baco place` as a user meets it, on small data."""

from pathlib import Path

import numpy as np
import pytest

from baco.cli.main import call
from baco.compressors.budget import Budget
from baco.data.synthetic import Synthetic
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment
from baco.embedding.quantized import QuantizedTables
from baco.embedding.rounding import UniformQuantizer
from baco.embedding.scaled import ScaledTables
from baco.files import read_arrays, write_arrays
from baco.registry import method_class
from baco.runs.assignment_cache import cached_assignment
from baco.serving.export import export_model

SETTINGS = {"num_users": 300, "num_items": 200, "num_interactions": 5000, "num_clusters": 8}
TINY = [f"dataset.{key}={value}" for key, value in SETTINGS.items()]
SOURCE = Synthetic(**SETTINGS)
INT8 = UniformQuantizer(bits=8)
INT8_BYTES = INT8.format(64).row_bytes


@pytest.fixture
def made(tmp_path) -> tuple[Assignment, dict[Path, int]]:
    """Codes of BACO; a file of them in the cache and exports with them, each with the bytes of a row."""
    data = SOURCE.load(tmp_path)
    budget = Budget.parse(0.25, "parameters", data.num_users, data.num_items, 64)
    assignment, _ = cached_assignment(method_class("baco")(), data.train, budget, 0, tmp_path / "assignments")
    tables = QuantizedTables(CodebookTables(assignment, 64), INT8, seed=0)
    tables.on_training_end()
    scaled = ScaledTables(tables, np.ones(data.num_items, np.float16))
    for name, exported in (("tables", tables), ("scaled", scaled)):
        export_model(tmp_path / f"{name}.npz", exported, {"dataset": data.fingerprint}, SOURCE, data)
    codes = next((tmp_path / "assignments").glob("*.npz"))
    return assignment, {codes: 256} | {tmp_path / f"{name}.npz": INT8_BYTES for name in ("tables", "scaled")}


def test_full_tables_are_placed_and_written(tmp_path, capsys):
    out = tmp_path / "new" / "placement.npz"
    command = ["place", "synthetic", *TINY, "dim=16", "--devices", "4", "--memory", "10KiB", "--out", str(out)]
    assert call([*command, "--sharders", "coclusters", "random"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "sharder" and [line.split()[0] for line in lines] == ["coclusters", "random"]
    placed = read_arrays(out)
    assert placed.keys() == {"side", "id", "device"}
    np.testing.assert_array_equal(placed["id"], [*range(300), *range(200)])
    np.testing.assert_array_equal(placed["side"], ["users"] * 300 + ["items"] * 200)
    assert np.bincount(placed["device"], minlength=4).max() * 16 * 4 <= 10 * 1024


def test_rows_of_codes_and_of_exports_are_placed(made, tmp_path, capsys):
    assignment, files = made
    users, items = assignment.rows_of_codebooks
    for path, row_bytes in files.items():
        out = tmp_path / f"of_{path.name}"
        command = ["place", str(path), *TINY, "--devices", "2", "--memory", "1MiB", "--out", str(out)]
        assert call(command) == 0
        placed = read_arrays(out)
        np.testing.assert_array_equal(placed["side"], ["users"] * users + ["items"] * items)
        least, _, most = capsys.readouterr().out.splitlines()[1].split()[2:5]
        assert sum(int(held.replace(",", "")) for held in (least, most)) == (users + items) * row_bytes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["synthetic", "--devices", "0"], "devices.count=0 must be 1 or more"),
        (["synthetic", *TINY, "--memory", "1KiB"], "500 rows of 256 bytes do not fit into 2 devices of 1,024 bytes"),
        (["sinthetic"], "dataset 'sinthetic' is unknown; did you mean 'synthetic'?"),
        (["synthetic", "method=random"], "method=random has no co-clusters; take one of baco, baco_plus"),
        (["synthetic", "--sharders", "coclusters", "meits"], "sharder 'meits' is unknown; did you mean 'metis'?"),
        (["synthetic", "--out", "{folder}"], "--out: {folder} cannot be written; it is a folder"),
        (["{folder}/none.npz"], "there is no file {folder}/none.npz; it must be the export"),
        (["{folder}/text.npz"], "{folder}/text.npz cannot be read"),
        (["{folder}/arrays.npz"], "{folder}/arrays.npz holds no codes; it must be the export"),
    ],
    ids=lambda given: given[:40] if isinstance(given, str) else "",
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments, message):
    (tmp_path / "text.npz").write_text("no archive")
    write_arrays(tmp_path / "arrays.npz", {"numbers": np.arange(3)})
    given = [argument.format(folder=tmp_path) for argument in arguments]
    assert call(["place", "--devices", "2", "--memory", "1MiB", *given]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("error: " + message.format(folder=tmp_path)), captured.err


def test_codes_of_other_data_are_refused(made, capsys):
    assert call(["place", str(next(iter(made[1]))), "--devices", "2", "--memory", "1MiB"]) == 1
    assert "are not of the dataset 'synthetic'; give theirs, dataset=NAME" in capsys.readouterr().err


def test_a_size_without_a_unit_is_no_size(capsys):
    with pytest.raises(SystemExit):
        call(["place", "synthetic", "--devices", "2", "--memory", "5GB"])
    assert "'5GB' is no size such as 5GiB" in capsys.readouterr().err
