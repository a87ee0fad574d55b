"""Whether the kernel tells of all changes of the library, and all that it has told.

inotify(7) queues an event before the call that makes the change returns. So who has read all that
is in the queue knows of every change that was made before: :meth:`Hearing.catch_up`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

import trio

CATCH_UP: Final = 0.5
"""Longest wait for the events that are in the queue, in seconds. Who reads them also watches new
folders, which a dead disk may keep from ending."""

Hurry = Callable[[Callable[[], None]], None]
"""Has all events passed on that are in a queue, and then calls what it is given, in any thread."""


class Hearing:
    """What the watcher (:mod:`zipfs.mount.watcher`) says of itself; belongs to trio's thread.

    *began* and *ended* are called when it begins, and ends, to hear of all changes.
    """

    def __init__(self, began: Callable[[], object], ended: Callable[[], object]) -> None:
        self._began = began
        self._ended = ended
        self._hurries: tuple[Hurry, ...] = ()
        self.since = math.inf
        """Since when all changes are told of, time.monotonic; infinite while they aren't."""
        self.begun = trio.Event()
        """Set once it is known whether there are events, or nobody will tell."""
        self.begun.set()

    @property
    def is_complete(self) -> bool:
        """Whether all changes are told of."""
        return self.since != math.inf

    def expect(self) -> None:
        """Somebody is going to call :meth:`begin` or :meth:`end`."""
        self.begun = trio.Event()

    def begin(self, hurries: tuple[Hurry, ...] = ()) -> None:
        """All changes are told of from now on; *hurries* are the queues that they are in."""
        self._hurries = hurries
        if not self.is_complete:
            self.since = time.monotonic()
            self._began()
        self.begun.set()

    def end(self) -> None:
        """There may be changes that nobody tells of."""
        self._hurries = ()
        if self.is_complete:
            self.since = math.inf
            self._ended()
        self.begun.set()

    async def catch_up(self) -> bool:
        """Wait until all changes that were made before the call have been told of.

        Returns whether that is so: False if not all are told of, or not in time.
        """
        if not self.is_complete:
            return False
        since, token = self.since, trio.lowlevel.current_trio_token()
        with trio.move_on_after(CATCH_UP):
            for hurry in self._hurries:
                told = trio.Event()
                # What was told of before is passed on in the same way, and so comes first.
                hurry(lambda told=told: token.run_sync_soon(told.set))  # type: ignore[misc]  # mypy can't infer a lambda's default
                await told.wait()
            return since == self.since
        return False
