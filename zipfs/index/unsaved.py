"""Checksums on their way into the index."""

from __future__ import annotations

import time
from typing import Final

import trio

from zipfs.index.index import Index
from zipfs.index.tables import Record
from zipfs.library.filestate import Checksums
from zipfs.library.scan import SourceFile
from zipfs.system.lanes import Threads

_SAVE_COUNT: Final = 1000
_SAVE_SECONDS: Final = 2.0


class Unsaved:
    """Checksums on their way into *index*, saved in batches: the last may be lost in a crash."""

    def __init__(self, index: Index) -> None:
        self._index = index
        # Of its own, and patient: what is saved must not wait for the library's disk.
        self._in_thread = Threads(1).run
        self._records: dict[bytes, Record] = {}
        self._saved_at = time.monotonic()
        self._saving = trio.Lock()

    async def keep(self, file: SourceFile, checksums: Checksums) -> None:
        """Take the *checksums* of *file*; save all if they are many, or old."""
        self._records[file.source] = (file.state, checksums)
        old = time.monotonic() - self._saved_at > _SAVE_SECONDS
        if old or len(self._records) >= _SAVE_COUNT:
            await self.save()

    def holds(self, file: SourceFile) -> bool:
        """Whether the checksums of *file*, in its state, are among them."""
        record = self._records.get(file.source)
        return record is not None and record[0] == file.state

    async def save(self) -> None:
        """Save what isn't in the index yet; games that ask at the same time are one write."""
        async with self._saving:
            self._saved_at = time.monotonic()
            if not (records := dict(self._records)):
                return
            await self._in_thread(self._index.put_files, records)
            # Only now: whoever looks meanwhile must find them here or there.
            for source, record in records.items():
                if self._records.get(source) is record:
                    del self._records[source]
