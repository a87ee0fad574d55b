"""RomM's ``config.yml`` on disk: read at the start, and again when it changes.

Its state is polled every second, as some file systems send no events (NFS, a folder of a
container). RomM rewrites the file in place, so it is read when two polls in a row find the same
new state. A file that can't be used changes nothing, and is logged once.
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

POLL_SECONDS: Final = 1.0
"""Seconds between two polls."""


def _state(path: str) -> FileState | str:
    """The file's state, or why it can't be read; accesses the disk."""
    try:
        return FileState.of(os.stat(path))
    except OSError as error:
        return error.strerror or str(error)


class RommConfig:
    """Polls the file at *path*, None for none; *adopt* is called with changed rules."""

    def __init__(
        self, path: str | None, rules: Rules | None, adopt: Callable[[Rules], Awaitable[None]]
    ) -> None:
        self._path = path
        self._rules = rules
        self._adopt = adopt
        self._now = trio.Event()
        self._logged = ""

    def reread(self) -> None:
        """Read the file now, even if its state is the same."""
        self._now.set()

    async def follow(self) -> None:
        """Read the file when it changes, for ever."""
        if self._path is None:
            return
        # The first poll reads it again: it may have changed since the start.
        known: FileState | str = ""
        before: FileState | str = ""
        while True:
            with trio.move_on_after(POLL_SECONDS):
                await self._now.wait()
            forced = self._now.is_set()
            self._now = trio.Event()
            # Abandoned if its disk doesn't answer.
            state = await trio.to_thread.run_sync(_state, self._path, abandon_on_cancel=True)
            if forced or (state == before and state != known):
                known = state
                await self._read(self._path)
            before = state

    async def _read(self, path: str) -> None:
        try:
            rules = await trio.to_thread.run_sync(load_rules, path, abandon_on_cancel=True)
            if rules != self._rules:
                log.info("RomM's config %s has changed; rescanning all games", path)
                self._rules = rules
                await self._adopt(rules)
            self._logged = ""
        except ConfigError as error:
            if str(error) != self._logged:
                self._logged = str(error)
                log.warning("%s; its previous content stays in force", error)
        except Exception:
            # H4: nothing unexpected ends the mount.
            log.exception("unexpected error while reading the RomM config")
