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


def test_one_of_two_kinds_of_decay():
    with pytest.raises(UserError, match=r"^weight_decay=1e-08 excludes decay_per_epoch=0.1; set one of them to 0"):
        replace(QUICK, weight_decay=1e-8, decay_per_epoch=0.1)
