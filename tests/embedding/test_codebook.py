import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag

from baco.embedding.codebook import CodebookTables
from baco.embedding.codes import Assignment, Codes
from baco.embedding.cost import code_ledger
from baco.embedding.rules import AffineHash, Identity, ManyCodes

DIM = 8
TWO_CODES = np.array([[0, 2], [1, 1], [2, 0], [1, 0]], np.int32)
MANY = ManyCodes.of(np.array([0, 3, 4, 6, 10]), np.array([0, 0, 2, 1, 1, 1, 2, 0, 2, 1]), 3)
ASSIGNMENTS = {
    "identity": Assignment(Codes.from_rule(Identity(), 4, 4), Codes.from_rule(Identity(), 3, 3)),
    "mean": Assignment(Codes(TWO_CODES, 3), Codes(np.array([[1], [0], [1]], np.int32), 2)),
    "sum": Assignment(
        Codes.from_rule(AffineHash.draw(2, 4, np.random.default_rng(1)), 4, 3, np.ones(2, np.float32)),
        Codes.from_rule(AffineHash.draw(1, 3, np.random.default_rng(2)), 3, 2),
    ),
    "weighted": Assignment(
        Codes(TWO_CODES, 3, np.array([[0.5, 2], [1, 0], [3, 1], [1, 1]], np.float32)), Codes.from_rule(Identity(), 3, 3)
    ),
    "shared": Assignment(Codes(TWO_CODES, 3), Codes(np.array([[2], [0], [2]], np.int32), 3), shared=True),
    "shared, scaled": Assignment(
        Codes(np.array([[2], [0], [1], [2]], np.int32), 3),
        Codes(np.array([[2], [0], [2]], np.int32), 3, scale=np.array([1, 2, 0.5], np.float16)),
        shared=True,
    ),
    "scaled": Assignment(
        Codes(TWO_CODES, 3, scale=np.array([1, 2, 0.5, 0], np.float16)),
        replace(Codes.from_rule(Identity(), 3, 3), scale=np.array([0.25, 1, 3], np.float16)),
    ),
    "scaled many codes": Assignment(
        replace(Codes.from_rule(MANY, 4, 3), scale=np.array([1, 2, 0.5, 3], np.float16)),
        Codes(
            np.array([[1, 0], [0, 0], [0, 1]], np.int32),
            2,
            np.array([1, 2], np.float32),
            scale=np.array([2, 1, 4], np.float16),
        ),
    ),
    "many codes": Assignment(Codes.from_rule(MANY, 4, 3), Codes(np.array([[1], [0], [1]], np.int32), 2)),
}


@pytest.fixture(params=ASSIGNMENTS)
def assignment(request):
    return ASSIGNMENTS[request.param]


@pytest.fixture
def tables(assignment):
    tables = CodebookTables(assignment, DIM)
    tables.reset_parameters(0.5, torch.Generator().manual_seed(0))
    return tables


def pooling_matrix(codes: Codes) -> np.ndarray:
    """(n, num_rows): the weight of each row in each id's embedding, entry by entry."""
    matrix = np.zeros((codes.num_ids, codes.num_rows), np.float32)
    weights = 1 / codes.codes_per_id if codes.weights is None else codes.weights
    for x in range(codes.num_ids):
        own = x if codes.ends is None else slice(*codes.ends[x : x + 2])
        for row, weight in zip(codes.index[own], np.broadcast_to(weights, codes.index.shape)[own], strict=True):
            matrix[x, row] += weight if codes.scale is None else weight * codes.scale[x]
    return matrix


