"""Counters of the mount's requests: their number, durations and errors.

A read that is answered from the page cache takes about 20 microseconds, so counting it must be
cheap: no lock (only trio's thread counts), no new object, no search. The bucket of a duration is
computed by shifting: each power of two is divided into :data:`_PARTS` equal parts, so a bucket is
never wider than an eighth of its values. Sums and quantiles are computed on demand.
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
"""Bounds of the published histogram, in nanoseconds: 8 microseconds to 34 seconds. Powers of two,
so that each ends a bucket."""
QUANTILES: Final = (0.5, 0.9, 0.99, 0.999)


def bucket_of(value: int) -> int:
    """The bucket of *value*, which isn't negative and has at most 63 bits."""
    # Below 16 each value has a bucket of its own.
    shift = max(value.bit_length() - _BITS - 1, 0)
    return (shift << _BITS) + (value >> shift)


def lowest_of(bucket: int) -> int:
    """The smallest value in *bucket*."""
    shift = max((bucket >> _BITS) - 1, 0)
    return (bucket - (shift << _BITS)) << shift


class Histogram:
    """A histogram of durations in nanoseconds."""

    __slots__ = ("counts", "highest", "total")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.total = 0
        """Sum of all durations."""
        self.highest = 0

    def add(self, value: int) -> None:
        # bucket_of, inlined with _BITS = 3: a call costs as much as the rest.
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
        """The nearest-rank quantile, as the last value of its bucket; None without values.

        *share* is 0 to 1; the result is at most an eighth too high.
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
        """Number of values smaller than *bound*, a power of two."""
        return sum(self.counts[: bucket_of(bound)])


def merged(histograms: Sequence[Histogram]) -> Histogram:
    """The sum of *histograms*."""
    found = Histogram()
    found.counts = [sum(many) for many in zip(*(h.counts for h in histograms), strict=True)]
    found.total = sum(histogram.total for histogram in histograms)
    found.highest = max((histogram.highest for histogram in histograms), default=0)
    return found


class Metrics:
    """Counters of the requests to the file system."""

    def __init__(self) -> None:
        self.started = time.time()
        self.bytes_read = 0
        self.cached = Histogram()
        """Durations of reads from the page cache."""
        self.waited = Histogram()
        """Durations of reads from the disk, by a thread."""
        self.durations: dict[str, Histogram] = {}
        """Durations of all other requests that were answered, by operation."""
        self.errors: Counter[tuple[str, int]] = Counter()
        """Number of failed requests, by operation and errno."""

    def done(self, operation: str, nanoseconds: int) -> None:
        """Count an *operation* that was answered."""
        found = self.durations.get(operation)
        if found is None:
            found = self.durations[operation] = Histogram()
        found.add(nanoseconds)

    def failed(self, operation: str, number: int) -> None:
        """Count an *operation* that failed with the errno *number*."""
        self.errors[operation, number] += 1

    def operations(self) -> Iterator[tuple[str, Histogram]]:
        """The durations by operation, with all reads as one."""
        reads = merged([self.cached, self.waited])
        yield from sorted({**self.durations, "read": reads}.items())


def errno_name(number: int) -> str:
    """``EIO`` for 5; the number itself if it has no name."""
    return errno.errorcode.get(number, str(number))
