"""Quantization: what packing loses, what it costs, and tables that are trained in float32 and served in fewer bits."""

import io
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from omegaconf import OmegaConf
from scipy.cluster.vq import kmeans2

from baco.backbones.backbone import MF, LightGCN
from baco.compressors.budget import Budget
from baco.compressors.compressor import CodeCompressor
from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment, Codes
from baco.embedding.cost import RowFormat, code_ledger
from baco.embedding.product_codes import ProductQuantizer, RefinedQuantizer
from baco.embedding.quantized import QuantizedTables
from baco.embedding.quantizers import QUANTIZERS, unpack_export
from baco.embedding.rounding import HalfQuantizer, UniformQuantizer, half_above
from baco.embedding.rules import AffineHash, Identity
from baco.embedding.scaled import ScaledTables
from baco.embedding.tables import EmbeddingTables
from baco.embedding.wrapped import WrappedTables
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.registry import METHODS, method_class
from baco.rng import stream, torch_stream
from baco.training.checkpoint import Checkpoint
from baco.training.trainer import Trainer
from tests.conftest import QUICK

CONF = Path(__file__).parents[2] / "conf" / "quantize"
CHOICES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "none")
DIM = 16
method_class("full")  # imports them all
CODE_METHODS = sorted(name for name, cls in METHODS.items() if issubclass(cls, CodeCompressor) and cls().has_budget)


def quantizer_of(choice: str):
    """What conf/quantize/<choice>.yaml asks for."""
    settings = OmegaConf.to_container(OmegaConf.load(CONF / f"{choice}.yaml"))
    return QUANTIZERS[settings.pop("name")](**settings)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def normal_rows(n=500, dim=64, seed=0) -> np.ndarray:
    """Rows of different norms, as trained ones are."""
    draws = np.random.default_rng(seed)
    return (draws.standard_normal((n, dim)) * draws.lognormal(-1, 0.5, (n, 1))).astype(np.float32)


def restored(quantizer, rows: np.ndarray, weights=None) -> np.ndarray:
    packed = quantizer.pack(rows, rng(), weights)
    assert sum(array.nbytes for array in packed.values()) == quantizer.format(rows.shape[1]).bytes(len(rows))
    return quantizer.unpack(packed, rows.shape[1])


def error(quantizer, rows: np.ndarray) -> float:
    """Squared, relative to that of zeros."""
    return float(((restored(quantizer, rows) - rows) ** 2).sum() / (rows**2).sum())


@given(st.floats(-6e4, 6e4))
def test_half_above_is_the_next_float16(value):
    (above,) = half_above(np.array([value]))
    assert above >= value and float(np.float16(above)) == above
    assert float(np.nextafter(np.float16(above), np.float16(-np.inf))) < value


# bfloat16 ------------------------------------------------------------------------------------------------------------


