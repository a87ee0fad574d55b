"""A rate that isn't exceeded, by a clock that goes only when somebody sleeps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zipfs.system.rates import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.slept = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        self.slept += seconds


@given(
    rate=st.floats(0.5, 1e9),
    amounts=st.lists(st.tuples(st.integers(1, 1 << 24), st.floats(0, 2)), min_size=1, max_size=50),
)
def test_the_average_stays_within_the_rate(rate: float, amounts: list[tuple[int, float]]) -> None:
    """Whatever else takes time between; by more than a tenth of a second it never catches up."""
    clock = Clock()
    pace = Pace(rate, clock, clock.sleep)
    started, total = clock.now, 0
    for amount, seconds in amounts:
        clock.now += seconds
        pace.took(amount)
        total += amount
        assert total / rate <= (clock.now - started) + 0.1 + 1e-6 * (clock.now - started)


def test_it_sleeps_no_longer_than_needed() -> None:
    clock = Clock()
    pace = Pace(10.0, clock, clock.sleep)
    for _ in range(100):
        pace.took(5)
    assert abs(clock.slept - 50) < 0.2
    clock.now += 1000  # a long pause is no credit
    before = clock.slept
    for _ in range(10):
        pace.took(10)
    assert 9.5 < clock.slept - before <= 10


def test_a_deadline_ends_the_wait() -> None:
    clock = Clock()
    pace = Pace(1e-9, clock, clock.sleep)
    pace.took(1e12, clock.now + 2)
    assert clock.slept == 2
    pace.took(1, clock.now - 1)
    assert clock.slept == 2


def test_no_rate_no_sleep() -> None:
    clock = Clock()
    Pace(0, clock, clock.sleep).took(1 << 60)
    assert clock.slept == 0
