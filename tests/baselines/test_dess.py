"""DESS: a bandit that forgets, and groups whose sizes spend the budget."""

import numpy as np
import torch

from baco.backbones.backbone import LightGCN
from baco.compressors.budget import Budget
from baco.evaluation.evaluator import Evaluator
from baco.rng import stream
from baco.training.trainer import Trainer
from baselines.dess import RIDGE, Bandit, Dess, Groups
from tests.conftest import QUICK


def test_the_bandit_is_ridge_regression_with_weights_that_fade():
    """The recursion, against sums over the whole past; what it forgot is regularised again."""
    rng = np.random.default_rng(0)
    bandit, past = Bandit(3, 4, forgetting=0.8, exploration=0.7), []
    for _ in range(6):
        step = rng.standard_normal((5, 4)), rng.integers(3, size=5), rng.random(5)
        bandit.learn(*step)
        past.append(step)
    contexts = rng.standard_normal((7, 4))
    scores = bandit.scores(contexts)
    for arm in range(3):
        gram, moments = RIDGE * np.eye(4), np.zeros(4)  # g^t lambda I + (1 - g^t) lambda I
        for age, (x, arms, rewards) in enumerate(reversed(past)):
            for context, chosen, reward in zip(x, arms, rewards, strict=True):
                if chosen == arm:
                    gram += 0.8**age * np.outer(context, context)
                    moments += 0.8**age * reward * context
        for place, context in enumerate(contexts):
            bound = 0.7 * np.sqrt(context @ np.linalg.solve(gram, context))
            np.testing.assert_allclose(scores[arm, place], np.linalg.solve(gram, moments) @ context + bound)
    assert (bandit.choose(contexts, rng) == scores.argmax(axis=0)).all()


def test_the_bandit_follows_a_change_that_one_without_forgetting_misses():
    rng, contexts = np.random.default_rng(1), np.ones((1, 1))
    chosen = {}
    for forgetting in (0.8, 1.0):
        bandit = Bandit(2, 1, forgetting, exploration=0.3)
        for step in range(130):
            arms = bandit.choose(contexts, rng)
            bandit.learn(contexts, arms, (arms == (step >= 100)).astype(float))
        chosen[forgetting] = bandit.choose(contexts, rng)[0]
    assert chosen == {0.8: 1, 1.0: 0}


def test_sizes_of_groups_spend_the_budget_in_the_order_of_the_arms(planted):
    groups = Groups(planted.train, 700 * 4, 24, 5)
    assert groups.arms.tolist() == [1, 2, 4, 8, 16, 24] and groups.contexts.shape == (10, 4)
    assert (np.diff(groups.contexts[:5, 1]) < 0).all() and (np.diff(groups.contexts[5:, 1]) < 0).all()
    arms = np.array([0, 1, 2, 3, 4, 4, 3, 2, 1, 0])  # users: the rarer, the larger
    sizes = np.concatenate(groups.of_arms(arms))
    means = np.bincount(groups.group, weights=sizes) / np.bincount(groups.group)
    assert sizes.sum() == 2800 and means[:5].round().tolist() == means[:4:-1].round().tolist() == [1, 1, 3, 5, 10]
    equal = np.concatenate(groups.of_arms(np.full(10, 2)))
    assert (equal == 4).all(), "one arm for all is one size for all"
    np.testing.assert_array_equal(groups.tables(groups.of_arms(arms)).sizes, sizes)


def test_the_bandit_goes_on_from_segment_to_segment(planted):
    memory = {}
    budget = Budget.parse(0.25, "bytes", planted.num_users, planted.num_items, 16)
    method = Dess(Dess.Config(probes=2, probe_epochs=1, probe_steps=0, retrained=1))
    for searches in (1, 2):
        trainer = Trainer(
            LightGCN(planted.train, LightGCN.Config()),
            Evaluator(planted),
            QUICK,
            0,
            torch.device("cpu"),
            progress=False,
            memory=memory,
        )
        tables = method.search(method.fit(planted.train, budget, stream(0, "assign")), trainer)
        assert budget.limit - 4 < tables.ledger().bytes <= budget.limit
        learned = memory["dess"].gram[:, 0, 0].sum() - len(memory["dess"].gram) * RIDGE
        expected = sum(20 * 0.95**age for age in range(2 * searches))  # all groups have validated users
        np.testing.assert_allclose(learned, expected)