@given(arrays(np.float32, (3, 5), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_bfloat16_is_torchs(rows):
    found = restored(HalfQuantizer(), rows)
    np.testing.assert_array_equal(found, torch.from_numpy(rows).bfloat16().float().numpy())
    assert (np.abs(found - rows) <= np.abs(rows) * 2.0**-8 + np.finfo(np.float32).tiny).all()


# Uniform -------------------------------------------------------------------------------------------------------------

entries = st.floats(-1e4, 1e4, width=32)


@given(arrays(np.float32, (3, 5), elements=entries), st.integers(2, 8), st.booleans())
def test_no_entry_is_off_by_more_than_half_a_scale(rows, bits, symmetric):
    quantizer = UniformQuantizer(bits, symmetric)
    packed = quantizer.pack(rows, rng())
    scale = packed["scale"].astype(np.float64)[:, None]
    off = np.abs(quantizer.unpack(packed, 5).astype(np.float64) - rows)
    assert (off <= scale / 2 + 1e-6 * np.abs(rows).max()).all()  # float32 sums


@given(arrays(np.float32, (4, 6), elements=entries), st.integers(2, 8), st.booleans())
def test_fitting_never_makes_a_row_worse(rows, bits, symmetric):
    spanning, fitted = (restored(UniformQuantizer(bits, symmetric, fit), rows) for fit in (False, True))
    before, after = (((found.astype(np.float64) - rows) ** 2).sum(1) for found in (spanning, fitted))
    assert (after <= before * (1 + 1e-6) + 1e-6 * np.abs(rows).max()).all()


@pytest.mark.parametrize("choice", ["int8", "int4", "int2"])
def test_zero_and_constant_rows_survive(choice):
    constant = np.float32(np.float16(0.3))  # a number that the offset or the scale can hold
    rows = np.stack([np.zeros(8), np.full(8, constant), np.full(8, -constant)]).astype(np.float32)
    found = restored(quantizer_of(choice), rows)
    np.testing.assert_allclose(found, rows, rtol=1e-3)
    assert (found[0] == 0).all()


@pytest.mark.parametrize(("choice", "bound"), [("int8", 1e-4), ("int4", 8e-3), ("int2", 0.11)])
def test_error_of_normal_rows(choice, bound):
    assert bound / 3 < error(quantizer_of(choice), normal_rows()) < bound


def test_two_bits_come_near_the_best_grid_there_is():
    """By trying a fine lattice of scales and offsets for each row."""
    rows = normal_rows(n=20, dim=16)
    best = np.full(len(rows), np.inf)
    spread = rows.std(1, keepdims=True)
    for scale in np.linspace(0.2, 2, 60):
        for offset in np.linspace(-3, 0, 60):
            s, o = scale * spread, offset * spread
            levels = np.rint((rows - o) / s).clip(0, 3)
            best = np.minimum(best, ((levels * s + o - rows) ** 2).sum(1))
    found = ((restored(UniformQuantizer(2, False, True), rows) - rows) ** 2).sum(1)
    assert found.sum() < 1.03 * best.sum()


@pytest.mark.parametrize(("bits", "operator"), [(8, "byte"), (4, "4bit"), (2, "2bit")])
def test_spanning_grids_are_as_good_as_torchs(bits, operator):
    rows = torch.from_numpy(normal_rows())
    operators = torch.ops.quantized
    packed = getattr(operators, f"embedding_bag_{operator}_prepack")(rows)
    theirs = getattr(operators, f"embedding_bag_{operator}_unpack")(packed).numpy()
    ours = restored(UniformQuantizer(bits, symmetric=False), rows.numpy())
    step = np.ptp(rows.numpy(), axis=1, keepdims=True) / (2**bits - 1)
    assert (np.abs(ours - theirs) < 1.01 * step).all(), "the same grid: at ties the neighbouring level"
    errors = [((found - rows.numpy()) ** 2).sum() for found in (ours, theirs)]
    assert errors[0] < 1.01 * errors[1], "with scales in float16, torch's of 8 bits are in float32"


@pytest.mark.parametrize("value", [1e5, np.nan, np.inf])
def test_entries_that_no_scale_reaches_are_refused(value):
    rows = normal_rows(4, 8)
    rows[1, 2] = value
    with pytest.raises(UserError, match="cannot be quantized, the most is 30000; train without a quantizer"):
        UniformQuantizer().pack(rows, rng())


# Product -------------------------------------------------------------------------------------------------------------


def test_reconstruction_is_as_good_as_scipys_kmeans():
    rows = normal_rows(n=1500, dim=12)
    quantizer = ProductQuantizer(blocks=3, bits=5)
    theirs = 0.0
    for block in range(3):
        points = rows[:, 4 * block : 4 * block + 4].astype(np.float64)
        centroids, labels = kmeans2(points, 32, iter=25, minit="++", seed=0)
        theirs += ((points - centroids[labels]) ** 2).sum()
    ours = ((restored(quantizer, rows) - rows) ** 2).sum()
    assert 0.9 * theirs < ours < 1.03 * theirs


def test_few_distinct_values_are_kept_exactly():
    rows = np.random.default_rng(0).choice(np.float32([-1.5, 0.25, 0.5, 3]), (300, 6))
    np.testing.assert_array_equal(restored(ProductQuantizer(blocks=6, bits=2), rows), rows)
    np.testing.assert_array_equal(restored(ProductQuantizer(blocks=1, bits=8), rows[:200]), rows[:200])
    np.testing.assert_array_equal(restored(ProductQuantizer(blocks=1, bits=9), rows[:400]), rows[:400])


def test_blocks_need_not_divide_the_width():
    quantizer = ProductQuantizer(blocks=5, bits=4)
    widths = np.bincount(quantizer.block_of_column(12))
    assert widths.tolist() == [3, 2, 3, 2, 2] and (np.diff(quantizer.block_of_column(12)) >= 0).all()
    assert error(quantizer, normal_rows(dim=12)) < error(ProductQuantizer(4, 4), normal_rows(dim=12))


def test_refined_rows_are_those_of_the_largest_weights_and_nearer():
    rows, weights = normal_rows(n=300, dim=8), np.random.default_rng(3).permutation(200)
    coarse, quantizer = ProductQuantizer(2, 4), RefinedQuantizer(2, 4, 4, 3, refined=50, among=200)
    before, after = restored(coarse, rows), restored(quantizer, rows, weights)
    chosen = np.append(weights >= 150, np.zeros(100, bool))
    np.testing.assert_array_equal(after[~chosen], before[~chosen])
    errors = [((found - rows)[chosen] ** 2).sum() for found in (before, after)]
    assert errors[1] < 0.4 * errors[0]
    assert quantizer.format(8).table_parameters == 8 * (16 + 8) + 50 * 4
    assert quantizer.format(8).row_parameters == coarse.format(8).row_parameters


def test_weights_draw_the_centroids_to_where_they_lie():
    rows = normal_rows(n=400, dim=8)
    weights = np.where(np.arange(400) < 40, 100.0, 1.0)
    heavy = [((restored(ProductQuantizer(2, 4), rows, of) - rows)[:40] ** 2).sum() for of in (None, weights)]
    assert heavy[1] < 0.7 * heavy[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformQuantizer(9), "^bits=9 must lie between 2 and 8"),
        (lambda: UniformQuantizer(0, symmetric=False), "^bits=0 must lie between 1 and 8"),
        (lambda: ProductQuantizer(0), "^blocks=0 must be 1 or more"),
        (lambda: ProductQuantizer(4, 13), "^bits=13 must lie between 1 and 12"),
        (lambda: ProductQuantizer(16).format(8), "^blocks=16 is more than the embedding width dim=8"),
    ],
)
def test_impossible_settings_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


