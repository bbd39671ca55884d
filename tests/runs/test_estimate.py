"""The expected seconds of a run, from records made by hand."""

import pytest

from baco.runs.estimate import expected_seconds

BACO = {
    "dataset": "beauty",
    "method": {"name": "baco"},
    "backbone": {"name": "mf"},
    "protocol": {"name": "quick"},
    "dim": 64,
}


def recorded(
    method: str = "baco",
    *,
    device: str = "cpu",
    clustering: float = 0.0,
    search: float = 0.0,
    training: float = 0.0,
    validation: float = 0.0,
    test: float = 0.0,
    **changed: object,
) -> dict:
    """What `expected_seconds` reads of a record; `changed` are other values of its configuration."""
    phases = {"clustering": clustering, "search": search, "training": training, "validation": validation, "test": test}
    config = BACO | {"method": {"name": method}} | changed
    return {"config": config, "seconds": phases, "environment": {"device": device}}


def estimate(*records: dict, assign_only: bool = False) -> float:
    return expected_seconds(records, BACO, "cpu", assign_only)


@pytest.mark.parametrize("assign_only", [False, True])
def test_without_records_it_is_0(assign_only):
    assert estimate(assign_only=assign_only) == 0.0


def test_training_validation_and_test_count():
    assert estimate(recorded(training=10.0, validation=2.0, test=1.0)) == 13.0


def test_the_longest_run_of_the_method_counts_and_not_those_of_others():
    others = [recorded("full", training=90.0), recorded("random", training=1.0)]
    assert estimate(recorded(training=10.0), recorded(training=30.0), recorded(training=20.0), *others) == 30.0


def test_a_method_without_a_run_takes_the_median_of_the_others():
    assert estimate(*(recorded("full", training=seconds) for seconds in (50.0, 10.0, 12.0))) == 12.0


def test_the_longest_clustering_and_search_of_the_method_are_added():
    records = [
        recorded(training=10.0, clustering=1.0, search=6.0),
        recorded(training=20.0, clustering=4.0, search=1.0),
        recorded("full", training=5.0, clustering=90.0),
    ]
    assert estimate(*records) == 20.0 + 7.0


def test_clustering_of_other_trainings_and_devices_is_added_to_the_median_of_other_methods():
    records = [
        recorded(clustering=4.0, training=90.0, device="cuda"),
        recorded(clustering=3.0, training=90.0, dim=32),
        recorded("full", training=5.0),
    ]
    assert estimate(*records) == 5.0 + 4.0


def test_only_clustering_without_search_counts_if_only_an_assignment_is_computed():
    records = [recorded(clustering=3.0, search=5.0, training=20.0), recorded("full", clustering=90.0)]
    assert estimate(*records, assign_only=True) == 3.0


@pytest.mark.parametrize("method", ["baco", "full"])
@pytest.mark.parametrize(
    "changed",
    [
        {"dataset": "gowalla"},
        {"device": "cuda"},
        {"protocol": {"name": "paper"}},
        {"backbone": {"name": "lightgcn"}},
        {"dim": 32},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_run_with_another_dataset_device_or_training_is_ignored(method, changed):
    assert estimate(recorded(method, training=90.0, **changed)) == 0.0


def test_clustering_of_another_dataset_is_ignored():
    assert estimate(recorded(clustering=90.0, dataset="gowalla")) == 0.0
