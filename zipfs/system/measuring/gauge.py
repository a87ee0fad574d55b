"""How many reads of a source at a time pay off: found out by measuring, not by its name.

A server far away answers thirty as fast as one. A disk that seeks is slower with each head
movement, and a source in memory is bound by the CPU. So the number is doubled as long as that
gives more bytes a second, and halved again when it doesn't; now and then it is tried again. Pure:
the caller has the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SLOW: Final = 0.0003
"""Seconds a file from which on a source counts as slow. One in memory takes a tenth of that."""
_SAMPLES: Final = 4
"""Fewest files by which a source is judged."""
FIRST: Final = 4
"""Reads at a time before anything is known."""
_FEWEST: Final = 2
_GAIN: Final = 1.2
"""Doubling the number has to give so many times the speed."""
_ROUND: Final = 3
"""Reads of a measurement, in terms of those at a time."""
_TRIES: Final = 2
"""Measurements of another number before it is given up: the machine may have had other work."""
_AGAIN: Final = 1.0
"""Seconds after which a higher number is tried again."""
_EACH: Final = 128 << 10
"""Bytes in which the call itself is counted."""


def is_slow(seconds: Sequence[float]) -> bool:
    """Whether a source is slow whose files took so many *seconds* each.

    By the faster ones, the lower quartile: on a busy machine anything can take long.
    """
    return len(seconds) >= _SAMPLES and sorted(seconds)[len(seconds) // 4] >= SLOW


class Gauge:
    """The number of reads at a time, :attr:`limit`, for one reader; up to *most*.

    With *fixed* it is always *most*.
    """

    def __init__(self, most: int, *, fixed: bool = False) -> None:
        self.limit = most if fixed else min(FIRST, most)
        self._most = self.limit if fixed else most
        self._fewest = min(_FEWEST, most)
        self._fixed = fixed
        self._best = self.limit
        """The best number so far; :attr:`limit` differs while another one is tried."""
        self._speed = 0.0
        """The speed at the best number; 0 as long as that isn't known."""
        self._again = 0.0
        """When another number is tried, and whether that is the higher one."""
        self._up = True
        self._tries = 0
        self._last: float | None = None
        """When the last read ended; None after a pause."""
        self._restart()

    def _restart(self) -> None:
        self._spent = 0.0
        self._reads = 0
        self._cost = 0

    def idle(self) -> None:
        """There is less to read than :attr:`limit` at a time: until the next read is a pause."""
        self._last = None

    def add(self, length: int, now: float) -> None:
        """Count a read of *length* bytes that ended *now*, in seconds of some clock."""
        if self._fixed:
            return
        last, self._last = self._last, now
        if last is None:
            return
        self._spent += now - last
        self._reads += 1
        self._cost += length + _EACH
        if self._reads >= _ROUND * self.limit and self._spent > 0:
            self._decide(self._cost / self._spent, now)
            self._restart()

    def _decide(self, speed: float, now: float) -> None:
        """*speed* was measured at :attr:`limit`."""
        if self.limit == self._best or not self._speed:
            self._speed = speed
        elif speed >= self._speed * (_GAIN if self.limit > self._best else 1 / _GAIN):
            self._best, self._speed = self.limit, speed  # and on in this direction
        elif self._tries + 1 < _TRIES:
            self._tries += 1
            return
        else:
            self.limit = self._best
            self._again = now + _AGAIN
            self._up = not self._up
        self._tries = 0
        if now >= self._again:
            other = 2 * self._best if self._up else self._best // 2
            self.limit = max(self._fewest, min(other, self._most))
            if self.limit == self._best:
                self._up = not self._up
                self._again = now + _AGAIN