# Budgets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("bf16", RowFormat(64, 128)),
        ("int8", RowFormat(65, 66)),
        ("int4", RowFormat(66, 36)),
        ("int2", RowFormat(66, 20)),
        ("pq", RowFormat(15, 16, 256 * 64, 4 * 256 * 64)),
    ],
)
def test_what_rows_of_64_entries_cost(choice, expected):
    assert quantizer_of(choice).format(64) == expected


def test_rows_that_a_budget_buys_in_a_format():
    assert Budget(1000, "bytes", 8, UniformQuantizer()).rows(extra_bytes=10) == 99
    assert Budget(1000, "parameters", 8, UniformQuantizer()).rows(extra_parameters=10) == 110
    product = ProductQuantizer(4, 2)  # a byte a row, and 4 centroids of 8 float32 for each side
    assert Budget(1000, "bytes", 8, product).rows() == 1000 - 2 * 4 * 8 * 4
    assert Budget(100, "bytes", 8, product).rows() == 0
    assert Budget(1000, "bytes", 8).row_format(3) == RowFormat.float32(3)
    assert Budget(1000, "bytes", 8, UniformQuantizer()).row_format(3) == UniformQuantizer().format(3)
    assert Budget(1000, "bytes", 8).as_dict() == {"limit": 1000, "unit": "bytes", "dim": 8}
    row = {"row_parameters": 9, "row_bytes": 10, "table_parameters": 0, "table_bytes": 0}
    assert Budget(1000, "bytes", 8, UniformQuantizer()).as_dict() == {
        "limit": 1000,
        "unit": "bytes",
        "dim": 8,
        "row": row,
    }


