"""PKZIP records as bytes. Pure.

An archive of zipfs is, in the order of APPNOTE.TXT 6.3.10 section 4.3.6::

    local file header 1, data 1, ..., local file header n, data n,
    central directory header 1 ... n,
    [ZIP64 end of central directory record and locator,]
    end of central directory record

Rules, each of them part of the format version (DESIGN B2, B4):

- Members are STORED; their CRC-32 and sizes are in the local header, so there is never a data
  descriptor, and streaming readers can rely on the header.
- Bit 11 is set if and only if the name isn't ASCII.
- The 0x5455 field has the modification time in seconds if it is one of 1970 to 2038; DOS time,
  in UTC, has it to two seconds for readers without that field.
- ZIP64 is used exactly where a field overflows, decided for each record by itself.
- An entry whose name ends in ``/`` is an empty folder: it has no data, and the attributes of a
  folder for Unix and for MS-DOS.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

FORMAT_VERSION: Final = 1
"""Part of every content id (DESIGN B4).

Incremented with a change of the bytes that the same members give, if local headers don't show
it: they are part of the content id themselves. Without a date before 1970 and without empty
folders or execute bits, archives are as they were before there were rules for those, so these
rules didn't raise it.
"""

# Signatures, APPNOTE 4.3.7, 4.3.12, 4.3.14, 4.3.15, 4.3.16.
LOCAL_HEADER_SIGNATURE: Final = 0x04034B50
CENTRAL_HEADER_SIGNATURE: Final = 0x02014B50
ZIP64_END_SIGNATURE: Final = 0x06064B50
ZIP64_LOCATOR_SIGNATURE: Final = 0x07064B50
END_SIGNATURE: Final = 0x06054B50

# The values that refer to the ZIP64 record, 4.4.8, 4.4.9, 4.4.16, 4.4.22: a field holds at most
# one less.
MAX_32: Final = 0xFFFFFFFF
MAX_16: Final = 0xFFFF

MAX_NAME: Final = MAX_16
"""Longest name in bytes: its length is a 16-bit field (4.4.10)."""

_VERSION_STORED: Final = 20  # 4.4.3.2: 2.0, as nearly every writer has it
_VERSION_ZIP64: Final = 45  # 4.4.3.2: 4.5, "file uses ZIP64 format extensions"
_MADE_BY: Final = 3 << 8 | 63  # 4.4.2: host system 3 (UNIX), specification 6.3
_FLAG_UTF8: Final = 1 << 11  # 4.4.4, bit 11: name and comment are UTF-8
_STORED: Final = 0  # 4.4.5

# 4.4.15: by the host system of 4.4.2, for UNIX st_mode in the upper half; the low byte is that of
# MS-DOS on any host.
_FILE: Final = 0o100644 << 16  # a regular file, rw-r--r--
_EXECUTABLE: Final = 0o100755 << 16
_FOLDER: Final = 0o040755 << 16 | 0x10  # MS-DOS: a directory

_ZIP64_EXTRA: Final = 0x0001  # 4.5.3
_TIMESTAMP_EXTRA: Final = 0x5455  # 4.6.1; Info-ZIP's extrafld.txt, "extended timestamp"
_TIMESTAMP_HAS_MTIME: Final = 1

_LOCAL: Final = struct.Struct("<IHHHHHIIIHH")  # 4.3.7
_CENTRAL: Final = struct.Struct("<IHHHHHHIIIHHHHHII")  # 4.3.12
_END: Final = struct.Struct("<IHHHHIIH")  # 4.3.16
_ZIP64_END: Final = struct.Struct("<IQHHIIQQQQ")  # 4.3.14
_ZIP64_LOCATOR: Final = struct.Struct("<IIQI")  # 4.3.15
_TIMESTAMP: Final = struct.Struct("<HHBi")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DOS_MIN: Final = 315532800
"""1980-01-01 00:00:00 UTC, the earliest DOS time (Unix seconds)."""
DOS_MAX: Final = 4354819198
"""2107-12-31 23:59:58 UTC, the latest DOS time (Unix seconds)."""
TIMESTAMP_MAX: Final = (1 << 31) - 1
"""The latest time of the 0x5455 field (Unix seconds); the earliest one in use is 0.

