"""Calls that may touch a disk, out of trio's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Threads:
    """Up to *count* worker threads.

    A call that is cancelled is left behind to end when it can: a dead disk must
    not hold up the end of the mount.
    """

    def __init__(self, count: int) -> None:
        self._limiter = trio.CapacityLimiter(count)

    async def run(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """``function(*arguments)`` in a thread; waits while all are busy."""
        return await trio.to_thread.run_sync(
            function, *arguments, abandon_on_cancel=True, limiter=self._limiter
        )
