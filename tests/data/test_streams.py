"""Segments: each interaction in one of them, and nothing known before its time."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.data.logs import Log
from baco.data.splits import latest_of_users
from baco.data.streams import Events, Stream
from baco.data.synthetic import Synthetic
from baco.errors import UserError

SMALL = Synthetic(num_users=60, num_items=40, num_interactions=600, num_clusters=4)


def random_events(seed: int) -> Events:
    rng = np.random.default_rng(seed)
    keys = rng.permutation(20 * 15)[: rng.integers(100, 250)]  # pairs, none of them twice
    users, items = keys // 15, keys % 15
    return Events("any", users, items, np.arange(20) * 10, np.array([f"item {item}" for item in range(15)]))


def pairs(graph) -> set[tuple[int, int]]:
    return set(zip(graph.users.tolist(), graph.items.tolist(), strict=True))


@given(seed=st.integers(0, 10**6), first=st.integers(2, 20), new_ids=st.integers(2, 6), share=st.floats(0.05, 0.6))
def test_nothing_is_known_before_its_time(seed, first, new_ids, share):
    events = random_events(seed)
    stream = Stream.cut(events, first, new_ids)
    assert (np.diff(stream.segments) >= 0).all() and set(stream.segments) == set(range(stream.num_steps + 1))
    ids = {side: getattr(stream, f"{side}_ids")[getattr(stream, f"{side}s")] for side in ("user", "item")}
    assert (ids["user"] == events.user_ids[events.users]).all() and (ids["item"] == events.item_ids[events.items]).all()

    time = {pair: place for place, pair in enumerate(zip(stream.users.tolist(), stream.items.tolist(), strict=True))}
    there: set = set()
    for segment in range(stream.num_steps + 1):
        inside = stream.segments <= segment
        seen = {("user", user) for user in stream.users[inside]} | {("item", item) for item in stream.items[inside]}
        assert len(there) < len(seen) <= first + segment * new_ids
        assert stream.num_users[segment] == stream.users[inside].max() + 1, "the ids that are there are the first ones"
        assert stream.num_items[segment] == stream.items[inside].max() + 1
        there = seen
    for segment in range(stream.num_steps):
        try:
            data = stream.step(segment, share)
        except UserError:  # nobody is left to be tested
            continue
        train, val, test = (pairs(graph) for graph in (data.train, data.val, data.test))
        known = set(list(time)[: np.count_nonzero(stream.segments <= segment)])
        coming = set(list(time)[len(known) : np.count_nonzero(stream.segments <= segment + 1)])
        assert train | val == known and not train & val
        assert test == {(user, item) for user, item in coming if user < data.num_users and item < data.num_items}
        assert all(stream.segments[time[pair]] == segment for pair in val)
        for user, item in val:
            of_user = [time[pair] for pair in train if pair[0] == user]
            assert max(of_user) < time[user, item] < min(time[pair] for pair in test)


@given(users=st.lists(st.integers(0, 5), min_size=1, max_size=40), share=st.floats(0.01, 0.99))
def test_the_latest_of_each_user_are_held_out(users, share):
    users = np.array(users)
    held_out = latest_of_users(users, share)
    for user in np.unique(users):
        own = held_out[users == user]
        count = 0 if len(own) < 3 else min(max(round(share * len(own)), 1), len(own) - 1)
        assert own.tolist() == [False] * (len(own) - count) + [True] * count


def test_a_part_of_all_ids_makes_segments_without_a_remainder():
    stream = Stream.cut(SMALL.load_events(), 0.5, 0.1)
    total = stream.num_users + stream.num_items
    assert stream.num_steps == 5 and total[-1] <= 100
    first, more = np.ceil(0.5 * total[-1]), np.ceil(0.1 * total[-1])
    for segment, size in enumerate(total[:-1]):
        assert first + segment * more - 1 <= size <= first + segment * more


@pytest.mark.parametrize(
    ("first", "new_ids", "message"),
    [
        (0.5, 0.6, "make 2 segments, and a stream needs 3; lower first=0.5 or new_ids=0.6"),
        (1, 0.1, "^first=1 must be a part of all ids"),
        (0.5, 2.5, "^new_ids=2.5 must be a part of all ids"),
    ],
)
def test_bad_sizes_of_segments(first, new_ids, message):
    with pytest.raises(UserError, match=message):
        Stream.cut(SMALL.load_events(), first, new_ids)


def test_a_segment_that_tests_nobody_is_an_error():
    """Everybody comes once and never again."""
    users = np.arange(60) // 5
    stream = Stream.cut(Events("once", users, np.tile(np.arange(5), 12)), 9, 4)
    with pytest.raises(UserError, match=r"segment 0 of 3 leaves nothing to be tested .* raise first or new_ids"):
        stream.step(0, 0.1)


def test_a_log_in_the_order_of_its_times(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"user": rng.integers(9, size=80), "item": rng.integers(7, size=80)})
    frame["time"] = rng.permutation(80)
    frame.to_csv(tmp_path / "log.csv", index=False)
    events = Log(path=str(tmp_path / "log.csv"), timestamp="time").load_events()
    expected = frame.sort_values("time").drop_duplicates(["user", "item"])
    for side in ("user", "item"):
        ids, numbers = getattr(events, f"{side}_ids"), getattr(events, f"{side}s")
        assert ids[numbers].tolist() == expected[side].astype(str).tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "^timestamp must name the column with the times"),
        ({"timestamp": "time", "path_test": "test.csv"}, "^path_test=test.csv gives a split"),
        ({"timestamp": "time"}, "^path=log.csv cannot be read"),
    ],
)
def test_logs_that_are_no_stream(settings, message):
    with pytest.raises(UserError, match=message):
        Log(path="log.csv", **settings).load_events()


def test_generated_ids_come_one_after_the_other_and_interests_drift():
    def late(**settings) -> tuple[int, float]:
        """Ids that come in the last half, and the part of its interactions that are of early co-clusters."""
        source = replace(SMALL, num_users=300, num_items=200, num_interactions=2000, main_share=1.0, second_share=0.0)
        events = replace(source, **settings).load_events()
        (early, late), (early_items, late_items) = np.split(events.users, 2), np.split(events.items, 2)
        assert len(set(zip(events.users.tolist(), events.items.tolist(), strict=True))) == 2000
        graph = np.zeros((300, 200), int)
        graph[early, early_items] = 1
        within = (graph @ graph.T @ graph) > 0  # three steps
        known = graph.any(axis=1)[late] & graph.any(axis=0)[late_items]
        return len(set(late) - set(early)), within[late, late_items][known].mean()

    arrivals, same = late(from_start=1.0, drift=0.0)
    more_arrivals, _ = late(from_start=0.2, drift=0.0)
    _, fewer = late(from_start=1.0, drift=0.3)
    assert more_arrivals > 2 * arrivals and fewer < same - 0.1
