"""CIESS: embedding sizes of groups of ids by an actor-critic that explores by random walks."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from baco.compressors.runner import Runner
from baco.embedding.tables import EmbeddingTables
from baco.graph import Biadjacency
from baco.registry import register_method
from baco.validation import setting
from baselines.sizes import assign_by_rank, groups_by_rank
from baselines.support.size_search import (
    FITNESS_CUTOFFS,
    Action,
    Probed,
    Proposer,
    SearchSettings,
    SizeSearch,
    SizeSpace,
)

# As in the authors' program, but for the updates: there one follows each probe, of which there are hundreds
WALK, REACH = 5, 5  # steps of a walk, and the longest of them
NOISE = 6 / 128  # deviation of what is added to the sizes of all groups, of the largest size
TARGET_NOISE, MOST_TARGET_NOISE = 2 / 128, 5 / 128
MEMORY = 0.01  # lambda, the price of memory in the reward
DISCOUNT, FOLLOW = 0.99, 0.005  # gamma, and how fast the target networks follow
ACTOR_RATE, CRITIC_RATE, CLIP = 1e-3, 3e-3, 0.01
HIDDEN, BATCH, UPDATES = 256, 4096, 20


class GroupSizes(SizeSpace):
    """Actions from one size for each group of ids; a side's ids stand in groups of equal number by their frequency."""

    def __init__(self, train: Biadjacency, total: int, largest: int, groups: int):
        super().__init__(train, total, largest)
        self.by_rank = [groups_by_rank(size, groups) for size in (train.num_users, train.num_items)]
        self.degrees = train.user_degrees, train.item_degrees
        self.by_id = [assign_by_rank(ranks, degree) for ranks, degree in zip(self.by_rank, self.degrees, strict=True)]

    def at(self, users: np.ndarray, items: np.ndarray) -> Action:
        """Sizes in proportion to those of the groups, the larger ones for the more frequent ids of a side."""
        shares = [sizes[groups] for sizes, groups in zip((users, items), self.by_rank, strict=True)]
        return self.action(shares[0].sum() / sum(side.sum() for side in shares), *shares)

    def draw(self, rng: np.random.Generator) -> Action:
        users, items = (rng.integers(1, self.largest + 1, 1 + groups[-1]).astype(float) for groups in self.by_rank)
        return self.at(users, items)

    def means(self, action: Action) -> list[np.ndarray]:
        """(groups,) of each side: the mean size of each group."""
        return [mean_of(sizes, groups) for sizes, groups in zip(action, self.by_rank, strict=True)]

    def frequencies(self) -> list[np.ndarray]:
        """The same of interactions."""
        return [mean_of(degree, groups) for degree, groups in zip(self.degrees, self.by_id, strict=True)]

    def qualities(self, users: np.ndarray, quality: np.ndarray) -> list[np.ndarray]:
        """The same of the quality of some users, and, for items, of that of the users who interacted with them."""
        of_user = np.full(self.train.num_users, np.nan)
        of_user[users] = quality
        of_pair = of_user[self.train.users]
        known = ~np.isnan(of_pair)
        groups_of_users, groups_of_items = self.by_id
        pairs = of_pair[known], groups_of_items[self.train.items[known]]
        numbers = [1 + groups[-1] for groups in self.by_rank]
        return [mean_of(quality, groups_of_users[users], numbers[0]), mean_of(*pairs, numbers[1])]


def mean_of(values: np.ndarray, groups: np.ndarray, number: int = 0) -> np.ndarray:
    """(groups,) means of values; 0 for a group without any."""
    counts = np.bincount(groups, minlength=number)
    return np.bincount(groups, weights=values, minlength=number) / np.maximum(counts, 1)


def scaled(values: np.ndarray) -> np.ndarray:
    """From the least and the largest value to -1 and 1."""
    least, most = values.min(), values.max()
    return 2 * (values - least) / max(most - least, 1e-12) - 1


