import numba
import numpy as np
import pytest

from baco.coclustering.baco import Baco
from baco.compressors.budget import Budget
from baco.embedding.cost import code_ledger
from baco.runs.assignment_cache import cached_assignment
from baselines.full import Full
from baselines.hashing import RandomHash


class Counting(RandomHash):
    """Random hashing that counts how often it is asked for codes."""

    def __init__(self, config=None):
        super().__init__(config)
        self.calls = 0

    def assign(self, train, budget, rng):
        self.calls += 1
        return super().assign(train, budget, rng)


@pytest.fixture
def budget(planted):
    return Budget.parse(0.5, "parameters", planted.num_users, planted.num_items, 16)


def same_codes(one, other) -> bool:
    return all(np.array_equal(getattr(one, side).index, getattr(other, side).index) for side in ("users", "items"))


def test_codes_are_computed_once(planted, budget, tmp_path):
    method = Counting()
    first, seconds = cached_assignment(method, planted.train, budget, 0, tmp_path)
    again, same_seconds = cached_assignment(method, planted.train, budget, 0, tmp_path)
    assert method.calls == 1
    assert same_codes(first, again)
    assert same_seconds == seconds > 0, "a cached assignment tells how long it took when it was made"
    assert code_ledger(again, 16) == code_ledger(first, 16)


def test_details_and_second_codes_survive(planted, budget, tmp_path):
    first, _ = cached_assignment(Baco(), planted.train, budget, 0, tmp_path)
    again, _ = cached_assignment(Baco(), planted.train, budget, 0, tmp_path)
    assert same_codes(first, again) and first.users.codes_per_id == 2
    assert again.details == first.details and "resolution" in again.details


def test_whatever_decides_the_codes_names_the_file(planted, budget, sparse_graph, tmp_path):
    other_budget = Budget.parse(0.4, "parameters", planted.num_users, planted.num_items, 16)
    cases = [
        (Baco(), planted.train, budget, 0),
        (Baco(), planted.train, budget, 1),
        (Baco(), planted.train, other_budget, 0),
        (Baco(Baco.Config(num_rounds=3)), planted.train, budget, 0),
        (Baco(Baco.Config(resolution=2.0)), sparse_graph, budget, 0),
        (RandomHash(), planted.train, budget, 0),
    ]
    for case in cases:
        cached_assignment(*case, tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == len(cases)


def test_a_method_without_budget_is_cached_for_all_of_them(planted, budget, tmp_path):
    cached_assignment(Full(), planted.train, budget, 0, tmp_path)
    cached_assignment(Full(), planted.train, Budget(10**6, "bytes", 16), 0, tmp_path)
    assert len(list(tmp_path.glob("full-*.npz"))) == 1


def test_codes_can_be_computed_afresh(planted, budget, tmp_path):
    method = Counting()
    cached_assignment(method, planted.train, budget, 0, tmp_path)
    again, seconds = cached_assignment(method, planted.train, budget, 0, tmp_path, afresh=True)
    assert method.calls == 2 and again.details["computed_on"]["numba_threads"] == numba.get_num_threads()
    assert cached_assignment(method, planted.train, budget, 0, tmp_path)[1] == seconds, "the later seconds are kept"


def test_a_damaged_file_is_replaced(planted, budget, tmp_path, caplog):
    method = Counting()
    first, _ = cached_assignment(method, planted.train, budget, 0, tmp_path)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    again, _ = cached_assignment(method, planted.train, budget, 0, tmp_path)
    assert method.calls == 2 and same_codes(first, again)
    assert str(path) in caplog.text
    cached_assignment(method, planted.train, budget, 0, tmp_path)
    assert method.calls == 2
