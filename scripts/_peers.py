"""Published implementations, run from the folders where they lie, unchanged.

Their modules have colliding names (`utils`, `model`) and read the command line when imported; each is imported on its
own and its modules are forgotten again.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from baco.backbones.propagation import bipartite_adjacency, normalise
from baco.data.interactions import Interactions
from baco.embedding.codes import Assignment
from baco.numerics.triples import Batch

DIM = 64
LAYERS = 2


def add_arguments(parser: ArgumentParser) -> None:
    """The folders of the peers, each optional."""
    parser.add_argument("--authors", type=Path, help="folder 'code' of HKBU-LAGAS/BACO")
    parser.add_argument("--lightgcn-pytorch", type=Path, help="folder 'code' of gusye1234/LightGCN-PyTorch")


AUTHORS, AUTHORS_BACO, LIGHTGCN_PYTORCH = "the authors' code, full", "the authors' code, baco", "LightGCN-PyTorch"


def models(
    arguments: Namespace, data: Interactions, device: torch.device, codes: Assignment | None = None
) -> dict[str, torch.nn.Module]:
    """The LightGCN of each peer whose folder was named; the authors' a second time on top of the codes given."""
    found = {}
    if arguments.authors is not None:
        found[AUTHORS] = authors_model(arguments.authors, data).to(device)
        if codes is not None:
            found[AUTHORS_BACO] = authors_model(arguments.authors, data, codes).to(device)
    if arguments.lightgcn_pytorch is not None:
        found[LIGHTGCN_PYTORCH] = lightgcn_pytorch_model(arguments.lightgcn_pytorch, data, device).to(device)
    return found


def authors_model(folder: Path, data: Interactions, codes: Assignment | None = None) -> torch.nn.Module:
    rows, ids, pooling = (
        (data.num_users, data.num_items),
        (np.arange(data.num_users), np.arange(data.num_items)),
        "Single",
    )
    if codes is not None:
        sides = codes.users, codes.items
        rows, pooling = tuple(side.num_rows for side in sides), "Multi"
        ids = tuple([sorted(set(own)) for own in side.index.tolist()] for side in sides)
    with importable(folder), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse invariant checks")
        module = importlib.import_module("models.lightgcn")
        return module.LightGCN(
            *rows, DIM, *ids, biadjacency=data.train.to_matrix(), hash_type=pooling, num_layers=LAYERS
        )


def lightgcn_pytorch_model(folder: Path, data: Interactions, device: torch.device) -> torch.nn.Module:
    with importable(folder):
        world = importlib.import_module("world")
        world.device = device
        module = importlib.import_module("model")
        config = world.config | {"lightGCN_n_layers": LAYERS, "latent_dim_rec": DIM}
        matrix = normalise(bipartite_adjacency(data.train)).tocoo()
        graph = torch.sparse_coo_tensor(np.stack(matrix.coords), matrix.data, matrix.shape, check_invariants=True)
        dataset = SimpleNamespace(
            n_users=data.num_users, m_items=data.num_items, getSparseGraph=lambda: graph.coalesce().to(device)
        )
        return module.LightGCN(config, dataset)


def loss_of(name: str, model: torch.nn.Module) -> Callable[[Batch], Tensor]:
    """The loss of a batch as that code computes it, its weight decay included where it is part of the loss."""

    def authors(batch: Batch) -> Tensor:
        positive, negative = model(batch.users, batch.positives, batch.negatives)
        return -torch.log(1e-10 + torch.sigmoid(positive - negative)).mean()

    def lightgcn_pytorch(batch: Batch) -> Tensor:
        loss, penalty = model.bpr_loss(*batch)
        return loss + 1e-4 * penalty

    return lightgcn_pytorch if name == LIGHTGCN_PYTORCH else authors


def evaluator_of(
    name: str, arguments: Namespace, model: torch.nn.Module, data: Interactions, device: torch.device, k: int
) -> tuple[int, Callable[[np.ndarray], object]]:
    """How many users that code ranks at once, and the evaluation of that many.

    The authors': final embeddings, scores, masks, top k and metrics. LightGCN-PyTorch's: the same but the metrics.
    """
    (indptr, indices), relevant = data.train.by_user, data.test.by_user
    seen = {user: indices[indptr[user] : indptr[user + 1]].tolist() for user in range(data.num_users)}

    def lightgcn_pytorch(users: np.ndarray) -> Tensor:
        rating = model.getUsersRating(torch.as_tensor(users, device=device))
        rows = [row for row, user in enumerate(users.tolist()) for _ in seen[user]]
        columns = [item for user in users.tolist() for item in seen[user]]
        rating[rows, columns] = -(1 << 10)
        return torch.topk(rating, k=k)[1].cpu()

    if name == LIGHTGCN_PYTORCH:
        return 100, lightgcn_pytorch
    with importable(arguments.authors):
        metrics = importlib.import_module("metrics")

    def authors(users: np.ndarray) -> np.ndarray:
        ids = [torch.arange(size, device=device) for size in (data.num_users, data.num_items)]
        wanted = {
            user: relevant.indices[relevant.indptr[user] : relevant.indptr[user + 1]].tolist()
            for user in users.tolist()
        }
        best = model.recommend("Single", seen, wanted, *ids, device, batch_size=32, k=k)
        return metrics.quality_metrics(best, wanted, k)

    return 32, authors


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Its modules can be imported inside the block; afterwards they are forgotten, and nothing was written there."""
    folder = folder.resolve()
    arguments, sys.argv = sys.argv, sys.argv[:1]
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    known = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.argv, sys.dont_write_bytecode = arguments, bytecode
        for name in set(sys.modules) - known:
            if str(getattr(sys.modules[name], "__file__", None)).startswith(str(folder)):
                del sys.modules[name]
