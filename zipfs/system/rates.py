"""Rates in units per second: keeping within one, and measuring one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

_BURST: Final = 0.1
"""Seconds by which one may be behind a bounded rate and catch up again."""
_NAP: Final = 86400.0
"""Seconds that are slept in one go: time.sleep() doesn't take any number of them."""
_WINDOW: Final = 60
"""Seconds over which a speed is measured."""
_MOMENT: Final = 1.0
"""Seconds of work after which a speed can be told."""


class Pace:
    """Holds up whoever takes more than *rate* a second, on the average; 0: nobody.

    *clock* and *sleep* are in seconds.
    """

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._due = clock()
        """When so much may have been taken as has been."""

    def took(self, amount: float, deadline: float | None = None) -> None:
        """Come back when *amount* more is within the rate, or at *deadline*, a time of *clock*."""
        if self._rate <= 0:
            return
        now = self._clock()
        self._due = max(self._due, now - _BURST) + amount / self._rate
        until = self._due if deadline is None else min(self._due, deadline)
        while now < until:
            self._sleep(min(until - now, _NAP))
            now = self._clock()


class Speed:
    """Bytes a second over the last minute of work, or since it began if that was later."""

    def __init__(self) -> None:
        self.total = 0
        """Bytes, ever."""
        self._seconds: deque[tuple[int, int]] = deque()
        """For each second in which something was done, how much."""
        self._since: float | None = None

    def begin(self, now: float) -> None:
        """There is something to do again, if there wasn't."""
        if self._since is None:
            self._since = now
            self._seconds.clear()

    def rest(self) -> None:
        """There is nothing left to do."""
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
        """Bytes a second; None if nothing is being done, or too little yet to tell."""
        if self._since is None or now - self._since < _MOMENT:
            return None
        oldest = int(now) - _WINDOW
        size = sum(size for second, size in self._seconds if second > oldest)
        return size / min(now - self._since, _WINDOW)
