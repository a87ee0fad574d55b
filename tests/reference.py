"""Archives written plainly from APPNOTE.TXT, to compare with and to damage.

No zipfs in here: what this writes is what DESIGN.md, "The ZIP", says, done a second time.
Any field can be given another value, so that a reader's strictness can be tested.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tests.strictzip import (
    CENTRAL,
    END,
    EXECUTABLE,
    FILE,
    FOLDER,
    LOCAL,
    LOCATOR,
    MADE_BY_UNIX,
    MAX_16,
    MAX_32,
    SIGNATURES,
    UTF8_FLAG,
    ZIP64_END,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A member to be. *data* as a number stands for so many zeros, or for data read elsewhere.

    A folder's name ends in ``/``, and it has no data.
    """

    name: bytes
    data: bytes | int = b""
    mtime: int = 1_600_000_000
    checksum: int = 0
    """The CRC-32, if *data* is a number: it isn't computed then."""
    executable: bool = False

    @property
    def is_folder(self) -> bool:
        return self.name.endswith(b"/")

    @property
    def attributes(self) -> int:
        return FOLDER if self.is_folder else EXECUTABLE if self.executable else FILE

    @property
    def size(self) -> int:
        return self.data if isinstance(self.data, int) else len(self.data)

    @property
    def crc32(self) -> int:
        return self.checksum if isinstance(self.data, int) else zlib.crc32(self.data)