def walks(starts: np.ndarray, largest: int, rng: np.random.Generator) -> np.ndarray:
    """(WALK + 1, n) sizes that random walks pass, with steps of 1..REACH, the longer the rarer; clipped at the ends."""
    lengths = np.concatenate([np.arange(-REACH, 0), np.arange(1, REACH + 1)])
    likely = 1 / np.abs(lengths)
    path = [starts]
    for steps in rng.choice(lengths, (WALK, len(starts)), p=likely / likely.sum()):
        path.append(np.clip(path[-1] + steps, 1, largest))
    return np.stack(path)


class Agent:
    """TD3 (Fujimoto et al., ICML 2018) for the groups of one side, all under one policy.

    States are (frequency, size, quality), actions sizes, all scaled to [-1, 1].
    """

    def __init__(self, largest: int, rng: np.random.Generator):
        self.largest, self.rng = largest, rng
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            self.actor = nn.Sequential(network(3), nn.Tanh())
            self.critics = nn.ModuleList([network(4), network(4)])
        self.late_actor, self.late_critics = copy.deepcopy(self.actor), copy.deepcopy(self.critics)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=ACTOR_RATE)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=CRITIC_RATE)
        self.replay: list[tuple[Tensor, ...]] = []
        self.updates = 0

    @torch.no_grad()
    def act(self, states: np.ndarray) -> np.ndarray:
        """(groups,) sizes: of those on a walk from the actor's, the one that the first critic likes best."""
        inputs = tensor(states)
        sizes = walks(np.rint(self.sizes(self.actor(inputs)[:, 0].numpy())), self.largest, self.rng)
        worth = torch.cat([self.critics[0](joined(inputs, tensor(self.actions(one))[:, None])) for one in sizes], 1)
        return np.take_along_axis(sizes, worth.argmax(1).numpy()[None], 0)[0]

    def actions(self, sizes: np.ndarray) -> np.ndarray:
        """From 1..largest to [-1, 1]."""
        return 2 * (sizes - 1) / max(1, self.largest - 1) - 1

    def sizes(self, actions: np.ndarray) -> np.ndarray:
        """And back."""
        return 1 + (self.largest - 1) * (actions + 1) / 2

    def remember(self, states: np.ndarray, actions: np.ndarray, rewards: np.ndarray, after: np.ndarray) -> None:
        """What came of one step of all groups."""
        self.replay.append(tuple(tensor(values).view(len(states), -1) for values in (states, actions, rewards, after)))

    def learn(self) -> None:
        states, actions, rewards, after = (torch.cat(values) for values in zip(*self.replay, strict=True))
        for _ in range(UPDATES):
            batch = torch.as_tensor(self.rng.integers(len(states), size=min(BATCH, len(states))))
            self._update(states[batch], actions[batch], rewards[batch], after[batch])

    def _update(self, states: Tensor, actions: Tensor, rewards: Tensor, after: Tensor) -> None:
        self.updates += 1
        with torch.no_grad():
            noise = 2 * np.clip(TARGET_NOISE * self.rng.standard_normal(), -MOST_TARGET_NOISE, MOST_TARGET_NOISE)
            expected = joined(after, (self.late_actor(after) + noise).clamp(-1, 1))
            goal = rewards + DISCOUNT * torch.minimum(*(critic(expected) for critic in self.late_critics))
        taken = joined(states, actions)
        losses = torch.stack([mse_loss(critic(taken), goal) for critic in self.critics])
        descend(self.critic_optimizer, self.critics, losses.sum())
        if self.updates % 2 == 0:
            descend(self.actor_optimizer, self.actor, -self.critics[0](joined(states, self.actor(states))).mean())
            follow(self.late_actor, self.actor)
        follow(self.late_critics, self.critics)


def network(inputs: int) -> nn.Sequential:
    """Two hidden layers, and one number."""
    first, second = (nn.Linear(inputs, HIDDEN), nn.ReLU()), (nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
    return nn.Sequential(*first, *second, nn.Linear(HIDDEN, 1))


def descend(optimizer: torch.optim.Optimizer, module: nn.Module, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), CLIP)
    optimizer.step()


@torch.no_grad()
def follow(late: nn.Module, module: nn.Module) -> None:
    for own, other in zip(late.parameters(), module.parameters(), strict=True):
        own.lerp_(other, FOLLOW)


