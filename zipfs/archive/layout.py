"""Where each byte of an archive comes from: one table of segments.

An archive of n members has 2n + 1 segments: header, data, header, data, ..., and last the
central directory with its end records. ``_starts`` holds the offset at which each begins and,
after the last one, the archive's size. Both the size and the bytes of any range come from this
one table, so they can't disagree (DESIGN B3). An offset is found by bisection.

Pure: headers are computed in advance; data are references (source, offset, length), which the
caller reads. Members with generated content (a playlist) are *inline*: their data are held
here, like a header. So are folders, whose content is empty.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from zipfs.archive.records import Member, central_header, end_records, local_header
from zipfs.errors import LayoutError

_MAX_DATA = 1 << 62
"""Limit of all data, in bytes: off_t(3type) ends at 2**63, which leaves room for headers."""


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a range that is in a source: *length* bytes at *offset* in it.

    Sources are the members that aren't inline, numbered from 0 in their order.
    """

    source: int
    offset: int
    length: int


Piece = memoryview | Data
"""A piece of a range: bytes of headers or inline members, or a stretch of a source."""


class Layout:
    """The archive of *members*, in their order; immutable.

    *inline* has the content of the inline members, by member number. Raises
    :exc:`LayoutError` if two members have the same name (readers differ in which of the two
    they show), a file and a folder included, or if the archive is larger than a file can be;
    :exc:`ValueError` if an inline content doesn't have its member's size and CRC-32.
    """

    __slots__ = ("_directory", "_headers", "_sources", "_starts", "inline", "members", "size")

    def __init__(
        self, members: Iterable[Member], inline: Mapping[int, bytes] | None = None
    ) -> None:
        self.members = tuple(members)
        folders = [number for number, member in enumerate(self.members) if member.is_folder]
        self.inline: Mapping[int, bytes] = dict.fromkeys(folders, b"") | dict(inline or {})
        for number, content in self.inline.items():
            member = self.members[number]
            if (member.size, member.crc32) != (len(content), zlib.crc32(content)):
                raise ValueError(f"the content of {member.name!r} isn't the member's")
        names = {member.name for member in self.members}
        names.difference_update([self.members[number].name[:-1] for number in folders])
        if len(names) != len(self.members):
            raise LayoutError("two members of the archive have the same name")
        starts = array("Q")
        headers = []
        directory = []
        offset = 0
        if sum(member.size for member in self.members) >= _MAX_DATA:
            raise LayoutError("the archive is larger than a file can be")
        for member in self.members:
            header = local_header(member)
            headers.append(header)
            directory.append(central_header(member, offset))
            starts.append(offset)
            offset += len(header)
            starts.append(offset)
            offset += member.size
        central = b"".join(directory)
        starts.append(offset)
        central += end_records(len(self.members), offset, len(central))
        starts.append(offset + len(central))
        self._starts = starts
        self._sources = self._number_sources()
        self._headers = tuple(headers)
        self._directory = central
        self.size = starts[-1]

    def _number_sources(self) -> array[int] | None:
        """The source of each member, -1 if inline; None: each member's own number."""
        if not self.inline:
            return None
        numbers = array("q")
        source = 0
        for member in range(len(self.members)):
            numbers.append(-1 if member in self.inline else source)
            source += member not in self.inline
        return numbers

    def source_of(self, member: int) -> int | None:
        """The source with the data of the member with this number; None if it is inline."""
        if self._sources is None:
            return member
        source = self._sources[member]
        return None if source < 0 else source

    @property
    def headers(self) -> tuple[bytes, ...]:
        """The local file headers, one a member."""
        return self._headers

    @property
    def metadata_size(self) -> int:
        """Approximate memory use of headers, directory and inline data, in bytes."""
        held = (*self._headers, self._directory, *self.inline.values())
        return sum(map(len, held)) + 8 * len(self._starts)

    def header_offset(self, member: int) -> int:
        """Offset of the local file header of the member with this index."""
        return self._starts[2 * member]

    def data_offset(self, member: int) -> int:
        """Offset of the first byte of data of the member with this index."""
        return self._starts[2 * member + 1]

    def plan(self, offset: int, length: int) -> Iterator[Piece]:
        """The pieces that make up ``archive[offset:offset + length]``, in order.

        No piece is empty; a range beyond the end is cut off, as in a slice. Raises
        :exc:`ValueError` for a negative offset or length.
        """
        if offset < 0 or length < 0:
            raise ValueError(f"no such range: {length} bytes at {offset}")
        end = min(offset + length, self.size)
        directory = len(self._starts) - 2
        segment = bisect_right(self._starts, offset) - 1
        while offset < end:
            start, stop = self._starts[segment], self._starts[segment + 1]
            until = min(stop, end)
            if until > offset:
                if segment == directory:
                    yield memoryview(self._directory)[offset - start : until - start]
                elif segment % 2 == 0:
                    header = self._headers[segment // 2]
                    yield memoryview(header)[offset - start : until - start]
                elif (source := self.source_of(segment // 2)) is not None:
                    yield Data(source, offset - start, until - offset)
                else:
                    content = self.inline[segment // 2]
                    yield memoryview(content)[offset - start : until - start]
                offset = until
            segment += 1

    def locate(self, offset: int, length: int) -> tuple[int, int] | None:
        """Source and offset in it of a range that lies in one source's data; else None.

        Most ranges that are read do; this is faster than :meth:`plan`.
        """
        segment = bisect_right(self._starts, offset) - 1
        if segment % 2 == 0 or offset + length > self._starts[segment + 1]:
            return None
        source = segment >> 1
        if self._sources is not None and (source := self._sources[source]) < 0:
            return None
        return source, offset - self._starts[segment]


def fill(
    plan: Iterable[Piece], view: memoryview, read: Callable[[int, int, memoryview], int]
) -> int:
    """Write the pieces of *plan* into *view*, one after the other; returns the bytes written.

    ``read(source, offset, part)`` fills the beginning of *part* from *offset* of a source, and
    returns how many bytes it has filled; after a short count nothing more is written.
    """
    filled = 0
    for piece in plan:
        if isinstance(piece, Data):
            end = filled + piece.length
            filled += read(piece.source, piece.offset, view[filled:end])
            if filled < end:
                break
        else:
            end = filled + len(piece)
            view[filled:end] = piece
            filled = end
    return filled
