"""RomM's ``config.yml`` on disk: read at the start, and again when it changes.

Its state is looked at every few seconds, which works where no events come from (NFS, a
folder of a container). RomM rewrites the file in place, so a state counts only once it
was seen twice. A file that can't be used changes nothing; the log says so once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from zipfs.errors import ConfigError
from zipfs.library.filestate import FileState
from zipfs.library.policy import load_rules
from zipfs.library.rules.romm import Rules

log = logging.getLogger(__name__)

LOOK: Final = 1.0
"""Seconds between two looks at the file."""


def _state(path: str) -> FileState | str:
    """What tells of a change; touches the disk."""
    try:
        return FileState.of(os.stat(path))
    except OSError as error:
        return error.strerror or str(error)


class RommConfig:
    """Follows the file at *path*; None: there is none. *adopt* is told of other rules."""

    def __init__(
        self, path: str | None, rules: Rules | None, adopt: Callable[[Rules], Awaitable[None]]
    ) -> None:
        self._path = path
        self._rules = rules
        self._adopt = adopt
        self._now = trio.Event()
        self._said = ""

    def reread(self) -> None:
        """Read it now, whether it seems to have changed or not."""
        self._now.set()

    async def follow(self) -> None:
        """Read it when it changes, for ever."""
        if self._path is None:
            return
        # The first is read again: it may have changed since the start.
        known: FileState | str = ""
        before: FileState | str = ""
        while True:
            with trio.move_on_after(LOOK):
                await self._now.wait()
            told = self._now.is_set()
            self._now = trio.Event()
            # Left behind if its disk doesn't answer: nothing else waits for it.
            state = await trio.to_thread.run_sync(_state, self._path, abandon_on_cancel=True)
            if told or (state == before and state != known):
                known = state
                await self._read(self._path)
            before = state

    async def _read(self, path: str) -> None:
        try:
            rules = await trio.to_thread.run_sync(load_rules, path, abandon_on_cancel=True)
            if rules != self._rules:
                log.info("RomM's config %s has changed; looking at all games again", path)
                self._rules = rules
                await self._adopt(rules)
            self._said = ""
        except ConfigError as error:
            if str(error) != self._said:
                self._said = str(error)
                log.warning("%s; what it said before holds", error)
        except Exception:
            # H4: nothing unexpected ends the mount.
            log.exception("unexpected error while reading the RomM config")
