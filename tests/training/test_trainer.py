"""The trainer: loss, sampling, early stopping, hooks, determinism."""

from dataclasses import replace

import numba
import numpy as np
import pytest
import torch
from torch import nn

from baco.backbones import MF, LightGCN
from baco.budget import Budget
from baco.coclustering.method import Baco
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.rng import stream, torch_stream
from baco.tables import EmbeddingTables, Ledger
from baco.training.loss import bpr_loss
from baco.training.protocol import Protocol
from baco.training.sampler import Sampler
from baco.training.trainer import Trainer
from baselines.full import Full

CPU = torch.device("cpu")
QUICK = Protocol(
    name="quick", init_std=0.1, batch_size=2048, learning_rate=0.05, schedule="linear", weight_decay=0.0, prior=0.03,
    loss_epsilon=0.0, max_epochs=12, eval_every=2, patience=99,
)
