"""Reading a file in order without changing which parts of it are in the page cache."""

from __future__ import annotations

from typing import Final

from zipfs.errors import ChangedError
from zipfs.system.syscalls import is_cached, pread, uncache

_AHEAD: Final = 8
"""Number of windows that are probed ahead. More than the kernel reads ahead (8 MiB on some disks),
so that pages of its read-ahead don't count as cached before."""


class CacheWindows:
    """Which windows of a file, of *window* bytes each, were cached before they were read here.

    *size* is the file's, in bytes. With *evict*, a window is evicted after it was probed, so
    that it is read from the disk. Each call can have another descriptor of the file.
    """

    def __init__(self, size: int, window: int, *, evict: bool = False) -> None:
        self._size = size
        self._window = window
        self._evict = evict
        self._cached: dict[int, bool] = {}
        """By number of the window."""

    def probe(self, descriptor: int, offset: int) -> None:
        """Probe the window at *offset* and those after it, except those probed before."""
        first = offset // self._window
        for number in range(first, first + _AHEAD):
            start = number * self._window
            end = min(start + self._window, self._size)
            if start < end and number not in self._cached:
                self._cached[number] = is_cached(descriptor, end - 1)
                if self._evict:
                    uncache(descriptor, start, end - start)

    def release(self, descriptor: int, offset: int, length: int) -> None:
        """Evict *length* bytes at *offset*, all in one window, unless that was cached."""
        if not self._cached.get(offset // self._window):
            uncache(descriptor, offset, length)


def fill(descriptor: int, buffer: memoryview, offset: int, length: int) -> None:
    """Read at least *length* bytes at *offset* to the start of *buffer*, which can be larger.

    Raises :exc:`ChangedError` if the file ends before, and :exc:`OSError`.
    """
    filled = 0
    while filled < length:
        count = pread(descriptor, buffer[filled:], offset + filled)
        if count == 0:
            raise ChangedError
        filled += count
