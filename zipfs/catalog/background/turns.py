"""Who goes first right after a start: whoever asks, before the walk through all games.

And before watches are set on all folders. All run in one interpreter, so each takes the time of the
others; and what is asked for is what somebody waits for.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Final

import trio

_PAUSE: Final = 0.05
"""Seconds after a question in which the next one is expected: the next page of a listing."""
_LONGEST: Final = 0.25
"""Longest time for which a step of the walk waits, in seconds."""


class Turns:
    """Belongs to trio's thread, but for :meth:`is_asked`."""

    def __init__(self) -> None:
        self._until = -math.inf
        self._last = -math.inf
        """When somebody asked last, by :func:`time.monotonic`."""
        self._asking = 0
        """How many wait for an answer."""

    def asked(self) -> None:
        """Somebody waits for an answer about games that nobody has looked at."""
        self._until = trio.current_time() + _PAUSE
        self._last = time.monotonic()

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """A context in which somebody waits for such an answer."""
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1
            self.asked()

    def is_asked(self) -> bool:
        """Whether somebody waits for an answer, or has just had one. Thread-safe."""
        return self._asking > 0 or time.monotonic() < self._last + _PAUSE

    async def give_way(self) -> None:
        """Wait until nobody asks any more, but not for long."""
        longest = trio.current_time() + _LONGEST
        while (now := trio.current_time()) < (until := min(self._next(now), longest)):  # noqa: ASYNC110 - asked() would set an event for each name
            await trio.sleep_until(until)

    def _next(self, now: float) -> float:
        """When it may be the walk's turn."""
        return now + _PAUSE if self._asking else self._until
