"""Planners that learn to place: DreamShard and AutoShard, reduced to what the rows of two tables need.

Both papers place hundreds of tables of a click model. A policy takes them in the order of their costs and draws a
device for each; its reward comes when all are placed. Here the units are buckets of whole co-clusters, with the few
features that these have. Costs come from the cost model, where the papers measure on GPUs and DreamShard trains a
network to predict what was measured: it would have to learn a formula. AutoShard trains by IMPALA, which corrects for
policies that lag behind, is punished where memory is exceeded, and has two layers more; here both train by REINFORCE
and choose among devices that have room. As in the papers, planners do not see which units are looked up together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot

from baco.placement.cost import Devices
from baco.placement.rows import Rows
from baco.placement.sharders import complete

UNITS = 8  # for each device
EPISODES = 16  # side by side, in each step
STEPS = 200
LEARNING_RATE = 5e-3  # the papers' 5e-4 and 1e-3 are for many more steps
ENTROPY = 0.001
WIDTH = 32
ILLEGAL = -1e9


def dreamshard(rows: Rows, devices: Devices, seed: int) -> np.ndarray:
    """DreamShard (Zha et al., NeurIPS 2022, arXiv 2210.02023); the reward is minus the largest cost of a device."""
    return _plan(DreamShard, rows, devices, seed)


def autoshard(rows: Rows, devices: Devices, seed: int) -> np.ndarray:
    """AutoShard (Zha et al., KDD 2022, arXiv 2208.06399); the reward is the least cost of a device by the largest."""
    return _plan(AutoShard, rows, devices, seed)


@dataclass(frozen=True, eq=False)
class Units:
    """Buckets of whole co-clusters, the one with the most look-ups first.

    Attributes
    ----------
    of_row : (n,) int64
    features : (units, 3) float32
        Logarithms of rows and look-ups, and the hottest row's share of the look-ups; of mean 0 and deviation 1.
    sizes : (units,) int64
        Rows.
    costs : (units,) float32
        Look-ups, by the mean of a device.
    """

    of_row: np.ndarray
    features: Tensor
    sizes: Tensor
    costs: Tensor

    @classmethod
    def of(cls, rows: Rows, count: int) -> Units:
        """Deal the co-clusters to buckets in the order of their numbers, for so many devices."""
        bucket = np.unique(rows.groups, return_inverse=True)[1] % (UNITS * count)
        of_row = np.argsort(np.argsort(-np.bincount(bucket, rows.lookups), kind="stable"))[bucket]
        sizes, lookups = np.bincount(of_row), np.bincount(of_row, rows.lookups)
        hottest = np.zeros(len(sizes))
        np.maximum.at(hottest, of_row, rows.lookups)
        features = np.stack([np.log(sizes), np.log1p(lookups), hottest / np.maximum(lookups, 1)], axis=1)
        features = (features - features.mean(0)) / np.maximum(features.std(0), 1e-6)
        costs = lookups * count / lookups.sum()
        return cls(of_row, torch.as_tensor(features).float(), torch.as_tensor(sizes), torch.as_tensor(costs).float())


class DreamShard(nn.Module):
    """A linear layer scores what a device has and costs; the unit itself has no part in it, as in the paper."""

    def __init__(self, num_features: int):
        super().__init__()
        self.unit = _two_layers(num_features, 4 * WIDTH, WIDTH)
        self.cost = _two_layers(2, 2 * WIDTH, WIDTH)
        self.head = nn.Linear(2 * WIDTH, 1)

    def states(self, units: Units) -> Tensor:
        """(units, any): what the scores need of each unit."""
        return units.features

    def forward(self, state: Tensor, placed: Tensor, so_far: Tensor) -> Tensor:
        """(episodes, devices) scores of the devices for a unit.

        Parameters
        ----------
        placed : (episodes, devices, WIDTH)
            The sum of `unit` over the units that a device has.
        so_far : (episodes, devices, 2)
            Their costs, and the share of its memory that they take.
        """
        return self.head(torch.cat([placed, self.cost(so_far)], dim=2))[:, :, 0]

    @staticmethod
    def rewards(costs: Tensor) -> Tensor:
        """(episodes,) from the (episodes, devices) costs in the end."""
        return -costs.amax(1)


class AutoShard(nn.Module):
    """An LSTM reads the units and the share that is placed; its state meets a layer of the device, as `DreamShard`."""

    def __init__(self, num_features: int):
        super().__init__()
        self.unit = _two_layers(num_features, 4 * WIDTH, WIDTH)
        self.lstm = nn.LSTM(num_features + 1, 2 * WIDTH, num_layers=2)
        self.device = nn.Linear(WIDTH + 2, 2 * WIDTH)
        self.head = _two_layers(6 * WIDTH, 4 * WIDTH, 1)

    def states(self, units: Units) -> Tensor:
        share = torch.linspace(0, 1, len(units.sizes))[:, None]
        return self.lstm(torch.cat([units.features, share], dim=1))[0]

    def forward(self, state: Tensor, placed: Tensor, so_far: Tensor) -> Tensor:
        device = self.device(torch.cat([placed, so_far], dim=2))
        return self.head(torch.cat([state.expand(device.shape), device, state * device], dim=2))[:, :, 0]

    @staticmethod
    def rewards(costs: Tensor) -> Tensor:
        return costs.amin(1) / costs.amax(1)


def _two_layers(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))


def _plan(kind: type[DreamShard] | type[AutoShard], rows: Rows, devices: Devices, seed: int) -> np.ndarray:
    """Train a policy on these rows, then put each unit where it most likely goes; `complete` mends the rest."""
    capacity, units = devices.capacity(rows), Units.of(rows, devices.count)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = kind(units.features.shape[1])
        optimizer = torch.optim.Adam(policy.parameters(), LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
        for _ in range(STEPS):
            _, costs, log_probabilities, entropies = _play(policy, units, devices.count, capacity, EPISODES)
            rewards = policy.rewards(costs)
            advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
            loss = -(advantages * log_probabilities + ENTROPY * entropies).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            chosen = _play(policy, units, devices.count, capacity, 1, draw=False)[0][0]
    return complete(rows, devices, chosen.numpy()[units.of_row].astype(np.int32))


def _play(
    policy: DreamShard | AutoShard, units: Units, count: int, capacity: int, episodes: int, draw: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Place all units, each on a device with room for it (any, where none has) that is drawn, or the most likely.

    Returns
    -------
    (episodes, units), (episodes, devices), (episodes,) and (episodes,) : the devices, what they cost in the end, and
        log-probabilities and entropies, summed over units
    """
    embedded, states = policy.unit(units.features), policy.states(units)
    placed, costs = torch.zeros(episodes, count, WIDTH), torch.zeros(episodes, count)
    held = torch.zeros(episodes, count, dtype=torch.int64)
    log_probabilities, entropies = torch.zeros(episodes), torch.zeros(episodes)
    chosen = []
    for state, unit, size, cost in zip(states, embedded, units.sizes, units.costs, strict=True):
        scores = policy(state, placed, torch.stack([costs, held / capacity], dim=2))
        room = held + size <= capacity
        logs = log_softmax(scores.masked_fill(~room & room.any(1, keepdim=True), ILLEGAL), dim=1)
        device = torch.multinomial(logs.exp(), 1)[:, 0] if draw else logs.argmax(1)
        hot = one_hot(device, count)
        chosen.append(device)
        log_probabilities = log_probabilities + (logs * hot).sum(1)
        entropies = entropies - (logs.exp() * logs).sum(1)
        placed, costs, held = placed + hot[:, :, None] * unit, costs + hot * cost, held + hot * size
    return torch.stack(chosen, dim=1), costs, log_probabilities, entropies
