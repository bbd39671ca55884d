"""Settings with declared limits: what they refuse, in which words, and under which key."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.errors import SettingError, UserError, keys_under
from baco.validation import Limits, Validated, build_settings, setting


@dataclass(frozen=True)
class Format(Validated):
    name: str
    bits: int = setting(8, at_least=1, at_most=8)
    blocks: int | None = setting(None, at_least=1)
    scope: str = setting("both", one_of=("both", "side"))
    rate: float = setting(0.5, above=0, below=1)
    free: float = 0.0


@dataclass(frozen=True)
class Fitted(Format):
    rounds: int = setting(3, at_least=0)

    def __post_init__(self):
        super().__post_init__()
        if self.rounds > self.bits:
            raise SettingError("rounds", self.rounds, f"is more than bits={self.bits}")


@given(st.integers(-100, 100), st.integers(-100, 100), st.integers(-100, 100))
def test_bounds_are_inclusive_or_not_as_they_say(low, high, value):
    inclusive, exclusive = Limits(at_least=low, at_most=high), Limits(above=low, below=high)
    for limits, expected in ((inclusive, low <= value <= high), (exclusive, low < value < high)):
        try:
            limits.check("value", value)
        except SettingError:
            assert not expected
        else:
            assert expected


@pytest.mark.parametrize(
    ("limits", "wording"),
    [
        ({"at_least": 1}, "must be 1 or more"),
        ({"at_most": 4}, "must be at most 4"),
        ({"above": 0}, "must be positive"),
        ({"above": 2}, "must be above 2"),
        ({"at_least": 2, "at_most": 8}, "must lie between 2 and 8"),
        ({"at_least": 0, "below": 1}, "must be 0 or more and below 1"),
        ({"above": 0, "at_most": 1}, "must be above 0 and at most 1"),
        ({"above": 0, "below": 1}, "must be above 0 and below 1"),
        ({}, "must be finite"),
    ],
)
@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_numbers_are_finite_whatever_the_bounds(limits, wording, value):
    with pytest.raises(SettingError, match=f"^x={value} {wording}$"):
        Limits(**limits).check("x", value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 9}, "bits=9 must lie between 1 and 8"),
        ({"bits": "many"}, "bits=many must be a number"),
        ({"blocks": 0}, "blocks=0 must be 1 or more, or not be given"),
        ({"scope": "bth"}, "scope=bth must be both or side; did you mean 'both'?"),
        ({"scope": None}, "scope must be both or side"),
        ({"rate": 1.0}, "rate=1.0 must be above 0 and below 1"),
        ({"rounds": -1}, "rounds=-1 must be 0 or more"),
        ({"bits": 2}, "rounds=3 is more than bits=2"),
    ],
)
def test_an_instance_within_its_limits_is_all_there_is(change, message):
    settings = Fitted("tiny", blocks=2)
    with pytest.raises(SettingError) as error:
        replace(settings, **change)
    assert str(error.value) == message
    with pytest.raises(SettingError) as error:
        Fitted(**{"name": "tiny"} | change)
    assert str(error.value) == message


def test_plain_values_are_converted_to_the_types_of_the_fields():
    assert build_settings(Fitted, {"name": "tiny", "bits": "4", "rate": 0.25}) == Fitted("tiny", 4, rate=0.25)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"name": "tiny", "bit": 3},
            "quantize.bit is not a known setting; did you mean 'bits'? (known: bits, blocks, ",
        ),
        ({"name": "tiny", "bits": "many"}, "quantize.bits=many must be of the type int"),
        ({"name": "tiny", "bits": None}, "quantize.bits=None must be of the type int"),
        ({"name": "tiny", "bits": 9}, "quantize.bits=9 must lie between 1 and 8"),
        ({"name": "tiny", "rounds": 9}, "quantize.rounds=9 is more than bits=8"),
        ({}, "quantize.name must be given"),
    ],
)
def test_what_is_built_is_named_under_the_prefix_of_its_section(section, message):
    with pytest.raises(SettingError) as bare:
        build_settings(Fitted, section)
    with pytest.raises(SettingError) as prefixed, keys_under("quantize."):
        build_settings(Fitted, section)
    assert str(prefixed.value).startswith(message)
    assert str(prefixed.value) == f"quantize.{bare.value}" == str(bare.value.under("quantize."))


def test_only_settings_have_a_key_to_prefix():
    with pytest.raises(UserError, match=r"^raise the budget$"), keys_under("method."):
        raise UserError("raise the budget")


def test_an_error_outlives_its_process():
    error = pickle.loads(pickle.dumps(SettingError("bits", 9, "must lie between 2 and 8").under("method.")))
    assert (error.key, error.value) == ("method.bits", 9) and str(error) == "method.bits=9 must lie between 2 and 8"


def test_a_number_beyond_all_floats_is_refused_as_any_other():
    with pytest.raises(SettingError, match="must be at most 3"):
        Limits(at_most=3).check("size", 10**400)
