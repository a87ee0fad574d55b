"""The buffers of reads: used again, and the system's again once fewer are in use at a time."""

from __future__ import annotations

from typing import Final

BUFFER: Final = 1 << 20
"""Bytes of a read buffer, the kernel's largest request (256 pages)."""
_MOST: Final = 16


class Buffers:
    """Buffers of :data:`BUFFER` bytes, of which those not in use are kept, up to a limit.

    To make one costs a page fault for each page of it.
    """

    def __init__(self) -> None:
        self._kept: list[memoryview] = []
        self._fewest = 0
        """Of those kept, so many weren't used since the last :meth:`trim`."""

    def __len__(self) -> int:
        return len(self._kept)

    def take(self) -> memoryview:
        if not self._kept:
            return memoryview(bytearray(BUFFER))
        taken = self._kept.pop()
        self._fewest = min(self._fewest, len(self._kept))
        return taken

    def give(self, view: memoryview) -> None:
        """Use the buffer again that *view* is the beginning of; larger ones are given up."""
        buffer = memoryview(view.obj)
        if len(buffer) == BUFFER and len(self._kept) < _MOST:
            self._kept.append(buffer)

    def trim(self) -> None:
        """Give up one of those that weren't used since the last call."""
        if self._fewest:
            del self._kept[0]
        self._fewest = len(self._kept)
