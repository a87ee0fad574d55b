"""Checksums that aren't in the index yet."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Final

import trio

from zipfs.index.index import Index
from zipfs.index.rows import Record
from zipfs.library.filestate import Checksums
from zipfs.library.scan import SourceFile
from zipfs.system.threads.lanes import Threads

log = logging.getLogger(__name__)

_SAVE_COUNT: Final = 1000
_SAVE_SECONDS: Final = 2.0


class Unsaved:
    """Checksums to be saved to *index*, in batches: a crash loses the last batch."""

    def __init__(self, index: Index) -> None:
        self._index = index
        # A thread of its own, without a time limit: saving must not wait for the library's disk.
        self._in_thread = Threads(1).run
        self._records: dict[bytes, Record] = {}
        self._saved_at = time.monotonic()
        self._saving = trio.Lock()
        self._left = trio.Event()

    async def run(self) -> None:
        """Save what nobody waits for (:meth:`save_soon`), for ever."""
        while True:
            await self._left.wait()
            self._left = trio.Event()
            try:
                await self.save()
            except Exception:
                # H4: nothing unexpected ends the mount.
                log.exception("unexpected error while saving checksums")

    def save_soon(self) -> None:
        """Whoever had files hashed doesn't wait for that any more."""
        self._left.set()

    async def keep(self, file: SourceFile, checksums: Checksums) -> None:
        """Add the *checksums* of *file*; saves all if there are many, or the last save is old."""
        self._records[file.source] = (file.state, checksums)
        old = time.monotonic() - self._saved_at > _SAVE_SECONDS
        if old or len(self._records) >= _SAVE_COUNT:
            await self.save()

    def holds(self, file: SourceFile) -> bool:
        """Whether the checksums of *file*, in its state, are among them."""
        record = self._records.get(file.source)
        return record is not None and record[0] == file.state

    async def forget(self, digests: Mapping[bytes, bytes]) -> None:
        """Forget the checksums of each source, saved or not, if its XXH3-128 is the one given."""
        async with self._saving:
            for source, digest in digests.items():
                record = self._records.get(source)
                if record and record[1].digest == digest:
                    del self._records[source]
            await self._in_thread(self._index.forget_files, digests)

    async def save(self) -> None:
        """Save all; simultaneous calls share one write."""
        async with self._saving:
            self._saved_at = time.monotonic()
            if not (records := dict(self._records)):
                return
            await self._in_thread(self._index.put_files, records)
            # Only now, so that every reader finds them here or in the index.
            for source, record in records.items():
                if self._records.get(source) is record:
                    del self._records[source]
