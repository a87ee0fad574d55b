"""The archive that a game folder must give, from DESIGN.md and APPNOTE.TXT alone.

Nothing of zipfs is imported, here or in :mod:`tests.reference`, so an error there can't hide here.
Archives of any size are answered as slices and digests; no more than a piece is ever in memory.
"""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

from tests.reference import File, archive

PIECE: Final = 1 << 20
ZEROS: Final = bytes(PIECE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """What the archive must say of one file; *mtime* in Unix seconds."""

    name: str
    size: int
    mtime: int
    crc32: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """The content of one file."""

    path: Path
    size: int


HIDDEN: Final = ".fuse_hidden"
"""How libfuse begins the name of a deleted file that is still open, which is no member."""


class Expected:
    """The archive of the game in *folder*, as it is now."""

    def __init__(self, folder: Path) -> None:
        # "The ZIP": by base name, then by path, bytewise.
        paths = sorted(
            (
                path
                for path in folder.rglob("*")
                if path.is_file() and not path.name.startswith(HIDDEN)
            ),
            key=lambda path: (
                os.fsencode(path.name),
                os.fsencode(path.relative_to(folder)),
            ),
        )
        self.members = [
            Member(
                name=path.relative_to(folder).as_posix(),
                size=path.stat().st_size,
                mtime=path.stat().st_mtime_ns // 1_000_000_000,
                crc32=crc32_of(path),
            )
            for path in paths
        ]
        pieces = archive(
            [
                File(
                    name=member.name.encode(),
                    data=member.size,
                    mtime=member.mtime,
                    checksum=member.crc32,
                )
                for member in self.members
            ]
        ).pieces
        left = iter(paths)
        # Between the records there may be others, which are empty here.
        self._parts = [
            Data(path=next(left), size=piece) if isinstance(piece, int) else piece
            for piece in pieces
            if piece != b""
        ]
        lengths = [part.size if isinstance(part, Data) else len(part) for part in self._parts]
        self._starts = list(accumulate(lengths, initial=0))
        self.size = self._starts.pop()
        headers_and_data = 2 * len(paths)
        self.directory_offset = self._starts[headers_and_data]

    @property
    def boundaries(self) -> list[int]:
        """Where a header, a member's data, the central directory or its end begins."""
        return self._starts

    def __getitem__(self, wanted: slice) -> bytes:
        start, stop, _ = wanted.indices(self.size)
        return b"".join(self.pieces(start, stop))

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from *start* to *stop*, in pieces of moderate size."""
        stop = self.size if stop is None else stop
        for number in range(bisect_right(self._starts, start) - 1, len(self._parts)):
            part, at = self._parts[number], self._starts[number]
            if at >= stop:
                return
            first = max(start - at, 0)
            if isinstance(part, Data):
                yield from _content(part.path, first, min(part.size, stop - at))
            else:
                yield part[first : stop - at]

    def sha256(self, start: int = 0) -> str:
        """Of all from *start* on."""
        digest = hashlib.sha256()
        for piece in self.pieces(start):
            digest.update(piece)
        return digest.hexdigest()

    def write(self, path: Path, stop: int) -> None:
        """The first *stop* bytes into a file, without space for what is all zeros."""
        with path.open("wb") as stream:
            for piece in self.pieces(0, stop):
                if piece == ZEROS:
                    stream.seek(len(piece), os.SEEK_CUR)
                else:
                    stream.write(piece)
            stream.truncate(stop)


def _content(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """What a file holds; of its holes without reading them, which is several times as fast."""
    with path.open("rb", buffering=0) as stream:
        while start < stop:
            data = _next_data(stream.fileno(), start, stop)
            while start < data:
                yield ZEROS[: data - start]
                start += min(len(ZEROS), data - start)
            hole = os.lseek(stream.fileno(), start, os.SEEK_HOLE) if start < stop else stop
            stream.seek(start)
            while start < min(hole, stop):
                piece = stream.read(min(PIECE, hole - start, stop - start))
                if not piece:
                    raise EOFError(f"{path} is shorter than it was")
                yield piece
                start += len(piece)


def _next_data(descriptor: int, start: int, stop: int) -> int:
    try:
        return min(os.lseek(descriptor, start, os.SEEK_DATA), stop)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole from here to the end
            return stop
        raise


def crc32_of(path: Path) -> int:
    crc = 0
    for piece in _content(path, 0, path.stat().st_size):
        crc = zlib.crc32(piece, crc)
    return crc


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    for piece in _content(path, 0, path.stat().st_size):
        digest.update(piece)
    return digest.hexdigest()
