"""One's own model with compressed embeddings."""

import copy

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import nn

import baco
from baco.compressors.budget import Budget
from baco.embedding.module import CompressedEmbedding, CompressedEmbeddingBag
from baco.errors import UserError
from baco.serving.packed import PackedTables

DIM = 16


class TwoTowers(nn.Module):
    """A dot product, with the item layer under a second name; as in RecBole, id 0 may be for padding."""

    def __init__(self, num_users: int, num_items: int, **options):
        super().__init__()
        torch.manual_seed(0)
        self.user_embedding = nn.Embedding(num_users, DIM)
        self.towers = nn.ModuleDict({"item": nn.Embedding(num_items, DIM, **options)})
        self.same = self.towers["item"]

    def forward(self, users, items):
        return (self.user_embedding(users) * self.towers["item"](items)).sum(-1)


TABLES = {"user_embedding": "users", "towers.item": "items"}


@pytest.fixture
def model(planted):
    return TwoTowers(planted.num_users, planted.num_items)


def train(model, graph, steps=150) -> float:
    """A few steps of a pairwise loss; the last one's."""
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    generator = torch.Generator().manual_seed(0)
    users, items = torch.from_numpy(graph.users).long(), torch.from_numpy(graph.items).long()
    for _ in range(steps):
        chosen = torch.randint(len(users), (1000,), generator=generator)
        others = torch.randint(graph.num_items, (1000,), generator=generator)
        gaps = model(users[chosen], items[chosen]) - model(users[chosen], others)
        loss = nn.functional.softplus(-gaps).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("method", ["baco_plus", "random", "one_sided"])
def test_a_model_trains_with_compressed_tables(planted, model, tmp_path, method):
    dense = sum(parameter.numel() for parameter in model.parameters())
    found = baco.compress(model, planted.train, 0.3, TABLES, method, start="normal")
    assert isinstance(model.user_embedding, CompressedEmbedding) and model.same is model.towers["item"]
    assert found.dense_parameters == dense
    budget = Budget.parse(0.3, "parameters", planted.num_users, planted.num_items, DIM)
    budget.check(found.tables.ledger(), method)
    before = train(copy.deepcopy(model), planted.train, 1)
    assert train(model, planted.train) < 0.8 * before
    found.pack().save(tmp_path / "tables.npz")
    packed = PackedTables.open(tmp_path / "tables.npz")
    for side, layer in (("users", model.user_embedding), ("items", model.same)):
        np.testing.assert_allclose(
            packed.lookup(side, np.arange(layer.num_embeddings)), layer.weight.detach(), rtol=1e-5, atol=1e-6
        )
    assert method in str(found) and f"{found.tables.ledger().bytes:,}" in str(found)


def test_a_trained_model_keeps_its_scores_within_quantization(planted, model):
    train(model, planted.train)
    users = torch.arange(planted.num_users)
    items = torch.arange(planted.num_users) % planted.num_items
    scores = model(users, items).detach()
    errors = {}
    for method, budget in (("int8", 0.25), ("pq", 0.5), ("random", 0.5)):
        other = copy.deepcopy(model)
        baco.compress(other, planted.train, budget, TABLES, method)
        errors[method] = ((other(users, items) - scores) ** 2).mean().item()
    assert errors["int8"] < 1e-4 * scores.var().item()
    assert errors["int8"] < errors["pq"] < errors["random"]


def test_rows_are_means_of_what_the_dense_model_had(planted, model):
    dense = model.user_embedding.weight.detach().numpy()
    found = baco.compress(model, planted.train, 0.3, TABLES, "random")
    codes = found.tables.assignment.users.first
    means = np.stack([dense[codes == row].mean(0) for row in range(codes.max() + 1)])
    np.testing.assert_allclose(model.user_embedding.weight.detach(), means[codes], rtol=1e-5, atol=1e-6)
    assert (found.embeddings()[0] == model.user_embedding.weight.detach().numpy()).all()


