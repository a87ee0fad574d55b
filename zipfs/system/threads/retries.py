"""When what a source has failed to do is tried again.

Most failures are over in a moment: a server was restarted, or a file went away in between and its
share says so in its own way (``EINVAL``, ``ESTALE``, ``EIO``). Others last for days. So the first
try comes soon, and each further one after twice the time.
"""

from __future__ import annotations

from typing import Final

SHORTEST: Final = 1.0
LONGEST: Final = 30.0
"""Seconds until the first try, and between two tries at most."""


class Retries:
    """The pauses between the tries of one thing."""

    __slots__ = ("_pause",)

    def __init__(self) -> None:
        self._pause = 0.0

    def after_failure(self) -> float:
        """Seconds until the next try: 1, 2, 4, ... up to :data:`LONGEST`."""
        self._pause = min(LONGEST, 2 * self._pause or SHORTEST)
        return self._pause

    def over(self) -> None:
        """It has worked, or it is about something else now."""
        self._pause = 0.0

    @property
    def are_under_way(self) -> bool:
        """Whether it has failed before."""
        return self._pause > 0

    @property
    def are_rare(self) -> bool:
        """Whether the pauses don't grow any more."""
        return self._pause >= LONGEST
