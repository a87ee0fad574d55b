"""How many reads at a time pay off: found for sources that answer in different ways."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from zipfs.system.measuring.gauge import FIRST, SLOW, Gauge, is_slow

MOST = 32


def reads_at_a_time(seconds: Callable[[int], float], *, most: int = MOST) -> list[int]:
    """The numbers that are settled on for a source that takes *seconds* by the number at a time."""
    gauge = Gauge(most)
    now = 0.0
    under_way: list[float] = []
    seen = []
    for _ in range(3000):
        while len(under_way) < gauge.limit:
            heapq.heappush(under_way, now + seconds(len(under_way) + 1))
        now = heapq.heappop(under_way)
        gauge.add(40_000, now)
        seen.append(gauge.limit)
    return seen[1000:]


def test_a_server_far_away_is_asked_for_many() -> None:
    chance = random.Random(1)
    settled = reads_at_a_time(lambda _: 0.003 * chance.uniform(0.8, 1.2))
    assert sorted(settled)[len(settled) // 2] == MOST


def test_one_that_has_one_head_is_asked_for_few() -> None:
    chance = random.Random(1)
    settled = reads_at_a_time(lambda number: 0.008 * number * chance.uniform(0.8, 1.2))
    assert sorted(settled)[len(settled) // 2] <= FIRST
    assert max(settled) <= 2 * FIRST


def test_one_that_is_slower_with_many_is_asked_for_fewer_again() -> None:
    chance = random.Random(1)
    settled = reads_at_a_time(lambda n: 0.003 * max(1.0, n / 8) ** 1.5 * chance.uniform(0.9, 1.1))
    assert sorted(settled)[len(settled) // 2] in (8, 16)


@pytest.mark.parametrize("most", [1, 2, 3, 4, 7])
def test_never_more_than_there_may_be(most: int) -> None:
    settled = reads_at_a_time(lambda _: 0.01, most=most)
    assert 1 <= min(settled) <= max(settled) <= most


def test_a_setting_is_kept() -> None:
    gauge = Gauge(7, fixed=True)
    for number in range(1000):
        gauge.add(40_000, number * 0.001)
        assert gauge.limit == 7


def test_a_pause_of_the_reader_is_not_measured() -> None:
    """Else a source would seem slower for each time that somebody stops to read."""
    gauge = Gauge(MOST)
    now = 0.0
    seen = []
    for _ in range(400):
        for _ in range(20):
            now += 0.003 / gauge.limit
            gauge.add(40_000, now)
            seen.append(gauge.limit)
        gauge.idle()
        now += 10.0
    assert sorted(seen)[len(seen) // 2] == MOST  # now and then fewer are tried


@pytest.mark.parametrize(
    ("seconds", "slow"),
    [
        ([], False),
        ([1.0, 1.0], False),  # too few to say
        ([SLOW] * 4, True),
        ([0.00003] * 16, False),
        ([0.00003] * 5 + [0.5] * 11, False),  # others have the machine
        ([0.00003] * 3 + [0.001] * 13, True),  # some were in memory
    ],
)
def test_what_is_slow(seconds: list[float], slow: bool) -> None:
    assert is_slow(seconds) == slow
