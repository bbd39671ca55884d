"""Shared fixtures: small graphs with a known structure, and the real datasets where they are to be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from baco.data.interactions import Interactions, load_interactions
from baco.data.synthetic import Synthetic
from baco.graph import Biadjacency
from baco.training.protocol import Protocol
from tests import pretended as pretence

settings.register_profile(
    "suite",
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("suite")

PLANTED = Synthetic(
    num_users=400, num_items=300, num_interactions=8000, num_clusters=10, main_share=0.8, second_share=0.1
)
QUICK = Protocol(
    name="quick",
    init_std=0.1,
    batch_size=2048,
    learning_rate=0.05,
    schedule="linear",
    weight_decay=0.0,
    decay_per_epoch=0.0,
    max_epochs=12,
    eval_every=2,
    patience=99,
)


@pytest.fixture
def two_bicliques() -> Biadjacency:
    """Two complete blocks of three users and three items."""
    return Biadjacency.from_matrix(np.kron(np.eye(2), np.ones((3, 3))))


@pytest.fixture(scope="session")
def planted() -> Interactions:
    """Ten planted co-clusters, 400 users, 300 items."""
    return PLANTED.load(Path())


@pytest.fixture(scope="session")
def sparse_graph() -> Biadjacency:
    """A random power-law graph without planted structure, some nodes isolated: ties and odd cases abound."""
    rng = np.random.default_rng(7)
    users = np.minimum(rng.zipf(1.6, 3000) - 1, 399)
    items = np.minimum(rng.zipf(1.5, 3000) - 1, 249)
    return Biadjacency.from_pairs(users, items, 400, 250)


@pytest.fixture
def pretended() -> Iterator[torch.device]:
    """A device that is none, see tests/pretended.py."""
    if not pretence.AVAILABLE:
        pytest.skip("there is a GPU, or this version of torch cannot be told of a device in Python")
    with pretence.pretending() as device:
        yield device


def real_data(name: str) -> Interactions:
    """A prepared real dataset, or a skipped test."""
    path = Path(os.environ.get("BACO_DATA_DIR", "data")) / name / "interactions.npz"
    if not path.exists():
        pytest.skip(f"needs {path}; set BACO_DATA_DIR to the folder with the prepared datasets")
    return load_interactions(path, name)


@pytest.fixture(scope="session")
def beauty() -> Interactions:
    return real_data("beauty")