@pytest.mark.parametrize("name", CODE_METHODS)
def test_methods_spend_the_bytes_that_packing_saves(name, planted):
    train, quantizer = planted.train, UniformQuantizer(8)
    budgets = [Budget.parse(0.2, "bytes", train.num_users, train.num_items, DIM, of) for of in (None, quantizer)]
    plain, packed = (METHODS[name]().assign(train, budget, stream(0, "assign")) for budget in budgets)
    rows = [assignment.users.num_rows + assignment.items.num_rows for assignment in (plain, packed)]
    share = budgets[1].share(code_ledger(packed, DIM, quantizer.format(DIM)))
    assert share <= 1 and rows[1] > 2 * rows[0]
    assert share > 0.9 or rows[1] > 0.9 * train.num_nodes


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("qr", {}),
        ("qr", {"operation": "concat"}),
        ("ttrec", {}),
        ("cce", {}),
        ("cce", {"num_chunks": 4}),
        ("legcf", {}),
    ],
    ids=str,
)
def test_methods_with_rows_of_other_widths_fill_the_budget_as_they_are_stored(name, settings, bits, unit, planted):
    train, quantizer = planted.train, UniformQuantizer(bits)
    ratio = 0.5 if unit == "parameters" else 0.09 if name == "qr" else 0.2  # of bytes, more is more rows than ids
    budget = Budget.parse(ratio, unit, train.num_users, train.num_items, DIM, quantizer)
    tables = METHODS[name](METHODS[name].Config(**settings)).fit(train, budget, stream(0, "assign"))
    share = budget.share(QuantizedTables(tables, quantizer, 0).ledger())
    assert 0.9 < share <= 1


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
def test_each_of_the_four_codebooks_of_qr_pays_for_its_centroids(unit, planted):
    train, quantizer = planted.train, ProductQuantizer(8, 4)
    budget = Budget.parse(0.3 if unit == "parameters" else 0.12, unit, train.num_users, train.num_items, DIM, quantizer)
    tables = METHODS["qr"]().fit(train, budget, stream(0, "assign"))
    assert len(tables.quantizable()) == 4
    assert 0.9 < budget.share(QuantizedTables(tables, quantizer, 0).ledger()) <= 1


# Tables --------------------------------------------------------------------------------------------------------------

ASSIGNMENT = Assignment(
    Codes.from_rule(AffineHash.draw(2, 400, np.random.default_rng(1)), 400, 120, np.ones(2, np.float32)),
    Codes.from_rule(Identity(), 300, 300),
)


def trained(choice: str) -> QuantizedTables:
    """Tables with values, not yet packed; with few centroids, as there are few rows."""
    quantizer = ProductQuantizer(8, 5) if choice == "pq" else quantizer_of(choice)
    tables = QuantizedTables(CodebookTables(ASSIGNMENT, DIM), quantizer, seed=3)
    tables.reset_parameters(0.5, torch_stream(0, "init"))
    return tables


@pytest.mark.parametrize("choice", CHOICES)
def test_what_is_tested_is_what_is_exported(choice):
    tables = trained(choice)
    before = [output.clone() for output in tables()]
    tables.on_training_end()
    exported = tables.export()
    stored = sum(array.nbytes for name, array in exported.items() if name != "header")
    assert stored == tables.ledger().bytes
    assert tables.ledger() == code_ledger(ASSIGNMENT, DIM, tables.quantizer.format(DIM))
    file = io.BytesIO()
    np.savez(file, **exported)
    file.seek(0)
    with np.load(file) as archive:
        again = CodebookTables.from_export(unpack_export(dict(archive)))
    for output, restored_output, first in zip(tables(), again(), before, strict=True):
        torch.testing.assert_close(output, restored_output, rtol=0, atol=0)
        assert not torch.equal(output, first)
        assert (output - first).square().mean() < 0.3 * first.square().mean()


def test_an_export_of_changed_rows_is_that_of_the_new_ones():
    tables = trained("int8")
    tables.on_training_end()
    tables.reset_parameters(0.5, torch_stream(1, "init"))
    rows = CodebookTables.from_export(unpack_export(tables.export())).users.rows
    torch.testing.assert_close(rows, tables.inner.users.rows, rtol=0, atol=0.02)
    assert not torch.equal(rows, tables.inner.users.rows)


