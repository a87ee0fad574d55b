"""Checksums that aren't in the index yet."""

from __future__ import annotations

import time
from typing import Final

from zipfs.index.index import Index
from zipfs.index.tables import Record
from zipfs.library.filestate import Checksums
from zipfs.library.scan import SourceFile
from zipfs.system.lanes import Threads

_SAVE_COUNT: Final = 1000
_SAVE_SECONDS: Final = 2.0


class Unsaved:
    """Checksums to be saved to *index*, in batches."""

    def __init__(self, index: Index) -> None:
        self._index = index
        # A thread of its own, without a time limit: saving must not wait for the library's disk.
        self._in_thread = Threads(1).run
        self._records: dict[bytes, Record] = {}
        self._saved_at = time.monotonic()

    def add(self, file: SourceFile, checksums: Checksums) -> None:
        self._records[file.source] = (file.state, checksums)

    def holds(self, file: SourceFile) -> bool:
        """Whether the checksums of *file*, in its state, are among them."""
        record = self._records.get(file.source)
        return record is not None and record[0] == file.state

    @property
    def due(self) -> bool:
        """Whether there are enough of them, or they are old enough, to be saved now."""
        old = time.monotonic() - self._saved_at > _SAVE_SECONDS
        return old or len(self._records) >= _SAVE_COUNT

    async def save(self) -> None:
        records = dict(self._records)
        self._saved_at = time.monotonic()
        if not records:
            return
        await self._in_thread(self._index.put_files, records)
        # Only now, so that every reader finds them here or in the index.
        for source, record in records.items():
            if self._records.get(source) is record:
                del self._records[source]
