"""What a run uses where it is told nothing."""

import pytest

from baco.runs.defaults import filled

NULLS = {"budget": None, "popularity": None, "start": None}


@pytest.mark.parametrize(
    ("backbone", "popularity"), [({}, 0.25), ({"num_layers": 0}, 0.25), ({"num_layers": 2}, 0.0)], ids=str
)
def test_datasets_and_methods_have_a_word_where_nothing_is_given(backbone, popularity):
    method = {"name": "any", "mf_popularity": 0.25, "start": "spectral"}
    found = filled(NULLS | {"dim": 64}, {"budget": 0.3}, backbone, method)
    assert found == {"budget": 0.3, "popularity": popularity, "start": "spectral", "dim": 64}
    assert method == {"name": "any"}, "what describes the run is no setting of the method"


def test_what_is_given_counts():
    given = {"budget": 10, "popularity": 0.0, "start": "normal"}
    assert filled(given, {"budget": 0.3}, {}, {"mf_popularity": 0.25, "start": "spectral"}) == given


def test_a_method_that_says_nothing_has_no_scale_and_a_random_start():
    assert filled(NULLS, {"budget": 0.3}, {}, {}) == {"budget": 0.3, "popularity": 0.0, "start": "normal"}
