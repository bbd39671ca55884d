"""CIESS: its walks, its groups and their qualities, that agents learn, and that a search spends the budget."""

import numpy as np
import pytest

from baco.compressors.budget import Budget
from baco.rng import stream
from baselines.ciess import REACH, ActorCritic, Agent, Ciess, GroupSizes, walks
from tests.baselines.test_pep import trainer_for

DIM = 16


def test_walks_take_short_steps_within_the_sizes():
    path = walks(np.full(2000, 3), DIM, np.random.default_rng(0))
    steps = np.abs(np.diff(path, axis=0))
    assert path.shape == (6, 2000) and path.min() == 1 and path.max() <= DIM and steps.max() == REACH
    away = walks(np.full(2000, 50), 100, np.random.default_rng(0))
    taken = np.bincount(np.abs(np.diff(away, axis=0)).ravel(), minlength=REACH + 1)
    likely = 1 / np.arange(1, REACH + 1)
    np.testing.assert_allclose(taken[1:] / taken.sum(), likely / likely.sum(), atol=0.02)


def test_groups_are_of_one_frequency_and_keep_their_part_of_the_budget(planted):
    train = planted.train
    space = GroupSizes(train, 2800, DIM, groups=4)
    users, items = space.frequencies()
    assert (np.diff(users) <= 0).all() and (np.diff(items) <= 0).all()
    np.testing.assert_allclose(users, np.sort(train.user_degrees)[::-1].reshape(4, 100).mean(1))
    action = space.at(np.array([8.0, 6, 4, 2]), np.array([4.0, 4, 4, 4]))
    assert sum(map(np.sum, action)) == 2800
    expected = np.array([8, 6, 4, 2, 4, 4, 4, 4]) * 2800 / 3200
    np.testing.assert_allclose(np.concatenate(space.means(action)), expected, atol=0.5)  # sizes are whole


def test_qualities_are_means_over_users_and_over_the_users_of_items(planted):
    train, rng = planted.train, np.random.default_rng(0)
    space = GroupSizes(train, 2800, DIM, groups=3)
    known = np.sort(rng.choice(400, 250, replace=False))
    quality = dict(zip(known.tolist(), rng.random(250), strict=True))
    users, items = space.qualities(known, np.array(list(quality.values())))
    for group in range(3):
        assert users[group] == pytest.approx(np.mean([quality[u] for u in known if space.by_id[0][u] == group]))
        pairs = zip(train.users.tolist(), train.items.tolist(), strict=True)
        of_items = [quality[u] for u, i in pairs if u in quality and space.by_id[1][i] == group]
        assert items[group] == pytest.approx(np.mean(of_items))


def test_an_agent_learns_which_size_pays():
    rng = np.random.default_rng(0)
    agent = Agent(64, rng)
    states = np.zeros((100, 3))
    before = agent.act(states[:20]).mean()
    actions = rng.uniform(-1, 1, 100)
    rewards = -((actions - agent.actions(np.array(12.0))) ** 2)
    agent.remember(states, actions, rewards, states)
    for _ in range(10):
        agent.learn()
    assert abs(agent.act(states[:20]).mean() - 12) < 8 < abs(before - 12)


def test_a_search_observes_each_probe_and_spends_the_budget(planted):
    seen = []

    class Watching(ActorCritic):
        def learn(self, probed):
            super().learn(probed)
            seen.append([len(agent.replay) for agent in self.agents])

    class Watched(Ciess):
        def proposer(self, space, rng):
            return Watching(space, self.config.episode, rng)

    budget = Budget.parse(0.25, "bytes", planted.num_users, planted.num_items, DIM)
    method = Watched(Ciess.Config(probes=3, probe_epochs=1, probe_steps=0, retrained=1, groups=4, episode=2))
    tables = method.search(method.fit(planted.train, budget, stream(0, "assign")), trainer_for(planted))
    assert seen == [[1, 1], [2, 2], [3, 3]]
    assert budget.limit - 4 < tables.ledger().bytes <= budget.limit
