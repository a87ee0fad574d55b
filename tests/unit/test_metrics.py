"""What is counted of each request: buckets, quantiles, speed."""

from __future__ import annotations

import errno
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipfs.mount.metrics import (
    BOUNDS,
    BUCKETS,
    QUANTILES,
    Histogram,
    Metrics,
    bucket_of,
    errno_name,
    lowest_of,
    merged,
)
from zipfs.system.rates import Speed

VALUES = st.one_of(
    st.integers(0, 40),
    st.integers(0, 10**11),
    st.integers(0, 62).map(lambda bit: 1 << bit),
    st.integers(1, 62).map(lambda bit: (1 << bit) - 1),
    st.integers(0, (1 << 63) - 1),
)


def histogram_of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(VALUES)
def test_a_value_is_in_its_bucket(value: int) -> None:
    bucket = bucket_of(value)
    assert 0 <= bucket < BUCKETS
    assert lowest_of(bucket) <= value < lowest_of(bucket + 1)
    # Never wider than an eighth of what is in it.
    assert lowest_of(bucket + 1) - lowest_of(bucket) <= max(1, value / 8)
    assert histogram_of([value]).counts[bucket] == 1


def test_buckets_follow_one_another() -> None:
    edges = [lowest_of(bucket) for bucket in range(BUCKETS)]
    assert edges[:18] == [*range(17), 18]
    assert edges == sorted(set(edges))


@given(st.lists(VALUES, min_size=1), st.one_of(st.sampled_from(QUANTILES), st.floats(0, 1)))
def test_quantiles_are_an_eighth_too_high_at_most(values: list[int], share: float) -> None:
    rank = max(1, math.ceil(share * len(values)))
    exact = sorted(values)[rank - 1]
    found = histogram_of(values).quantile(share)
    assert found is not None
    assert exact <= found <= exact + exact / 8
    assert found <= max(values)


@given(st.lists(VALUES), st.lists(VALUES))
def test_two_as_one(some: list[int], others: list[int]) -> None:
    both = merged([histogram_of(some), histogram_of(others)])
    wanted = histogram_of(some + others)
    assert (both.counts, both.total, both.highest) == (wanted.counts, wanted.total, wanted.highest)
    assert both.count == len(some) + len(others)
    assert both.total == sum(some) + sum(others)


@given(st.lists(VALUES))
def test_bounds_count_exactly(values: list[int]) -> None:
    histogram = histogram_of(values)
    assert [histogram.below(bound) for bound in BOUNDS] == [
        sum(value < bound for value in values) for bound in BOUNDS
    ]
    assert len(BOUNDS) < 20


def test_nothing_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None


def test_reads_of_both_kinds_are_one_operation() -> None:
    metrics = Metrics()
    metrics.cached.add(10)
    metrics.waited.add(1_000_000)
    metrics.done("open", 5)
    metrics.done("open", 7)
    metrics.failed("read", errno.EIO)
    metrics.failed("read", errno.EIO)
    found = dict(metrics.operations())
    assert {name: (h.count, h.total) for name, h in found.items()} == {
        "open": (2, 12),
        "read": (2, 1_000_010),
    }
    assert metrics.errors == {("read", errno.EIO): 2}
    assert (errno_name(errno.EIO), errno_name(12345)) == ("EIO", "12345")


def test_speed_over_the_last_minute_of_work() -> None:
    speed = Speed()
    assert speed.now(0.0) is None
    speed.begin(100.0)
    speed.add(500, 100.2)
    assert speed.now(100.5) is None  # too early to tell
    assert speed.now(102.0) == 250
    for second in range(101, 300):
        speed.begin(second)  # goes on: no new beginning
        speed.add(1000, second + 0.5)
    assert speed.now(300.0) == pytest.approx(1000, rel=0.03)
    for second in range(300, 360):
        speed.add(10, second + 0.5)
    assert speed.now(360.0) == pytest.approx(10, rel=0.03)
    assert speed.now(500.0) == 0  # hung
    speed.rest()
    assert speed.now(500.0) is None
    # A pause isn't work: what is told is how fast it goes now.
    speed.begin(1000.0)
    speed.add(70, 1001.0)
    assert speed.now(1007.0) == 10
    assert speed.total == 500 + 199 * 1000 + 600 + 70


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 30)), max_size=300))
def test_speed_remembers_a_minute(steps: list[tuple[int, float]]) -> None:
    speed = Speed()
    now = 0.0
    speed.begin(now)
    for size, seconds in steps:
        now += seconds
        speed.add(size, now)
    assert len(speed._seconds) <= 60
