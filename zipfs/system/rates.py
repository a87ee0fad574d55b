"""Rates in units per second: a limit, and a measurement."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

BURST: Final = 0.1
"""Maximum delay, in seconds, that is made up for by exceeding a limited rate."""
_MAX_SLEEP: Final = 86400.0
"""Maximum duration of one sleep, in seconds: time.sleep() raises for very large numbers."""
_WINDOW: Final = 60
"""Seconds over which a speed is averaged."""
_MIN_TIME: Final = 1.0
"""Minimum seconds of work before there is a speed."""


class Pace:
    """Limits the average rate to *rate* units per second; 0: no limit.

    *clock* and *sleep* are in seconds; *sleep* may return early.
    """

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._due = clock()
        """Earliest time at which the units taken so far are within the rate."""

    def took(self, amount: float, deadline: float | None = None) -> None:
        """Sleep until *amount* more is within the rate, or until *deadline*, a time of *clock*."""
        if self.rate <= 0:
            return
        now = self._clock()
        self._due = max(self._due, now - BURST) + amount / self.rate
        until = self._due if deadline is None else min(self._due, deadline)
        while now < until:
            self._sleep(min(until - now, _MAX_SLEEP))
            now = self._clock()


class Speed:
    """Bytes per second over the last minute of work, or since it began if that was later."""

    def __init__(self) -> None:
        self.total = 0
        """Bytes in total."""
        self._seconds: deque[tuple[int, int]] = deque()
        """Second and its bytes, for each second with any."""
        self._since: float | None = None

    def begin(self, now: float) -> None:
        """Record that work begins; no effect while it is under way."""
        if self._since is None:
            self._since = now
            self._seconds.clear()

    def rest(self) -> None:
        """Record that work ends."""
        self._since = None

    def add(self, size: int, now: float) -> None:
        self.total += size
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            size += self._seconds.pop()[1]
        self._seconds.append((second, size))
        while self._seconds[0][0] <= second - _WINDOW:
            self._seconds.popleft()

    def now(self, now: float) -> float | None:
        """Bytes per second; None without work, or for its first second."""
        if self._since is None or now - self._since < _MIN_TIME:
            return None
        oldest = int(now) - _WINDOW
        size = sum(size for second, size in self._seconds if second > oldest)
        return size / min(now - self._since, _WINDOW)
