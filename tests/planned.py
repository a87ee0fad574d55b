"""An archive as zipfs plans it, as a file: for readers that seek, and of any size.

Nothing is stored: the metadata come out of the layout, the data from whoever knows them.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator, Sequence

from zipfs.archive.layout import Data, Layout

Content = Callable[[Data], bytes]


def zeros(piece: Data) -> bytes:
    """The data of members that are all zeros."""
    return bytes(piece.length)


def held(contents: Sequence[bytes]) -> Content:
    """The data of members that are kept in memory."""
    return lambda piece: contents[piece.source][piece.offset : piece.offset + piece.length]


class PlannedArchive(io.RawIOBase):
    """The archive of *layout*, a seekable file; *content* gives the members' data."""

    def __init__(self, layout: Layout, content: Content = zeros) -> None:
        super().__init__()
        self.size = layout.size
        self._layout = layout
        self._content = content
        self._position = 0

    def read_at(self, offset: int, length: int) -> bytes:
        return b"".join(
            self._content(piece) if isinstance(piece, Data) else piece
            for piece in self._layout.plan(offset, length)
        )

    def chunks(self, length: int) -> Iterator[bytes]:
        """All its bytes, *length* at a time."""
        for offset in range(0, self.size, length):
            yield self.read_at(offset, length)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