The field is signed, but 7-Zip reads it as unsigned: 1969 would be 2106.
"""


def archive_time(mtime: int) -> int:
    """The time that an archive states for a member modified at *mtime*; both in Unix seconds.

    Times that an archive can't distinguish give the same value, so that everything derived
    from it changes only with the bytes (DESIGN V2). It is exact from 1970 to 2038, where
    there is a 0x5455 field; else there is only DOS time, which counts in steps of two seconds,
    begins in 1980 and ends in 2107.
    """
    if 0 <= mtime <= TIMESTAMP_MAX:
        return mtime
    return max(DOS_MIN, min(mtime, DOS_MAX)) & ~1


def dos_date_time(mtime: int) -> tuple[int, int]:
    """DOS date and time of *mtime* (Unix seconds) in UTC, clamped to 1980-2107.

    APPNOTE 4.4.6. Computed in UTC, independent of the local time zone (DESIGN B1).
    """
    moment = _EPOCH + timedelta(seconds=max(DOS_MIN, min(mtime, DOS_MAX)))
    date = (moment.year - 1980) << 9 | moment.month << 5 | moment.day
    return date, moment.hour << 11 | moment.minute << 5 | moment.second // 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One file or empty folder in an archive, with all fields of its headers.

    *name* is the entry name in UTF-8 with ``/`` as separator, and at the end of a folder's.
    *size* is in bytes, *mtime* in Unix seconds as :func:`archive_time` returns them. Raises
    :exc:`ValueError` for values that no header can hold, and for a name that is absolute or has
    an empty component, ``.`` or ``..``: APPNOTE 4.4.17.1 forbids the first, and the others are
    unsafe to unpack.
    """

    name: bytes
    size: int
    mtime: int
    crc32: int
    executable: bool = False

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= MAX_NAME:
            raise ValueError(f"a name has 1 to {MAX_NAME} bytes, not {len(self.name)}")
        path = b"/%b" % self.name if self.is_folder else b"/%b/" % self.name
        if b"//" in path or b"/./" in path or b"/../" in path:
            raise ValueError(f"{self.name!r} isn't the relative path of a file or folder")
        if self.is_folder and (self.size or self.crc32 or self.executable):
            raise ValueError(f"the folder {self.name!r} can't have data")
        if not 0 <= self.size < 1 << 63:
            raise ValueError(f"a size is 0 to 2**63 - 1, not {self.size}")
        if not 0 <= self.crc32 <= MAX_32:
            raise ValueError(f"a CRC-32 has 32 bits, {self.crc32:#x} doesn't fit")
        if self.mtime != archive_time(self.mtime):
            raise ValueError(f"no archive can state the time {self.mtime}")

    @property
    def is_folder(self) -> bool:
        return self.name.endswith(b"/")

    @property
    def attributes(self) -> int:
        """The external file attributes, APPNOTE 4.4.15."""
        if self.executable:
            return _EXECUTABLE
        return _FOLDER if self.is_folder else _FILE


def _flags(name: bytes) -> int:
    return 0 if name.isascii() else _FLAG_UTF8


def _timestamp(mtime: int) -> bytes:
    if not 0 <= mtime <= TIMESTAMP_MAX:
        return b""
    return _TIMESTAMP.pack(_TIMESTAMP_EXTRA, 5, _TIMESTAMP_HAS_MTIME, mtime)


def local_header(member: Member) -> bytes:
    """The local file header of *member*, APPNOTE 4.3.7.

    4.5.3: the ZIP64 field of a local header must hold both sizes; as members are STORED, both
    are equal.
    """
    large = member.size >= MAX_32
    extra = _timestamp(member.mtime)
    if large:
        extra = struct.pack("<HHQQ", _ZIP64_EXTRA, 16, member.size, member.size) + extra
    date, time = dos_date_time(member.mtime)
    size = MAX_32 if large else member.size
    fixed = _LOCAL.pack(
        LOCAL_HEADER_SIGNATURE,
        _VERSION_ZIP64 if large else _VERSION_STORED,
        _flags(member.name),
        _STORED,
        time,
        date,
        member.crc32,
        size,
        size,
        len(member.name),
        len(extra),
    )
    return fixed + member.name + extra


def central_header(member: Member, offset: int) -> bytes:
    """The central directory header of *member*, whose local header is at *offset*.

    APPNOTE 4.3.12. 4.5.3: here the ZIP64 field holds only the values whose own fields overflow,
    in a fixed order.
    """
    large = member.size >= MAX_32
    far = offset >= MAX_32
    wide = b""
    if large:
        wide += struct.pack("<QQ", member.size, member.size)
    if far:
        wide += struct.pack("<Q", offset)
    extra = _timestamp(member.mtime)
    if wide:
        extra = struct.pack("<HH", _ZIP64_EXTRA, len(wide)) + wide + extra
    date, time = dos_date_time(member.mtime)
    size = MAX_32 if large else member.size
    fixed = _CENTRAL.pack(
        CENTRAL_HEADER_SIGNATURE,
        _MADE_BY,
        _VERSION_ZIP64 if wide else _VERSION_STORED,
        _flags(member.name),
        _STORED,
        time,
        date,
        member.crc32,
        size,
        size,
        len(member.name),
        len(extra),
        0,  # comment length
        0,  # disk number start
        0,  # internal attributes: binary
        member.attributes,
        MAX_32 if far else offset,
    )
    return fixed + member.name + extra


def end_records(count: int, directory_offset: int, directory_size: int) -> bytes:
    """The end records, which follow the central directory: APPNOTE 4.3.14 to 4.3.16.

    *count* is the number of members; offset and size of the directory are in bytes. The ZIP64
    record and its locator come first if one of the three overflows.
    """
    records = b""
    if count >= MAX_16 or directory_offset >= MAX_32 or directory_size >= MAX_32:
        records = _ZIP64_END.pack(
            ZIP64_END_SIGNATURE,
            _ZIP64_END.size - 12,  # 4.3.14.1: without the leading 12 bytes
            _MADE_BY,
            _VERSION_ZIP64,
            0,
            0,
            count,
            count,
            directory_size,
            directory_offset,
        ) + _ZIP64_LOCATOR.pack(ZIP64_LOCATOR_SIGNATURE, 0, directory_offset + directory_size, 1)
    return records + _END.pack(
        END_SIGNATURE,
        0,
        0,
        min(count, MAX_16),
        min(count, MAX_16),
        min(directory_size, MAX_32),
        min(directory_offset, MAX_32),
        0,
    )