class Pieces:
    """An archive out of pieces, each bytes or a number of zeros; readable at any offset."""

    def __init__(self, pieces: Sequence[bytes | int]) -> None:
        self.pieces = tuple(pieces)
        lengths = [piece if isinstance(piece, int) else len(piece) for piece in pieces]
        self._starts = list(accumulate(lengths, initial=0))
        self.size = self._starts.pop()

    def read_at(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        found = []
        number = bisect_right(self._starts, offset) - 1
        while offset < end:
            piece, start = self.pieces[number], self._starts[number]
            if isinstance(piece, int):
                part = bytes(max(0, min(start + piece, end) - offset))
            else:
                part = piece[offset - start : end - start]
            found.append(part)
            offset += len(part)
            number += 1
        return b"".join(found)

    def tobytes(self) -> bytes:
        return self.read_at(0, self.size)

    def metadata_offsets(self) -> list[int]:
        """The offset of each byte that isn't one of the zeros."""
        return [
            start + n
            for piece, start in zip(self.pieces, self._starts, strict=True)
            if isinstance(piece, bytes)
            for n in range(len(piece))
        ]


class Flipped:
    """*source* with the bits of *mask* inverted in the byte at *offset*."""

    def __init__(self, source: Pieces, offset: int, mask: int) -> None:
        self._source = source
        self._offset = offset
        self._mask = mask
        self.size = source.size

    def read_at(self, offset: int, length: int) -> bytes:
        data = bytearray(self._source.read_at(offset, length))
        if offset <= self._offset < offset + length:
            data[self._offset - offset] ^= self._mask
        return bytes(data)


Change = Mapping[str, int | bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What is to be otherwise than it should be; by default, nothing.

    The records' changes give fields another value, in every record of that kind; ``extra``
    replaces all extra fields, ``zip64`` asks for end records that a small archive doesn't
    need, or none for a large one. *between* goes behind each member's data.
    """

    local: Change | None = None
    central: Change | None = None
    end: Change | None = None
    zip64_end: Change | None = None
    locator: Change | None = None
    zip64: bool | None = None
    between: bytes = b""
    before_directory: bytes = b""
    after_directory: bytes = b""
    before_end: bytes = b""


NO_CHANGES = Changes()


def archive(files: Sequence[File], changes: Changes = NO_CHANGES) -> Pieces:
    """The archive of *files*, in their order."""
    pieces: list[bytes | int] = []
    entries = []
    offset = 0
    for file in files:
        header = _local_header(file, changes.local or {})
        entries.append(_central_header(file, offset, changes.central or {}))
        pieces += [header, file.data, changes.between]
        offset += len(header) + file.size + len(changes.between)
    directory = b"".join(entries)
    pieces += [changes.before_directory, directory, changes.after_directory]
    offset += len(changes.before_directory)
    size = len(directory) + len(changes.after_directory)
    pieces += [_end_records(len(files), offset, size, changes), changes.before_end]
    pieces.append(
        _pack("end", END, _directory(min(len(files), MAX_16), size, offset), changes.end or {})
    )
    return Pieces(pieces)


def _pack(kind: str, fields: Mapping[str, str], values: Change, changes: Change) -> bytes:
    known = {"signature": SIGNATURES[kind]} | dict.fromkeys(fields, 0) | dict(values)
    known["signature"] = SIGNATURES[kind]
    known |= {field: value for field, value in changes.items() if field in fields}
    return struct.pack("<" + "".join(fields.values()), *(known[field] for field in fields))


def dos_date_time(mtime: int) -> tuple[int, int]:
    """DOS date and time of *mtime*, by arithmetic on days and not by a library's calendar."""
    days, seconds = divmod(max(315532800, min(mtime, 4354819198)), 86400)
    year, month, day = _civil(days)
    date = (year - 1980) << 9 | month << 5 | day
    return date, seconds // 3600 << 11 | seconds // 60 % 60 << 5 | seconds % 60 // 2


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of the Gregorian calendar, *days* after 1970-01-01.

    Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms": years begin
    in March, so that the leap day is the last of its year.
    """
    era, day_of_era = divmod(days + 719468, 146097)
    year_of_era = (
        day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096
    ) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    return year_of_era + era * 400 + (month <= 2), month, day


def timestamp(mtime: int) -> bytes:
    """The extra field 0x5455, where every reader takes the time for what it is."""
    fits = 0 <= mtime < 1 << 31
    return struct.pack("<HHBi", 0x5455, 5, 1, mtime) if fits else b""


def zip64(*values: int) -> bytes:
    """The extra field 0x0001 with *values*, if there are any."""
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values) if values else b""


def _common(file: File, changes: Change, *wide: int) -> tuple[dict[str, int | bytes], bytes]:
    """What both headers have in common, and what follows their fixed part."""
    date, time = dos_date_time(file.mtime)
    extra = changes.get("extra", zip64(*wide) + timestamp(file.mtime))
    name = changes.get("name", file.name)
    assert isinstance(extra, bytes)
    assert isinstance(name, bytes)
    return {
        "version made by": MADE_BY_UNIX,
        "version needed": 45 if wide else 20,
        "flags": 0 if name.isascii() else UTF8_FLAG,
        "time": time,
        "date": date,
        "crc-32": file.crc32,
        "compressed size": min(file.size, MAX_32),
        "uncompressed size": min(file.size, MAX_32),
        "name length": len(name),
        "extra length": len(extra),
    }, name + extra


def _local_header(file: File, changes: Change) -> bytes:
    sizes = [file.size] * 2 if file.size >= MAX_32 else []
    values, variable = _common(file, changes, *sizes)
    del values["version made by"]
    return _pack("local", LOCAL, values, changes) + variable


def _central_header(file: File, offset: int, changes: Change) -> bytes:
    wide = [file.size] * 2 if file.size >= MAX_32 else []
    wide += [offset] if offset >= MAX_32 else []
    values, variable = _common(file, changes, *wide)
    values |= {"external attributes": file.attributes, "offset": min(offset, MAX_32)}
    return _pack("central", CENTRAL, values, changes) + variable


def _directory(count: int, size: int, offset: int) -> Change:
    return {
        "entries on disk": count,
        "entries": count,
        "directory size": min(size, MAX_32),
        "directory offset": min(offset, MAX_32),
    }


def _end_records(count: int, offset: int, size: int, changes: Changes) -> bytes:
    """The ZIP64 end record and its locator, where they are needed."""
    needed = count >= MAX_16 or max(offset, size) >= MAX_32
    if not (needed if changes.zip64 is None else changes.zip64):
        return b""
    values: Change = {
        "record size": 44,
        "version made by": MADE_BY_UNIX,
        "version needed": 45,
        "entries on disk": count,
        "entries": count,
        "directory size": size,
        "directory offset": offset,
    }
    place: Change = {"end record offset": offset + size, "disks": 1}
    return _pack("zip64 end", ZIP64_END, values, changes.zip64_end or {}) + _pack(
        "locator", LOCATOR, place, changes.locator or {}
    )
