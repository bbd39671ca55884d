"""Layers for one's own model, against the layers of torch over the embeddings that they stand for."""

import copy
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import embedding, embedding_bag

from baco.embedding.codebook import Codebook, fitted_rows
from baco.embedding.codes import Codes
from baco.embedding.module import CompressedEmbedding, CompressedEmbeddingBag
from baco.embedding.rules import ManyCodes
from baco.errors import UserError
from tests.embedding.test_codebook import ASSIGNMENTS, pooling_matrix

DIM = 6
CODES = {name: assignment.users for name, assignment in ASSIGNMENTS.items()}
PADDINGS = st.sampled_from([None, 0, 2, -1])


def layer_of(codes: Codes, padding_idx=None, cls=CompressedEmbedding, **options):
    torch.manual_seed(0)
    return cls(codes.num_ids + (padding_idx is not None), DIM, codes, padding_idx, **options)


@pytest.mark.parametrize("name", CODES)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), max_size=5),
    PADDINGS,
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
def test_embeddings_and_gradients_are_those_of_the_dense_layer(name, ids, padding_idx, dtype):
    layer = layer_of(CODES[name], padding_idx, dtype=dtype)
    ids = torch.tensor(ids, dtype=torch.int64).reshape(-1, 3)
    dense = nn.Embedding.from_pretrained(layer.weight.detach().clone(), freeze=False, padding_idx=layer.padding_idx)
    found, expected = layer(ids), dense(ids)
    assert found.dtype == dtype and torch.equal(found, expected)
    factors = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    (found * factors).sum().backward()
    (expected * factors).sum().backward()
    gradient = dense.weight.grad.double()
    if layer.padding_idx is not None:
        gradient = torch.cat([gradient[: layer.padding_idx], gradient[layer.padding_idx + 1 :]])
    shared = torch.from_numpy(pooling_matrix(CODES[name])).double().T @ gradient
    close = 0.05 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(layer.codebook.rows.grad.double(), shared, rtol=close, atol=close)


@pytest.mark.parametrize("name", CODES)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=8),
    st.integers(0, 8),
    PADDINGS,
    st.sampled_from(["sum", "mean"]),
    st.booleans(),
    st.booleans(),
)
def test_bags_are_those_of_the_dense_layer(name, ids, second, padding_idx, mode, last, weighted):
    layer = layer_of(CODES[name], padding_idx, CompressedEmbeddingBag, mode=mode, include_last_offset=last)
    options = {"mode": mode, "padding_idx": layer.padding_idx, "include_last_offset": last}
    ids = torch.tensor(ids)
    offsets = torch.tensor([0, min(second, len(ids)), *([len(ids)] if last else [])])
    weights = torch.linspace(0.5, 2, len(ids)) if weighted and mode == "sum" else None
    dense = embedding_bag(ids, layer.weight, offsets, per_sample_weights=weights, **options)
    assert torch.equal(layer(ids, offsets, weights), dense)
    if not last and weights is None:
        del options["include_last_offset"]
        rows = ids[None].expand(2, -1)
        assert torch.equal(layer(rows), embedding_bag(rows, layer.weight, **options))


@pytest.mark.parametrize("name", CODES)
def test_state_copies_and_moves_keep_the_embeddings(name):
    layer, other = layer_of(CODES[name], 0), CompressedEmbedding(CODES[name].num_ids + 1, DIM, CODES[name], 0)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    for same in (other, copy.deepcopy(layer)):
        assert torch.equal(same.weight, layer.weight)
    assert [name for name, _ in layer.named_parameters()] == ["codebook.rows"]
    assert layer.to(torch.bfloat16)(torch.tensor([1])).dtype == torch.bfloat16


@given(st.integers(0, 99), st.integers(1, 3), st.integers(2, 12))
def test_fitted_rows_have_the_least_squared_error(seed, most, num_rows):
    rng = np.random.default_rng(seed)
    ends = np.cumsum([0, *rng.integers(1, most + 1, 30)])
    codes = Codes.from_rule(ManyCodes.of(ends, rng.integers(num_rows, size=ends[-1]), num_rows), 30, num_rows)
    target = rng.normal(size=(30, DIM)).astype(np.float32)
    matrix = pooling_matrix(codes).astype(np.float64)
    found = fitted_rows(Codebook(codes, DIM).pooling(), target)
    best = np.linalg.lstsq(matrix, target, rcond=None)[0]
    assert ((matrix @ found - target) ** 2).sum() == pytest.approx(((matrix @ best - target) ** 2).sum(), rel=1e-5)


def test_pretrained_rows_are_means_and_frozen_as_in_torch():
    dense = torch.arange(8, dtype=torch.float64).reshape(4, 2)
    codes = Codes.from_labels(np.array([5, 3, 5]))
    layer = CompressedEmbedding.from_pretrained(dense, codes, padding_idx=0)
    torch.testing.assert_close(layer.codebook.rows.detach(), torch.stack([dense[2], dense[[1, 3]].mean(0)]))
    assert layer.weight.dtype == torch.float64 and not layer.codebook.rows.requires_grad
    assert CompressedEmbedding.from_pretrained(dense, codes, freeze=False, padding_idx=0).codebook.rows.requires_grad


@pytest.mark.parametrize("name", CODES)
def test_layers_are_traced_whole(name):
    """By `torch.export` for any number of ids, and by `torch.compile`."""
    layer = layer_of(CODES[name], 0)
    ids = torch.tensor([[1, 2, 0], [3, 3, 4]])
    batch = torch.export.Dim("batch", min=2, max=100)
    exported = torch.export.export(layer, (ids,), dynamic_shapes=({0: batch},)).module()
    again = torch.cat([ids, ids.flip(1)])
    torch.testing.assert_close(exported(again), layer(again), rtol=0, atol=0)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):  # where ids have different numbers
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(ids), layer(ids), rtol=0, atol=0)


@pytest.mark.parametrize("ids", [[-1], [4]])
@pytest.mark.parametrize("name", ["mean", "many codes"])
def test_ids_outside_the_table_are_refused_as_by_torch(name, ids):
    layer = layer_of(CODES[name])
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        embedding(torch.tensor(ids), layer.weight)
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        layer(torch.tensor(ids))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, DIM, CODES["mean"]), "codes of 4 ids, but 5 embeddings"),
        ((4, DIM, CODES["mean"], 0), "but 3 embeddings beside the one for padding"),
        ((4, DIM, CODES["mean"], 4), "padding_idx=4 must be one of the 4 ids"),
        ((4, DIM + 1, Codebook(CODES["mean"], DIM)), "the rows are 6 wide, but embedding_dim=7"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        CompressedEmbedding(*arguments)
    with pytest.raises(UserError, match=r"mode=max must be sum or mean"):
        layer_of(CODES["mean"], cls=CompressedEmbeddingBag, mode="max")
    with pytest.raises(UserError, match="embeddings must be a matrix"):
        CompressedEmbedding.from_pretrained(torch.zeros(4), CODES["mean"])
    with pytest.raises(UserError, match=r"embeddings of shape \(3, 6\) do not fit a layer of shape \(4, 6\)"):
        layer_of(CODES["mean"]).fit_rows(torch.zeros(3, DIM))
