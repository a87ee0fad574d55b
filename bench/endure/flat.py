"""Whether a course of samples is flat: by rule, not by eye.

Memory is noisy: a burst of downloads takes buffers, a scan of the library takes listings. So
samples become medians of windows, and the slope is Theil and Sen's: the median of the slopes
between all pairs of windows. A few outliers don't move it, and a leak, which lifts all windows
that come later, does. It is given per run, and a run stands for a day.

Threads and descriptors are whole numbers: in each quiet moment there are at most as many as in
the first one after the warm-up.

Pure: numbers in, verdicts out.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

Point = tuple[float, float]
"""A time in seconds, and a value."""

WINDOWS: Final = 50
"""Windows in a run."""
BAR: Final = 0.05
"""Growth of memory allowed in a day, as a share of it."""
FEWEST: Final = 4
"""Fewest windows for a slope."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether one series of samples is flat; *met* is None if there are too few of them."""

    what: str
    value: str
    bar: str
    met: bool | None
    figure: float | None = None


def windowed(points: Sequence[Point], width: float) -> list[Point]:
    """The median of each window of *width* seconds that has samples."""
    found = []
    for _, group in itertools.groupby(sorted(points), lambda point: point[0] // width):
        times, values = zip(*group, strict=True)
        found.append((statistics.median(times), statistics.median(values)))
    return found


def theil_sen(points: Sequence[Point]) -> float | None:
    """The median slope between two points, per second; None if there are no two."""
    slopes = [
        (b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(points, 2) if b[0] != a[0]
    ]
    return statistics.median(slopes) if slopes else None


def judge_memory(
    what: str, points: Sequence[Point], *, run: float, width: float | None = None
) -> Verdict:
    """Whether memory, in MiB, grows by less than :data:`BAR` in a run of so many seconds.

    *width* of the windows in seconds; 0: each point counts by itself.
    """
    width = run / WINDOWS if width is None else width
    medians = windowed(points, width) if width else sorted(points)
    slope = theil_sen(medians)
    bar = f"<= {BAR:+.0%} a day"
    if slope is None or len(medians) < FEWEST:
        return Verdict(what=what, value="too few samples", bar=bar, met=None)
    base = statistics.median(value for _, value in medians)
    growth = slope * run
    value = f"{growth:+.2f} MiB a day ({growth / base:+.1%} of {base:.1f})"
    return Verdict(what=what, value=value, bar=bar, met=growth <= BAR * base, figure=growth)


def judge_quiet(what: str, moments: Sequence[Point], warm: float) -> Verdict:
    """Whether each quiet moment after the first that is later than *warm* has no more than it."""
    counts = [int(value) for when, value in moments if when >= warm]
    if len(counts) < 2:
        return Verdict(what=what, value="too few quiet moments", bar="= base", met=None)
    base, later = counts[0], counts[1:]
    return Verdict(
        what=what,
        value=f"base {base}, then {min(later)} to {max(later)} in {len(later)}",
        bar=f"<= {base}",
        met=max(later) <= base,
        figure=float(max(later) - base),
    )


def is_flat(verdicts: Sequence[Verdict]) -> bool:
    """Whether nothing grows, as far as there were enough samples."""
    return all(verdict.met is not False for verdict in verdicts)


def line(points: Sequence[Point], run: float) -> Iterator[Point]:
    """The ends of the fitted line, for the plot."""
    medians = windowed(points, run / WINDOWS)
    slope = theil_sen(medians)
    if slope is None:
        return
    offset = statistics.median(value - slope * when for when, value in medians)
    for when in (medians[0][0], medians[-1][0]):
        yield when, offset + slope * when
