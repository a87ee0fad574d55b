"""How many calls at once: as many as make a source faster."""

from __future__ import annotations

import pytest

from zipfs.system.measuring.width import MOST, Width

CPU = 0.0001


class Source:
    """A model of one: *latency* in seconds, of so many calls *at_once*; others wait."""

    def __init__(self, latency: float, at_once: float) -> None:
        self.latency = latency
        self.at_once = at_once

    def use(self, width: Width, batches: int, size: int = 256) -> list[int]:
        widths = []
        for _ in range(batches):
            now = width.now
            seconds = max(size * self.latency / min(now, self.at_once), size * CPU)
            width.measured(now, size, seconds + size * CPU / now, size * CPU)
            widths.append(width.now)
        return widths


def test_what_answers_slowly_is_asked_by_many() -> None:
    width = Width()
    assert Source(0.005, 1000).use(width, 8)[-1] == MOST
    # For good, while it stays so.
    assert set(Source(0.005, 1000).use(width, 100)) == {MOST}


@pytest.mark.parametrize("queue", [1.0, 1.2])
def test_a_disk_that_seeks_is_asked_by_one(queue: float) -> None:
    widths = Source(0.005, queue).use(Width(), 400)
    assert max(widths) <= 2
    assert widths.count(2) <= 10  # tries, fewer and fewer
    assert widths[-1] == 1


def test_what_is_cached_is_asked_by_one() -> None:
    assert set(Source(0.00001, 1000).use(Width(), 100)) == {1}


def test_a_source_that_can_do_so_many_at_once() -> None:
    widths = Source(0.005, 8).use(Width(), 200)
    assert widths[-1] == 8
    assert max(widths) <= 16


def test_one_that_becomes_fast_and_slow_again() -> None:
    width = Width()
    assert Source(0.005, 1000).use(width, 20)[-1] == MOST
    assert Source(0.000001, 1000).use(width, 20)[-1] <= 8
    assert Source(0.005, 1000).use(width, 600)[-1] == MOST


def test_a_few_calls_are_enough_as_long_as_something_is_tried() -> None:
    """Some hundred games on a slow source are looked at by many well before the last one."""
    width = Width()
    source = Source(0.005, 1000)
    made = 0
    while (size := width.sample) and width.now < MOST:
        assert size >= width.now
        source.use(width, 1, size)
        made += size
    assert width.now == MOST
    assert made <= 600
    source.use(width, 2)
    assert width.sample is None


def test_a_quick_source_is_left_alone_by_then() -> None:
    width = Width()
    assert width.sample
    Source(0.00001, 1000).use(width, 10, 100)
    assert width.sample is None


def test_one_that_was_of_no_use_before_it_became_slow() -> None:
    """As a share whose answers were in the cache: tries of then say nothing of now."""
    width = Width()
    cached = Source(0.0003, 1)
    assert cached.use(width, 1000)[-1] == 1
    assert Source(0.005, 1000).use(width, 10)[-1] == MOST


def test_most() -> None:
    width = Width(4)
    assert max(Source(0.005, 1000).use(width, 50)) == 4


def test_what_says_nothing_changes_nothing() -> None:
    width = Width()
    for _ in range(1000):
        width.measured(8, 1000, 100.0, 0.0)  # of another time
        width.measured(1, 0, 100.0, 0.0)
    assert width.now == 1


def test_a_fixed_number_stays_what_it_is() -> None:
    width = Width(7, fixed=True)
    assert set(Source(0.005, 1000).use(width, 50)) == {7}
    assert set(Source(0.0, 1).use(width, 50)) == {7}
