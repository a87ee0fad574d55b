"""Slopes of `make bench-scale`."""

from __future__ import annotations

import pytest

from bench.scale.growth import Series, slope


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_slopes_are_powers(power: float) -> None:
    assert slope([(size, 3 * size**power) for size in (10, 100, 1000)]) == pytest.approx(power)


@pytest.mark.parametrize("points", [[], [(10, 1.0)], [(10, 1.0), (10, 2.0)], [(10, 0), (100, 0)]])
def test_what_has_no_slope(points: list[tuple[float, float]]) -> None:
    assert slope(points) is None


def test_what_grows_faster_is_called_so() -> None:
    series = Series(what="archives", cost="time", unit="s")
    # What is constant at first hides the slope there.
    for size in (1, 10, 100, 1000, 10_000):
        series.add(size, max(1.0, size**2 / 1e3))
    assert series.verdict == "FASTER THAN LINEAR"
    assert series.slope == pytest.approx(2)
