"""Compressed tables in models of other libraries, and in an index of another one."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

import baco
from baco.embedding.module import CompressedEmbedding
from baco.serving.compress import compress_factors
from baco.serving.index import faiss_index
from baco.serving.packed import PackedTables


@pytest.mark.parametrize("method", ["int8", "pq", "baco_plus"])
@pytest.mark.parametrize("kind", ["als", "bpr"])
@pytest.mark.filterwarnings("ignore")  # of the library
def test_factors_of_implicit_are_served_packed(planted, tmp_path, kind, method):
    implicit = pytest.importorskip("implicit", reason="needs `implicit`: pip install implicit")
    classes = {"als": implicit.als.AlternatingLeastSquares, "bpr": implicit.bpr.BayesianPersonalizedRanking}
    matrix = csr_matrix(planted.train.to_matrix())  # it takes no sparse array
    model = classes[kind](factors=15, iterations=10, random_state=0, num_threads=1)
    model.fit(matrix, show_progress=False)
    users = np.arange(planted.num_users)
    full, full_scores = model.recommend(users, matrix, N=10)

    dense = model.user_factors, model.item_factors
    found = compress_factors(*dense, matrix, 0.5, method)
    found.save(tmp_path / "tables.npz")
    model.user_factors, model.item_factors = found.embeddings()
    items, scores = model.recommend(users, matrix, N=10)

    packed = PackedTables.open(tmp_path / "tables.npz")
    served = packed.lookup("users", users) @ packed.lookup("items", np.arange(planted.num_items)).T
    np.testing.assert_allclose(np.take_along_axis(served, items.astype(np.int64), 1), scores, rtol=1e-3, atol=1e-4)
    served[matrix.toarray() > 0] = -np.inf
    np.testing.assert_allclose(-np.sort(-served, 1)[:, :10], scores, rtol=1e-3, atol=1e-4)
    if method == "int8":  # an entry is off by half a step at most
        steps = [np.abs(rows).max() / 254 * np.abs(other).sum(1).max() for rows, other in (dense, dense[::-1])]
        assert np.abs(scores - full_scores).max() <= 1.1 * sum(steps)
        assert np.mean([len(set(a) & set(b)) for a, b in zip(items, full, strict=True)]) > 9


NUMPY_1 = {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}  # what RecBole 1.2.1 looks for
NUMPY_1 |= {"int": int, "float": float, "complex": complex, "object": object, "str": str, "unicode": str}  # and sets


@pytest.fixture
def recbole(planted, tmp_path, monkeypatch):
    """RecBole with the planted data in a file of its kind."""
    for name, kind in NUMPY_1.items():
        monkeypatch.setattr(np, name, kind, raising=False)
    pytest.importorskip("recbole.model.general_recommender", reason="needs RecBole: docs/serving.md has how")
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model import general_recommender
    from recbole.trainer import Trainer

    folder = tmp_path / "planted"
    folder.mkdir()
    pairs = zip(planted.train.users, planted.train.items, strict=True)
    lines = ["user_id:token\titem_id:token", *(f"u{user}\ti{item}" for user, item in pairs)]
    (folder / "planted.inter").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)  # where it writes logs
    monkeypatch.setattr(sys, "argv", sys.argv[:1])  # which it reads
    settings = {
        "data_path": str(tmp_path),
        "load_col": {"inter": ["user_id", "item_id"]},
        "embedding_size": 16,
        "mf_embedding_size": 16,
        "mlp_embedding_size": 16,
        "epochs": 20,
        "train_batch_size": 512,
        "learning_rate": 0.01,
        "stopping_step": 99,
        "use_gpu": False,
        "show_progress": False,
        "metrics": ["Recall"],
        "topk": [20],
        "valid_metric": "Recall@20",
    }

    def of(name):
        config = Config(model=name, dataset="planted", config_dict=settings)
        training, _, test = data_preparation(config, create_dataset(config))
        model = getattr(general_recommender, name)(config, training.dataset)
        trainer = Trainer(config, model)

        def recall(fit: bool) -> float:
            if fit:
                trainer.optimizer = torch.optim.Adam(model.parameters(), 0.01)
                trainer.fit(training, saved=False, show_progress=False)
            return trainer.evaluate(test, load_best_model=False, show_progress=False)["recall@20"]

        return SimpleNamespace(model=model, matrix=training.dataset.inter_matrix(form="csr"), recall=recall)

    return of


PAIRS = {
    "BPR": [{"user_embedding": "users", "item_embedding": "items"}],
    "NeuMF": [
        {"user_mf_embedding": "users", "item_mf_embedding": "items"},
        {"user_mlp_embedding": "users", "item_mlp_embedding": "items"},
    ],
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.filterwarnings("ignore")
def test_models_of_recbole_train_with_compressed_tables(recbole, name):
    run = recbole(name)
    untrained = run.recall(fit=False)
    for tables in PAIRS[name]:
        baco.compress(run.model, run.matrix, 0.3, tables, "baco_plus", start="normal", padding_idx=0)
        assert all(isinstance(run.model.get_submodule(layer), CompressedEmbedding) for layer in tables)
    recall = run.recall(fit=True)
    print(f"{name}: {untrained:.4f} untrained, {recall:.4f} compressed")
    assert recall > 2 * untrained


@pytest.mark.filterwarnings("ignore")
def test_a_trained_model_of_recbole_keeps_its_recall(recbole):
    run = recbole("BPR")
    dense = run.recall(fit=True)
    found = baco.compress(run.model, run.matrix, 0.5, method="pq", padding_idx=0)
    recall = run.recall(fit=False)
    print(f"{dense:.4f} dense, {recall:.4f} after {found}")
    assert recall > 0.8 * dense


def test_an_index_of_faiss_finds_the_same_items(planted, tmp_path):
    pytest.importorskip("faiss", reason="needs FAISS: pip install faiss-cpu")
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randn(size, 16, generator=generator) for size in (planted.num_users, planted.num_items))
    compress_factors(users, items, planted.train, 0.3).save(tmp_path / "tables.npz")
    packed = PackedTables.open(tmp_path / "tables.npz")
    users, items = (packed.lookup(side, np.arange(getattr(packed, side).num_ids)) for side in ("users", "items"))
    scores, found = faiss_index(items).search(users, 10)
    best = np.argsort(-(users @ items.T), 1, kind="stable")[:, :10]
    assert (found == best).mean() > 0.99, "sums are rounded in another order"
    np.testing.assert_allclose(scores, np.take_along_axis(users @ items.T, best, 1), rtol=1e-4)
