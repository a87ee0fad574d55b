"""No more than so much in a second, and no longer than so many seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_BURST: Final = 0.1
"""Seconds by which one may be behind a bounded rate and catch up again."""
_NAP: Final = 86400.0
"""Seconds that are slept in one go: time.sleep() doesn't take any number of them."""


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