def test_pooling_is_the_pooling_matrix_and_changes_nothing(assignment, tables):
    before = {name: value.clone() for name, value in tables.state_dict().items()}
    found = tables.pooling()
    expected = [pooling_matrix(codes) for codes in (assignment.users, assignment.items)]
    if found is None:
        assert all(np.array_equal(matrix, np.eye(len(matrix))) for matrix in expected)
    else:
        np.testing.assert_allclose(
            found.toarray(), np.concatenate(expected) if assignment.shared else block_diag(*expected)
        )
    for name, value in tables.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_embeddings_and_gradients_are_those_of_the_pooling_matrix(assignment, tables):
    outputs = tables()
    factors = [torch.randn(output.shape, generator=torch.Generator().manual_seed(1)) for output in outputs]
    sum((output * factor).sum() for output, factor in zip(outputs, factors, strict=True)).backward()
    gradients = []
    for side, output, factor in zip(("users", "items"), outputs, factors, strict=True):
        matrix = torch.as_tensor(pooling_matrix(getattr(assignment, side)))
        torch.testing.assert_close(output, matrix @ getattr(tables, side).rows)
        gradients.append(matrix.T @ factor)
    if assignment.shared:
        gradients = [sum(gradients)]
    for rows, gradient in zip(tables.parameters(), gradients, strict=True):
        torch.testing.assert_close(rows.grad, gradient)


def test_lookup_equals_the_rows_of_forward(tables):
    ids = torch.tensor([2, 0, 2, 1], dtype=torch.int32)
    for side, output in zip(("users", "items"), tables(), strict=True):
        torch.testing.assert_close(tables.lookup(side, ids), output[ids])


def test_export_has_the_ledgers_bytes_and_restores_the_tables(tables):
    arrays = tables.export()
    stored = sum(array.nbytes for name, array in arrays.items() if name != "header")
    assert stored == tables.ledger().bytes
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)
    with np.load(file) as archive:
        again = CodebookTables.from_export(dict(archive))
    for output, restored in zip(tables(), again(), strict=True):
        torch.testing.assert_close(output, restored, rtol=0, atol=0)


def test_ledger_by_hand():
    ledger = code_ledger(ASSIGNMENTS["mean"], DIM)
    assert (ledger.user_rows, ledger.item_rows, ledger.extra_codes) == (3, 2, 3)
    assert ledger.parameters == 5 * DIM + 3
    assert ledger.bytes == 4 * 5 * DIM + 2 + 1  # 8 codes of 2 bits, 3 codes of 1 bit
    scaled = code_ledger(ASSIGNMENTS["scaled"], DIM)
    assert (scaled.extra_codes, scaled.parameters) == (3, 6 * DIM + 3 + 7)
    assert scaled.bytes == 4 * 6 * DIM + 2 + 2 * 7
    assert ledger.training_floats == 5 * DIM
    full = code_ledger(ASSIGNMENTS["identity"], DIM)
    assert (full.parameters, full.bytes) == (7 * DIM, 4 * 7 * DIM)
    weighted = code_ledger(ASSIGNMENTS["weighted"], DIM)
    shared = code_ledger(ASSIGNMENTS["shared"], DIM)
    assert (shared.parameters, shared.user_rows, shared.item_rows) == (3 * DIM + 3, 3, 0), "rows are counted once"
    assert shared.bytes == 4 * 3 * DIM + 2 + 1
    assert weighted.parameters == 6 * DIM + 3 + 8  # three second codes have weight, and 8 weights are stored


def test_codes_are_part_of_the_state(tables):
    state = tables.state_dict()
    torch.testing.assert_close(state["users.codes"], tables.users.codes)
    names = {"users.rows"} if tables.assignment.shared else {"users.rows", "items.rows"}
    assert set(dict(tables.named_parameters())) == names


def test_first_values_follow_the_seed_and_the_deviation():
    big = CodebookTables(
        Assignment(Codes.from_rule(Identity(), 2000, 2000), Codes.from_rule(Identity(), 1000, 1000)), DIM
    )
    big.reset_parameters(0.1, torch.Generator().manual_seed(3))
    first = big.users.rows.clone()
    assert first.std().item() == pytest.approx(0.1, rel=0.03)
    big.reset_parameters(0.1, torch.Generator().manual_seed(3))
    torch.testing.assert_close(big.users.rows, first, rtol=0, atol=0)
