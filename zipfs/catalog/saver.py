"""Saves what changes, a moment later and together: each save is a transaction of the index."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

log = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")


class Saver:
    """Calls *save* after changes, at most once in so many *seconds*, and one call at a time.

    Belongs to trio's thread.
    """

    def __init__(self, save: Callable[[], Awaitable[object]], seconds: float) -> None:
        self._save = save
        self._seconds = seconds
        self._changed = trio.Event()
        self._saving = trio.Lock()

    def changed(self) -> None:
        """There is something to save."""
        self._changed.set()

    async def run(self) -> None:
        """Save what changes, for ever."""
        while True:
            await self._changed.wait()
            try:
                await self.now()
            except Exception:
                # H4: nothing unexpected ends the mount. The next change saves this as well.
                log.exception("unexpected error while saving to the index")
            await trio.sleep(self._seconds)

    async def now(self) -> None:
        """Save all that isn't saved."""
        async with self._saving:
            self._changed = trio.Event()
            await self._save()


def drop_saved(unsaved: dict[K, V], saved: dict[K, V]) -> None:
    """Drop from *unsaved* what was *saved*, unless it has changed meanwhile."""
    for key, value in saved.items():
        if key in unsaved and unsaved[key] == value:
            del unsaved[key]
