"""Settings with declared limits: what they refuse, in which words, and under which key."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass, replace
from math import inf, nan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.data.sources import SOURCES
from baco.embedding.quantizers import QUANTIZERS
from baco.errors import SettingError, UserError, keys_under
from baco.registry import BACKBONES, LOSSES, METHODS, method_class
from baco.runs.description import RunSettings
from baco.training.protocol import Protocol
from baco.validation import Limits, Validated, build_settings, kinds_of, setting


@dataclass(frozen=True)
class Format(Validated):
    name: str
    bits: int = setting(8, at_least=1, at_most=8)
    blocks: int | None = setting(None, at_least=1)
    scope: str = setting("both", one_of=("both", "side"))
    rate: float = setting(0.5, above=0, below=1)
    free: float = 0.0
    packed: bool = False


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
        ({"bits": "many"}, "bits=many must be a whole number"),
        ({"bits": True}, "bits=True must be a whole number"),
        ({"bits": 2.5}, "bits=2.5 must be a whole number"),
        ({"bits": None}, "bits=None must be a whole number"),
        ({"blocks": True}, "blocks=True must be a whole number, or not be given"),
        ({"rate": True}, "rate=True must be a number"),
        ({"free": True}, "free=True must be a number"),
        ({"packed": 1}, "packed=1 must be true or false"),
        ({"name": 3}, "name=3 must be text; quotes within quotes, as in \"'2.0'\", make text of anything"),
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
    assert build_settings(Fitted, {"name": 7, "bits": "4", "rate": "0.25"}) == Fitted("7", 4, rate=0.25)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"name": "tiny", "bit": 3},
            "quantize.bit is not a known setting; did you mean 'bits'? (known: bits, blocks, ",
        ),
        ({"name": "tiny", "bits": "many"}, "quantize.bits=many must be a whole number"),
        ({"name": "tiny", "bits": None}, "quantize.bits=null must be a whole number"),
        ({"name": "tiny", "bits": 9}, "quantize.bits=9 must lie between 1 and 8"),
        ({"name": "tiny", "rounds": 9}, "quantize.rounds=9 is more than bits=8"),
        ({"name": "tiny", "scope": ["both"]}, "quantize.scope=['both'] must be both or side"),
        ({}, "quantize.name must be given"),
        ({"name": "???"}, "quantize.name must be given"),
    ],
)
def test_what_is_built_is_named_under_the_prefix_of_its_section(section, message):
    with pytest.raises(SettingError) as bare:
        build_settings(Fitted, section)
    with pytest.raises(SettingError) as prefixed, keys_under("quantize."):
        build_settings(Fitted, section)
    assert str(prefixed.value).startswith(message)
    assert str(prefixed.value) == f"quantize.{bare.value}" == str(bare.value.under("quantize."))


REFUSED = {  # what configurations can hold and a field of a type does not take, and how the error shows it
    bool: {3: "3", 1: "1", 0.0: "0.0", "yes": "yes", None: "null"},
    int: {True: "true", 2.5: "2.5", 2.0: "2.0", "2.0": "2.0", "many": "many", None: "null"},
    float: {True: "true", "half": "half", None: "null"},
    str: {True: "true", 2.5: "2.5", None: "null"},
    Path: {True: "true", 3: "3", None: "null"},
}


def all_classes_of_settings() -> set[type]:
    """Those that configurations are built into; a look-up imports them all."""
    groups = [method_class("full").Config, *(cls.Config for cls in (*METHODS.values(), *BACKBONES.values()))]
    return {RunSettings, Protocol, *groups, *SOURCES.values(), *QUANTIZERS.values(), *LOSSES.values()}


@pytest.mark.parametrize("cls", sorted(all_classes_of_settings(), key=str), ids=lambda cls: cls.__qualname__)
def test_no_setting_takes_a_value_of_another_type(cls):
    for key, (kind, may_be_none) in kinds_of(cls).items():
        for value, shown in REFUSED[kind.plain].items() if kind is not None else ():
            if value is None and may_be_none:
                continue
            end = ", or not be given" if may_be_none else ""
            with pytest.raises(SettingError, match=f"^{re.escape(f'{key}={shown} must be {kind.words}{end}')}$"):
                build_settings(cls, {key: value})


def test_only_settings_have_a_key_to_prefix():
    with pytest.raises(UserError, match=r"^raise the budget$"), keys_under("method."):
        raise UserError("raise the budget")


def test_an_error_outlives_its_process():
    error = pickle.loads(pickle.dumps(SettingError("bits", 9, "must lie between 2 and 8").under("method.")))
    assert (error.key, error.value) == ("method.bits", 9) and str(error) == "method.bits=9 must lie between 2 and 8"


def test_a_number_beyond_all_floats_is_refused_as_any_other():
    with pytest.raises(SettingError, match="must be at most 3"):
        Limits(at_most=3).check("size", 10**400)