@pytest.mark.parametrize("choice", ["bf16", "int8", "int4", "pq"])
def test_rows_are_unpacked_in_pieces_as_a_whole(choice, monkeypatch):
    quantizer, rows = quantizer_of(choice), normal_rows(300, 32)
    packed = quantizer.pack(rows, rng())
    whole = quantizer.unpack(packed, 32)
    monkeypatch.setattr("baco.embedding.quantizer.PIECE", 128)
    np.testing.assert_array_equal(quantizer.unpack(packed, 32), whole, strict=True)


@pytest.mark.parametrize(("packed", "most"), [(False, 0.75), (True, 0.1)], ids=["packed now", "packed before"])
def test_an_export_makes_no_second_copy_of_the_rows(packed, most):
    tables = QuantizedTables(CodebookTables(Assignment.of_own_rows(60_000, 10), DIM), quantizer_of("int8"), seed=0)
    if packed:
        tables.on_training_end()
    tracemalloc.start()
    try:
        tables.export()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most * tables.inner.users.rows.nbytes


def test_tables_are_quantized_once_at_most_and_only_where_they_can_be():
    with pytest.raises(UserError, match="cannot be packed as int4; train them without a quantizer"):
        QuantizedTables(trained("int8"), quantizer_of("int4"), seed=0)


def test_an_export_in_float32_is_left_alone():
    arrays = CodebookTables(ASSIGNMENT, DIM).export()
    assert unpack_export(arrays) is arrays


def test_an_export_of_a_later_version_is_refused():
    tables = trained("int8")
    arrays = tables.export()
    header = arrays["header"].tobytes().replace(b'"uniform"', b'"ternary"')
    with pytest.raises(UserError, match="the quantizer 'ternary', which this version does not know"):
        unpack_export(arrays | {"header": np.frombuffer(header, np.uint8)})


@pytest.mark.parametrize("backbone", [MF, LightGCN])
def test_training_is_that_of_the_tables_within(backbone, planted, tmp_path):
    """To the bit, interrupted or not; and 8 bits cost next to nothing."""

    def fit(tables, max_epochs=None, checkpoint=None):
        trainer = Trainer(
            backbone(planted.train, backbone.Config()),
            Evaluator(planted),
            QUICK,
            0,
            torch.device("cpu"),
            progress=False,
        )
        report = trainer.fit(tables, max_epochs, checkpoint)
        return report.history, trainer.evaluate(tables, "test").means()["recall@20"]

    plain, packed = CodebookTables(ASSIGNMENT, DIM), trained("int8")
    plain.reset_parameters(0.5, torch_stream(0, "init"))
    history, recall = fit(plain)
    packed_history, packed_recall = fit(packed)
    assert packed_history == history
    assert packed_recall == pytest.approx(recall, rel=0.02)
    expected = UniformQuantizer().pack(plain.users.rows.detach().numpy(), rng())
    np.testing.assert_array_equal(packed.export()["users/rows.levels"], expected["levels"])

    class StopError(Exception):
        pass

    class Interrupted(Checkpoint):
        def save(self, state):
            super().save(state)
            if state["report"]["epochs"] == 6:
                raise StopError

    again = trained("int8")
    with pytest.raises(StopError):
        fit(again, checkpoint=Interrupted(tmp_path / "checkpoint", 0, {}))
    again = trained("int8")
    fit(again, checkpoint=Checkpoint(tmp_path / "checkpoint", 999, {}))
    for one, other in zip(again(), packed(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["bf16", "int8", "int4", "int2"])
def test_the_full_model_in_few_bits_is_quantized_as_the_choice_of_that_name(name, planted):
    tables = method_class(name)().fit(planted.train, Budget(1, "bytes", DIM), rng())
    assert asdict(tables.quantizer) == asdict(quantizer_of(name))


def test_every_hook_is_handed_on():
    hooks = {name for name, value in vars(EmbeddingTables).items() if callable(value) and not name.startswith("_")}
    assert hooks - set(vars(WrappedTables)) == {"ledger", "export", "quantizable"}
    assert {"ledger", "export"} <= set(vars(QuantizedTables)) & set(vars(ScaledTables))
    assert "quantizable" not in vars(QuantizedTables), "what is packed already is not packed again"
