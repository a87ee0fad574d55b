"""Numbers about what was asked of the mount, counted as it happens.

A read that is answered from the page cache takes some 20 microseconds, so what is counted of
it has to cost next to nothing: no lock (all of this belongs to trio's thread), no object, no
search. Durations go into a histogram whose buckets are found by shifting: each power of two is
cut into :data:`_PARTS` equal parts, so that a bucket is never wider than an eighth of what is
in it. Sums and quantiles are computed when somebody asks.
"""

from __future__ import annotations

import errno
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

_BITS: Final = 3
_PARTS: Final = 1 << _BITS
BUCKETS: Final = (64 - _BITS) << _BITS
"""Enough for 63 bits: 292 years in nanoseconds."""
BOUNDS: Final = (*(1 << bit for bit in range(13, 25)), *(1 << bit for bit in range(25, 36, 2)))
"""Nanoseconds at which durations are counted up for others, from 8 microseconds to 34 seconds.
Powers of two, so that each ends a bucket."""
QUANTILES: Final = (0.5, 0.9, 0.99, 0.999)


def bucket_of(value: int) -> int:
    """The bucket of *value*, which isn't negative and has at most 63 bits."""
    # Below 16 each value has a bucket of its own.
    shift = max(value.bit_length() - _BITS - 1, 0)
    return (shift << _BITS) + (value >> shift)


def lowest_of(bucket: int) -> int:
    """The smallest value in *bucket*; the next one's is the first that isn't in it."""
    shift = max((bucket >> _BITS) - 1, 0)
    return (bucket - (shift << _BITS)) << shift


class Histogram:
    """How often which duration occurred, in nanoseconds."""

    __slots__ = ("counts", "highest", "total")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.total = 0
        """Sum of all durations."""
        self.highest = 0

    def add(self, value: int) -> None:
        # bucket_of, written out with _BITS = 3: a call costs as much as all of the rest.
        shift = value.bit_length() - 4
        if shift < 0:  # noqa: PLR1730 - max() takes three times as long
            shift = 0
        self.counts[(shift << 3) + (value >> shift)] += 1
        self.total += value
        if value > self.highest:  # noqa: PLR1730
            self.highest = value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> int | None:
        """The value that *share* of all don't exceed, an eighth too high at most; None of none.

        The nearest-rank quantile, as the last value of its bucket.
        """
        count = self.count
        if not count:
            return None
        rank = max(1, math.ceil(share * count))
        for bucket, many in enumerate(self.counts):
            rank -= many
            if rank <= 0:
                return min(self.highest, lowest_of(bucket + 1) - 1)
        raise AssertionError("more than all")  # pragma: no cover

    def below(self, bound: int) -> int:
        """How many are smaller than *bound*, a power of two."""
        return sum(self.counts[: bucket_of(bound)])


def merged(histograms: Sequence[Histogram]) -> Histogram:
    """All of *histograms* in one."""
    found = Histogram()
    found.counts = [sum(many) for many in zip(*(h.counts for h in histograms), strict=True)]
    found.total = sum(histogram.total for histogram in histograms)
    found.highest = max((histogram.highest for histogram in histograms), default=0)
    return found


class Metrics:
    """What was asked of the file system, how long it took, and what went wrong."""

    def __init__(self) -> None:
        self.started = time.time()
        self.bytes_read = 0
        self.cached = Histogram()
        """Of reads that were answered from the page cache."""
        self.waited = Histogram()
        """Of those for which a thread went to the disk."""
        self.durations: dict[str, Histogram] = {}
        """Of all other requests that were answered, by operation."""
        self.errors: Counter[tuple[str, int]] = Counter()
        """By operation and errno."""

    def done(self, operation: str, nanoseconds: int) -> None:
        """*operation* was answered."""
        found = self.durations.get(operation)
        if found is None:
            found = self.durations[operation] = Histogram()
        found.add(nanoseconds)

    def failed(self, operation: str, number: int) -> None:
        """*operation* ended in the errno *number*."""
        self.errors[operation, number] += 1

    def operations(self) -> Iterator[tuple[str, Histogram]]:
        """All operations that were answered, reads of either kind as one."""
        reads = merged([self.cached, self.waited])
        yield from sorted({**self.durations, "read": reads}.items())


def errno_name(number: int) -> str:
    """``EIO`` for 5; the number itself if it has no name."""
    return errno.errorcode.get(number, str(number))