@pytest.mark.parametrize("with_row", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_ids_for_padding_have_no_codes(planted, tmp_path, own, with_row):
    """RecBole numbers ids from 1; 0 is for padding, in the layers, and most often in the matrix."""
    matrix = planted.train.to_matrix().toarray()
    if with_row:
        matrix = np.pad(matrix, ((1, 0), (1, 0)))
    model = TwoTowers(planted.num_users + 1, planted.num_items + 1, padding_idx=0 if own else None)
    found = baco.compress(model, csr_array(matrix), 0.3, TABLES, "baco", padding_idx=0)
    same = TwoTowers(planted.num_users, planted.num_items)
    codes = baco.compress(same, planted.train, 0.3, TABLES, "baco").tables.assignment
    np.testing.assert_array_equal(found.tables.assignment.users.index, codes.users.index)
    assert (model.user_embedding(torch.tensor([0])) == 0).all() and model.same.padding_idx == 0
    found.save(tmp_path / "tables.npz")
    served = PackedTables.open(tmp_path / "tables.npz").lookup("items", [0, 5])
    np.testing.assert_allclose(served, model.same(torch.tensor([0, 5])).detach(), rtol=1e-5)


def test_bags_types_and_frozen_weights_are_kept(planted):
    model = nn.ModuleDict(
        {
            "u": nn.EmbeddingBag(planted.num_users, DIM, mode="sum", dtype=torch.bfloat16),
            "i": nn.Embedding(planted.num_items, DIM, dtype=torch.bfloat16),
        }
    ).eval()
    model["i"].weight.requires_grad_(False)
    found = baco.compress(model, planted.train, 0.3, {"u": "users", "i": "items"}, "int8")
    assert isinstance(model["u"], CompressedEmbeddingBag) and model["u"].mode == "sum"
    assert not model["u"].training and model["u"].weight.dtype == torch.bfloat16
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False]
    assert found.pack().embeddings()[1].dtype == np.float32


def test_factors_of_any_library_are_compressed(planted):
    rng = np.random.default_rng(0)
    factors = [rng.normal(size=(size, DIM)) for size in (planted.num_users, planted.num_items)]
    found = baco.compress_factors(*factors, planted.train.to_matrix(), method="int8")
    for dense, packed in zip(factors, found.embeddings(), strict=True):
        np.testing.assert_allclose(packed, dense, atol=np.abs(dense).max() / 127)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tables": {"user_embedding": "users", "items": "items"}}, r"no embedding 'items' \(its embeddings: user_emb"),
        ({"tables": {"user_embedding": "users"}}, "one embedding of 'users' and one of 'items'"),
        ({"tables": {"user_embedding": "items", "towers.item": "users"}}, "have 400 users, but the table has 300"),
        ({"method": "cce"}, "method 'cce' gives no codes into rows"),
        ({"method": "ease"}, "method 'ease' has no embeddings"),
        ({"method": "bacco"}, "method 'bacco' is unknown; did you mean 'baco'"),
        ({"settings": {"gamma": 1}}, r"settings\.gamma is not a known setting"),
        ({"start": "means"}, "start=means must be fitted, normal or spectral"),
        ({"budget": 1e-6}, "budget"),
        ({"padding_idx": 0}, r"id 0 of users is for padding, but has \d+ interactions"),
        ({"padding_idx": 400}, "padding_idx=400 must be one of the 400 ids of users"),
        ({"seed": -1}, "seed=-1 must be 0 or more"),
    ],
)
def test_wrong_arguments_are_one_clear_error_and_change_nothing(planted, model, change, message):
    arguments = {"interactions": planted.train, "tables": TABLES} | change
    with pytest.raises(UserError, match=message):
        baco.compress(model, **arguments)
    assert isinstance(model.user_embedding, nn.Embedding) and isinstance(model.same, nn.Embedding)


def test_layers_that_cannot_be_replaced_are_refused(planted, model):
    arguments = planted.train, 0.3, TABLES
    model.scores = nn.Linear(DIM, planted.num_items, bias=False)
    model.scores.weight = model.same.weight
    with pytest.raises(UserError, match=r"weight of 'towers.item' is that of scores.weight, too"):
        baco.compress(model, *arguments)
    with pytest.raises(UserError, match=r"'towers.item' has sparse"):
        baco.compress(TwoTowers(planted.num_users, planted.num_items, sparse=True), *arguments)
    model = TwoTowers(planted.num_users, planted.num_items)
    model.user_embedding = nn.Embedding(planted.num_users, DIM + 1)
    with pytest.raises(UserError, match="users are 17 wide and those of items 16"):
        baco.compress(model, *arguments)
    model.user_embedding = nn.Embedding(planted.num_users, DIM)
    nn.init.constant_(model.user_embedding.weight, float("nan"))
    with pytest.raises(UserError, match="embeddings of users hold NaN"):
        baco.compress(model, *arguments)
    with pytest.raises(UserError, match="factors of items must be a matrix of floats"):
        baco.compress_factors(np.zeros((3, 2)), np.zeros(3), planted.train)
