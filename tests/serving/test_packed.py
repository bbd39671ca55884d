"""Packed tables read by memory map: equal to the tables that were written, without torch, and only where they lie."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from baco.compressors.budget import Budget
from baco.embedding.codebook import CodebookTables
from baco.embedding.product_codes import ProductQuantizer, RefinedQuantizer, ResidualQuantizer, RotatedProductQuantizer
from baco.embedding.quantized import QuantizedTables
from baco.embedding.rounding import HalfQuantizer, UniformQuantizer
from baco.embedding.scaled import ScaledTables
from baco.errors import UserError
from baco.files import from_json_array, json_array, map_arrays, read_arrays, write_arrays
from baco.registry import method_class
from baco.serving.export import export_model, load_tables, write_tables
from baco.serving.packed import PackedTables
from tests.conftest import PLANTED
from tests.embedding.test_codebook import ASSIGNMENTS, DIM

QUANTIZERS = {
    "float32": None,
    "int4": UniformQuantizer(4, symmetric=False),
    "int8": UniformQuantizer(8),
    "bf16": HalfQuantizer(),
    "pq": ProductQuantizer(3, 2),
    "refined": RefinedQuantizer(3, 1, 2, 1, refined=1, among=2),
    "opq": RotatedProductQuantizer(2, 1),
    "rq": ResidualQuantizer(2, 1),
}


def written(path, assignment, quantizer=None, **description) -> CodebookTables | QuantizedTables:
    tables = CodebookTables(assignment, DIM)
    tables.reset_parameters(0.5, torch.Generator().manual_seed(0))
    if quantizer is not None:
        tables = QuantizedTables(tables, quantizer, 0)
    tables.on_training_end()
    write_tables(path, tables, description)
    return tables


@pytest.mark.parametrize("quantizer", QUANTIZERS.values(), ids=QUANTIZERS)
@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_lookups_are_the_rows_of_the_tables(tmp_path, name, quantizer):
    tables = written(tmp_path / "tables.npz", ASSIGNMENTS[name], quantizer)
    packed = PackedTables.open(tmp_path / "tables.npz")
    for side, output in zip(("users", "items"), tables(), strict=True):
        ids = np.array([2, 0, 2, 1], np.uint8)
        expected = output.detach().numpy()
        np.testing.assert_allclose(packed.lookup(side, ids), expected[ids], rtol=1e-6, atol=1e-7)
        assert packed.lookup(side, ids).dtype == np.float32
        assert packed.lookup(side, ids[:0]).shape == (0, DIM)
        assert getattr(packed, side).num_ids == len(expected) and packed.dim == DIM


def test_exports_from_before_are_read_too(tmp_path):
    """Compressed, and without format and marks."""
    tables = written(tmp_path / "new.npz", ASSIGNMENTS["scaled many codes"])
    arrays = {name: array for name, array in read_arrays(tmp_path / "new.npz").items() if ".marks" not in name}
    model = from_json_array(arrays["model"])
    del model["format"]
    write_arrays(tmp_path / "old.npz", arrays | {"model": json_array(model)})
    old = PackedTables.open(tmp_path / "old.npz")
    np.testing.assert_allclose(old.lookup("users", range(4)), tables()[0].detach(), rtol=1e-6)


def test_new_exports_are_read_as_old_ones_were(tmp_path):
    tables = written(tmp_path / "tables.npz", ASSIGNMENTS["many codes"])
    for output, restored in zip(tables(), load_tables(read_arrays(tmp_path / "tables.npz"))(), strict=True):
        torch.testing.assert_close(output, restored, rtol=0, atol=0)


def test_an_id_for_padding_is_zero_and_the_others_keep_their_numbers(tmp_path):
    tables = written(tmp_path / "tables.npz", ASSIGNMENTS["mean"], padding={"users": 0, "items": 3})
    packed = PackedTables.open(tmp_path / "tables.npz")
    users, items = (output.detach().numpy() for output in tables())
    np.testing.assert_allclose(packed.lookup("users", [4, 0, 1]), np.stack([users[3], 0 * users[0], users[0]]))
    np.testing.assert_allclose(packed.lookup("items", [2, 3]), np.stack([items[2], 0 * items[0]]))
    assert packed.users.num_ids == 5


def test_the_methods_own_exports_are_read(planted, tmp_path):
    config = {"dataset": planted.fingerprint}
    for name in ("baco", "baco_plus", "one_sided", "pq", "int4", "hybrid"):
        method = method_class(name)()
        budget = Budget.parse(0.3, "parameters", planted.num_users, planted.num_items, 16)
        tables = method.fit(planted.train, budget, np.random.default_rng(0))
        tables.reset_parameters(0.1, torch.Generator().manual_seed(0))
        tables.on_training_end()
        export_model(tmp_path / "tables.npz", tables, config, PLANTED, planted)
        packed = PackedTables.open(tmp_path / "tables.npz")
        for side, output in zip(("users", "items"), tables(), strict=True):
            np.testing.assert_allclose(
                packed.lookup(side, np.arange(len(output))), output.detach(), rtol=1e-5, atol=1e-6, err_msg=name
            )


@pytest.mark.parametrize("order", [1, -1])
def test_scales_of_items_around_quantized_tables_and_within_are_read(tmp_path, order):
    tables = CodebookTables(ASSIGNMENTS["mean"], DIM)
    tables.reset_parameters(0.5, torch.Generator().manual_seed(0))
    scale = np.array([1, 2, 0.5], np.float16)
    for wrap in (lambda t: ScaledTables(t, scale), lambda t: QuantizedTables(t, UniformQuantizer(8), 0))[::order]:
        tables = wrap(tables)
    tables.on_training_end()
    write_tables(tmp_path / "tables.npz", tables, {})
    packed = PackedTables.open(tmp_path / "tables.npz")
    for side, output in zip(("users", "items"), tables(), strict=True):
        np.testing.assert_allclose(packed.lookup(side, range(3)), output.detach()[:3], rtol=1e-6)


def test_names_are_those_of_the_log(tmp_path):
    texts = np.array(["b", "äö"], np.dtypes.StringDType())
    tables = CodebookTables(ASSIGNMENTS["mean"], DIM)
    write_tables(tmp_path / "tables.npz", tables, {}, {"user_ids": texts, "item_ids": np.array([7, 9])})
    packed = PackedTables.open(tmp_path / "tables.npz")
    assert packed.names("users").tolist() == ["b", "äö"] and packed.names("items").tolist() == [7, 9]
    write_tables(tmp_path / "tables.npz", tables, {})
    assert PackedTables.open(tmp_path / "tables.npz").names("users") is None


def test_neither_torch_nor_a_compiler_is_imported(tmp_path):
    written(tmp_path / "tables.npz", ASSIGNMENTS["many codes"], ProductQuantizer(3, 2))
    program = (
        "import sys; from baco.serving.packed import PackedTables\n"
        f"print(PackedTables.open({str(tmp_path / 'tables.npz')!r}).lookup('users', [0, 3]).shape)\n"
        "print({name.partition('.')[0] for name in sys.modules} & {'torch', 'numba', 'scipy', 'pandas'})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["(2,", f"{DIM})", "set()"]


def test_arrays_are_mapped_where_they_can_be_read(tmp_path):
    arrays = {
        "bytes": np.arange(3, dtype=np.uint8),
        "a long name/of rows": np.arange(6, dtype=np.float64).reshape(2, 3),
        "by columns": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
        "none": np.zeros((0, 4), np.float32),
        "one": np.float32(3),
    }
    write_arrays(tmp_path / "arrays.npz", arrays, compress=False)
    write_arrays(tmp_path / "compressed.npz", arrays)
    for name in ("arrays.npz", "compressed.npz"):
        found = map_arrays(tmp_path / name)
        assert found.keys() == arrays.keys()
        for array, expected in zip(found.values(), arrays.values(), strict=True):
            np.testing.assert_array_equal(array, expected, strict=True)
    mapped = map_arrays(tmp_path / "arrays.npz")
    addresses = [array.__array_interface__["data"][0] % 64 for array in mapped.values()]
    assert addresses == [0] * len(arrays)
    with pytest.raises(ValueError, match="read-only"):
        mapped["bytes"][0] = 1


@pytest.mark.parametrize(
    ("side", "ids", "message"),
    [
        ("user", [0], "side=user must be users or items; did you mean 'users'"),
        ("users", [0, 4], r"id 4 lies outside 0..3"),
        ("users", [-1], r"id -1 lies outside"),
        ("users", [0.5], "whole numbers; got float64"),
        ("users", [[0]], r"got int64 of shape \(1, 1\)"),
    ],
)
def test_wrong_lookups_are_one_clear_error(tmp_path, side, ids, message):
    written(tmp_path / "tables.npz", ASSIGNMENTS["mean"])
    with pytest.raises(UserError, match=message):
        PackedTables.open(tmp_path / "tables.npz").lookup(side, ids)


def test_files_that_are_none_of_ours_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        PackedTables.open(tmp_path / "missing.npz")
    (tmp_path / "other.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"other.npz cannot be read"):
        PackedTables.open(tmp_path / "other.npz")
    write_arrays(tmp_path / "other.npz", {"rows": np.zeros(3)}, compress=False)
    with pytest.raises(UserError, match=r"other.npz holds no tables"):
        PackedTables.open(tmp_path / "other.npz")
    written(tmp_path / "tables.npz", ASSIGNMENTS["mean"])
    arrays = read_arrays(tmp_path / "tables.npz")
    for change, message in (
        ({"format": 3}, "has the format 3"),
        ({"tables": "RobeTables"}, "RobeTables cannot be read by"),
    ):
        model = from_json_array(arrays["model"]) | change
        write_arrays(tmp_path / "tables.npz", arrays | {"model": json_array(model)}, compress=False)
        with pytest.raises(UserError, match=message):
            PackedTables.open(tmp_path / "tables.npz")
    write_arrays(tmp_path / "less.npz", {name: array for name, array in arrays.items() if name != "items/rows"})
    with pytest.raises(UserError, match=r"less.npz lacks 'items/rows'"):
        PackedTables.open(tmp_path / "less.npz")
    content = (tmp_path / "tables.npz").read_bytes()
    (tmp_path / "tables.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"tables.npz cannot be read"):
        PackedTables.open(tmp_path / "tables.npz")
