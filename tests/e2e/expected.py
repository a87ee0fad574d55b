"""The archive that a game folder must give, from DESIGN.md and APPNOTE.TXT alone.

Written a second time on purpose: nothing of zipfs is imported, so an error there can't hide here.
Archives of any size are answered as slices and digests; no more than a piece is ever in memory.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Final

PIECE: Final = 1 << 20
ZEROS: Final = bytes(PIECE)
FULL_16: Final = 0xFFFF
FULL_32: Final = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """What the archive must say of one file."""

    name: str
    path: Path
    size: int
    mtime: int
    crc32: int


class Expected:
    """The archive of the game in *folder*, as it is now."""

    def __init__(self, folder: Path) -> None:
        # "The ZIP": by base name, then by path, bytewise.
        paths = sorted(
            (path for path in folder.rglob("*") if path.is_file()),
            key=lambda path: (
                os.fsencode(path.name),
                os.fsencode(path.relative_to(folder)),
            ),
        )
        self.members = [
            Member(
                name=path.relative_to(folder).as_posix(),
                path=path,
                size=path.stat().st_size,
                mtime=path.stat().st_mtime_ns // 1_000_000_000,
                crc32=crc32_of(path),
            )
            for path in paths
        ]
        self._parts: list[bytes | Member] = []
        directory = []
        offset = 0
        for member in self.members:
            header = _local_header(member)
            directory.append(_central_header(member, offset))
            self._parts += [header, member]
            offset += len(header) + member.size
        self.directory_offset = offset
        central = b"".join(directory)
        self._parts.append(central + _end(len(self.members), offset, len(central)))
        lengths = [part.size if isinstance(part, Member) else len(part) for part in self._parts]
        self._starts = list(accumulate(lengths, initial=0))
        self.size = self._starts.pop()

    @property
    def boundaries(self) -> list[int]:
        """Where a header, a member's data or the central directory begins."""
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
            if isinstance(part, Member):
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


# ---------------------------------------------------------------- APPNOTE.TXT 6.3


def _common(member: Member, extra: bytes, *, large: bool) -> bytes:
    """What the local and the central header have in common, from the flags on (4.3.7)."""
    name = member.name.encode()
    moment = datetime.fromtimestamp(member.mtime, UTC)
    size = FULL_32 if large else member.size
    return struct.pack(
        "<HHHHIIIHH",
        0 if name.isascii() else 0x0800,  # bit 11: the name is UTF-8
        0,  # stored
        moment.hour << 11 | moment.minute << 5 | moment.second >> 1,
        (moment.year - 1980) << 9 | moment.month << 5 | moment.day,
        member.crc32,
        size,
        size,
        len(name),
        len(extra),
    )


def _zip64(*values: int) -> bytes:
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values) if values else b""


def _timestamp(member: Member) -> bytes:
    return struct.pack("<HHBi", 0x5455, 5, 1, member.mtime)


def _local_header(member: Member) -> bytes:
    large = member.size >= FULL_32
    extra = (_zip64(member.size, member.size) if large else b"") + _timestamp(member)
    fixed = b"PK\3\4" + struct.pack("<H", 45 if large else 20)
    return fixed + _common(member, extra, large=large) + member.name.encode() + extra


def _central_header(member: Member, offset: int) -> bytes:
    large, far = member.size >= FULL_32, offset >= FULL_32
    wide = [member.size, member.size] * large + [offset] * far
    extra = _zip64(*wide) + _timestamp(member)
    # Made by Unix to specification 6.3; a regular file, 0644.
    fixed = b"PK\1\2" + struct.pack("<BBH", 63, 3, 45 if wide else 20)
    rest = struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, FULL_32 if far else offset)
    name = member.name.encode()
    return fixed + _common(member, extra, large=large) + rest + name + extra


def _end(count: int, offset: int, size: int) -> bytes:
    wide = b""
    if count >= FULL_16 or offset >= FULL_32 or size >= FULL_32:
        wide = b"PK\6\6" + struct.pack("<QBBHII", 44, 63, 3, 45, 0, 0)
        wide += struct.pack("<QQQQ", count, count, size, offset)
        wide += b"PK\6\7" + struct.pack("<IQI", 0, offset + size, 1)
    narrow = min(count, FULL_16)
    return (
        wide
        + b"PK\5\6"
        + struct.pack("<HHHH", 0, 0, narrow, narrow)
        + struct.pack("<IIH", min(size, FULL_32), min(offset, FULL_32), 0)
    )