def tensor(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


def joined(states: Tensor, actions: Tensor) -> Tensor:
    return torch.cat([states, actions], 1)


class ActorCritic(Proposer):
    """One agent for each side. An episode is some probes that begin with the largest size for all groups."""

    def __init__(self, space: GroupSizes, episode: int, rng: np.random.Generator):
        self.space, self.episode, self.rng = space, episode, rng
        self.agents = [Agent(space.largest, rng) for _ in range(2)]
        self.frequencies = [scaled(side) for side in space.frequencies()]
        self.peaks: list[np.ndarray] = []
        self.qualities: list[np.ndarray] = []  # of the last probe
        self.states: list[np.ndarray] = []

    def observe(self, runner: Runner, tables: EmbeddingTables) -> None:
        ranking = runner.evaluate(tables, "val", max(FITNESS_CUTOFFS))
        metrics = [ranking.per_user(k)[name] for k in FITNESS_CUTOFFS for name in ("recall", "ndcg")]
        self.qualities = self.space.qualities(ranking.users, np.mean(metrics, axis=0))
        if not self.peaks:
            self.peaks = self.qualities

    def propose(self, probed: list[Probed]) -> Action:
        if len(probed) % self.episode == 0:
            self.states = self._states(
                [np.ones(len(side)) for side in self.frequencies], [np.zeros(len(side)) for side in self.frequencies]
            )
        largest, noise = self.space.largest, NOISE * self.space.largest * self.rng.standard_normal()
        acted = (agent.act(states) for agent, states in zip(self.agents, self.states, strict=True))
        users, items = (np.clip(np.rint(sizes + noise), 1, largest) for sizes in acted)
        return self.space.at(users, items)

    def learn(self, probed: list[Probed]) -> None:
        """From what became of the groups with the sizes that the budget left them."""
        sizes = self.space.means(probed[-1].action)
        actions = [agent.actions(side) for agent, side in zip(self.agents, sizes, strict=True)]
        kept = [
            np.clip(2 * quality / np.maximum(peak, 1e-5) - 1, -1, 1)
            for quality, peak in zip(self.qualities, self.peaks, strict=True)
        ]
        after = self._states(actions, kept)
        for agent, states, action, size, quality, new in zip(
            self.agents, self.states, actions, sizes, self.qualities, after, strict=True
        ):
            agent.remember(states, action, quality - MEMORY * ((size - 1) / self.space.largest) ** 2, new)
            agent.learn()
        self.states = after

    def _states(self, actions: Iterable[np.ndarray], kept: Iterable[np.ndarray]) -> list[np.ndarray]:
        """(groups, 3) of each side."""
        return [np.stack(columns, axis=1) for columns in zip(self.frequencies, actions, kept, strict=True)]


@register_method("ciess")
class Ciess(SizeSearch):
    """Continuous input embedding size search (CIESS: Qu et al., SIGIR 2023, arXiv 2304.03501).

    Each group of ids is told its frequency, its size and the part of the full model's quality that it kept, and chooses
    a size: by an actor, and a walk around what the actor says to the size that the critic likes best. The reward is the
    group's quality, the mean of recall and NDCG at 5, 10 and 20 of its users, or of the users of its items, minus a
    price of memory. Sizes are probed and trained as those of `bet`. Parameters: the budget, to the float.

    Deviations: groups of ids by frequency (published: each id); sizes are scaled by one factor to the budget, and
    within a side go to ids by rank (published: the price of memory decides how large the tables become); 20 probes from
    the trained full model, as those of `bet` (published: 330 trainings of 2,000 batches and more), so that agents are
    updated more than once after each.
    """

    label = "CIESS"

    @dataclass(frozen=True)
    class Config(SearchSettings):
        """The settings of every search, and two more.

        Attributes
        ----------
        groups : int
            Of each side.
        episode : int
            Probes until sizes begin anew.
        """

        groups: int = setting(32, at_least=1)
        episode: int = setting(10, at_least=1)

    config: Config

    def space(self, train: Biadjacency, total: int, largest: int) -> GroupSizes:
        return GroupSizes(train, total, largest, self.config.groups)

    def proposer(self, space: SizeSpace, rng: np.random.Generator) -> ActorCritic:
        assert isinstance(space, GroupSizes)
        return ActorCritic(space, self.config.episode, rng)
