"""Who goes first right after a start: whoever asks, before the walk through all games.

Both run in one interpreter, so each takes the time of the other; and what is asked for is what
somebody waits for.
"""

from __future__ import annotations

import math
from typing import Final

import trio

_PAUSE: Final = 0.05
"""Seconds after a question in which the next one is expected: the next page of a listing."""
_LONGEST: Final = 0.25
"""Longest time for which a step of the walk waits, in seconds."""


class Turns:
    """Belongs to trio's thread."""

    def __init__(self) -> None:
        self._until = -math.inf

    def asked(self) -> None:
        """Somebody waits for an answer about games that nobody has looked at."""
        self._until = trio.current_time() + _PAUSE

    async def give_way(self) -> None:
        """Wait until nobody asks any more, but not for long."""
        longest = trio.current_time() + _LONGEST
        while trio.current_time() < (until := min(self._until, longest)):  # noqa: ASYNC110 - asked() would set an event for each name
            await trio.sleep_until(until)
