from dataclasses import replace

import pytest

from baco.errors import UserError
from tests.conftest import QUICK


def test_the_learning_rate_falls_linearly_to_zero():
    factor = QUICK.rate_factor(10)
    assert [round(factor(step), 6) for step in (0, 5, 9, 10)] == [1.0, 0.5, 0.1, 0.0]
    assert replace(QUICK, schedule="constant").rate_factor(10)(7) == 1.0


@pytest.mark.parametrize(
    "setting", [{"learning_rate": 0}, {"batch_size": -1}, {"decay_per_epoch": -1.0}, {"schedule": "cosine"}]
)
def test_impossible_settings_name_their_key(setting):
    key, value = next(iter(setting.items()))
    with pytest.raises(UserError, match=rf"^{key}={value} must be"):
        replace(QUICK, **setting)


def test_a_batch_is_given_or_a_part_of_the_interactions():
    assert QUICK.pairs_per_step(10**6) == 2048
    by_steps = replace(QUICK, batch_size=None, steps_per_epoch=80)
    assert [by_steps.pairs_per_step(size) for size in (1, 80, 81, 160_000)] == [1, 1, 2, 2000]
    with pytest.raises(UserError, match=r"^batch_size must be given, or steps_per_epoch"):
        replace(QUICK, batch_size=None)


def test_one_of_two_kinds_of_decay():
    with pytest.raises(UserError, match=r"^weight_decay=1e-08 excludes decay_per_epoch=0.1; set one of them to 0"):
        replace(QUICK, weight_decay=1e-8, decay_per_epoch=0.1)
