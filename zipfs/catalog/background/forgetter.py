"""Checksums of files that are gone for long are forgotten: after each scan, some are looked for.

A file that isn't there now may be on a disk that is away, or come back: then its checksums save
reading it again. So the index has since when it is missing, and only after :data:`LONG` it is
forgotten. ``zipfs index --prune`` forgets all at once.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from zipfs.sealing.sealer import Sealer
from zipfs.system.threads.lanes import Threads

log = logging.getLogger(__name__)

LONG: Final = 30 * 86400
"""Seconds after which what is missing is forgotten."""


class Forgetter:
    """Goes through the files that the index of *sealer* has, some at a time."""

    def __init__(self, sealer: Sealer, threads: Threads) -> None:
        self._library = sealer.library
        self._index = sealer.index
        self._threads = threads
        self._after: bytes | None = b""

    async def some(self) -> None:
        """Look at some files, those that follow the last ones."""
        try:
            after = await self._threads.run(self._look, self._after or b"", lane="forgetter")
        except OSError:  # it doesn't answer, or is gone: then nothing is known
            return
        self._after = after

    def _look(self, after: bytes) -> bytes | None:
        """In a worker thread: where to continue. Raises :exc:`OSError`."""
        found, following = self._index.files_after(after)
        missing: list[bytes] = []
        there: list[bytes] = []
        with self._library.presence.asking(b"", inside=True) as asking:
            for path, _ in found:
                try:
                    is_missing = self._library.entry(path) is None
                except TimeoutError:
                    raise
                except OSError:
                    continue
                (missing if is_missing else there).append(path)
            asking.confirm()
        now = int(time.time())
        since = self._index.missing(missing + there)
        changes: dict[bytes, int | None] = {path: None for path in there if path in since}
        changes |= {path: now for path in missing if path not in since}
        # A clock that was set back says nothing.
        changes |= {path: now for path in missing if since.get(path, now) > now}
        if changes:
            self._index.put_missing(changes)
        if old := [path for path in missing if now - since.get(path, now) >= LONG]:
            self._index.prune(old, blocks=False)
            log.info("forgot the checksums of %d files that have been gone for long", len(old))
        return following
