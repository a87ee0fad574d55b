"""The records, field by field: what each states, and where ZIP64 sets in."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from tests import reference
from tests.strictzip import CENTRAL, END, LOCAL, LOCATOR, SIGNATURES, ZIP64_END
from zipfs.archive.records import (
    DOS_MAX,
    DOS_MIN,
    TIMESTAMP_MAX,
    Member,
    archive_time,
    central_header,
    dos_date_time,
    end_records,
    local_header,
)

M16, M32 = 0xFFFF, 0xFFFFFFFF
DAY = 86400


def member(**values: Any) -> Member:
    ordinary: dict[str, Any] = {"name": b"name", "size": 0, "mtime": 1_600_000_000, "crc32": 0}
    return Member(**ordinary | values)


def parse(fields: Mapping[str, str], data: bytes) -> tuple[dict[str, int], bytes]:
    """The fixed fields of a record, and what follows them."""
    record = struct.Struct("<" + "".join(fields.values()))
    return dict(zip(fields, record.unpack_from(data), strict=True)), data[record.size :]


def unix(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp())  # type: ignore[arg-type,misc]


# -- Time ----------------------------------------------------------------------


def test_limits_of_the_times() -> None:
    assert unix(1980, 1, 1) == DOS_MIN
    assert unix(2107, 12, 31, 23, 59, 58) == DOS_MAX
    assert TIMESTAMP_MAX == 2**31 - 1


def test_dos_time_of_every_day_is_the_calendars() -> None:
    # The step walks through the times of day as well: 61 s more each day.
    for mtime in range(DOS_MIN, DOS_MAX, DAY + 61):
        assert dos_date_time(mtime) == reference.dos_date_time(mtime), mtime


def test_dos_time_of_every_second_of_a_day_is_the_clocks() -> None:
    start = unix(2000, 2, 29)
    for mtime in range(start, start + DAY):
        assert dos_date_time(mtime) == reference.dos_date_time(mtime), mtime


FIRST = (0 << 9 | 1 << 5 | 1, 0)
LAST = (127 << 9 | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29)


@pytest.mark.parametrize(
    ("mtime", "expected"),
    [
        (DOS_MIN, FIRST),
        (DOS_MIN + 1, FIRST),
        (DOS_MIN - 1, FIRST),
        (0, FIRST),
        (-1, FIRST),
        (-(2**31), FIRST),
        (-(10**30), FIRST),
        (DOS_MAX, LAST),
        (DOS_MAX + 1, LAST),
        (DOS_MAX + 2, LAST),
        (10**30, LAST),
        (unix(2000, 2, 29, 12, 34, 56), (20 << 9 | 2 << 5 | 29, 12 << 11 | 34 << 5 | 28)),
        (unix(2100, 2, 28, 23, 59, 59), (120 << 9 | 2 << 5 | 28, LAST[1])),
        (unix(2100, 3, 1), (120 << 9 | 3 << 5 | 1, 0)),  # 2100 has no leap day
    ],
)
def test_dos_time(mtime: int, expected: tuple[int, int]) -> None:
    assert dos_date_time(mtime) == expected


@pytest.mark.parametrize(
    ("mtime", "expected"),
    [
        (0, 0),
        (-1, DOS_MIN),  # the 0x5455 field could hold it, but is often read as unsigned
        (1_600_000_001, 1_600_000_001),  # odd, and exact: the 0x5455 field holds it
        (-(2**31), DOS_MIN),
        (-(10**30), DOS_MIN),
        (TIMESTAMP_MAX, TIMESTAMP_MAX),
        (TIMESTAMP_MAX + 1, TIMESTAMP_MAX + 1),
        (TIMESTAMP_MAX + 2, TIMESTAMP_MAX + 1),  # only DOS time is left, which counts in twos
        (DOS_MAX, DOS_MAX),
        (DOS_MAX + 1, DOS_MAX),
        (DOS_MAX + 2, DOS_MAX),
        (10**30, DOS_MAX),
    ],
)
def test_archive_time(mtime: int, expected: int) -> None:
    assert archive_time(mtime) == expected
    assert member(mtime=expected).mtime == expected


@pytest.mark.parametrize("mtime", [-1, -(2**31), TIMESTAMP_MAX + 2, DOS_MAX + 2])
def test_a_member_has_a_time_that_can_be_stated(mtime: int) -> None:
    with pytest.raises(ValueError, match=f"no archive can state the time {mtime}"):
        member(mtime=mtime)


# -- Members -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": b""}, "a name has 1 to 65535 bytes, not 0"),
        ({"name": b"n" * 65536}, "a name has 1 to 65535 bytes, not 65536"),
        ({"size": -1}, "a size is 0 to"),
        ({"size": 1 << 63}, "a size is 0 to"),
        ({"crc32": -1}, "a CRC-32 has 32 bits"),
        ({"crc32": 1 << 32}, "a CRC-32 has 32 bits"),
        ({"name": b"/"}, "isn't the relative path of a file or folder"),
        ({"name": b"/a/"}, "isn't the relative path"),
        ({"name": b"a//"}, "isn't the relative path"),
        ({"name": b"a/./"}, "isn't the relative path"),
        ({"name": b"a/../"}, "isn't the relative path"),
        ({"name": b"a/", "size": 1}, "the folder b'a/' can't have data"),
        ({"name": b"a/", "crc32": 1}, "the folder b'a/' can't have data"),
        ({"name": b"a/", "executable": True}, "the folder b'a/' can't have data"),
    ],
)
def test_what_no_member_can_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        member(**values)


def test_extremes_that_a_member_can_have() -> None:
    largest = member(name=b"n" * 65535, size=(1 << 63) - 1, crc32=M32)
    fields, rest = parse(LOCAL, local_header(largest))
    assert (fields["name length"], fields["crc-32"]) == (65535, M32)
    assert struct.pack("<QQ", largest.size, largest.size) in rest


def test_a_member_stays_as_it_is() -> None:
    with pytest.raises(AttributeError):
        member().size = 1  # type: ignore[misc]


# -- Headers -------------------------------------------------------------------

NAMES = [(b"name", 0), (b"a" * 65535, 0), ("naïve".encode(), 1 << 11), ("音".encode(), 1 << 11)]
TIMES = [
    (1_600_000_001, struct.pack("<HHBi", 0x5455, 5, 1, 1_600_000_001)),
    (0, struct.pack("<HHBi", 0x5455, 5, 1, 0)),
    (TIMESTAMP_MAX, struct.pack("<HHBi", 0x5455, 5, 1, TIMESTAMP_MAX)),
    (TIMESTAMP_MAX + 1, b""),
]
SIZES = [0, 1, M32 - 1, M32, M32 + 1, (1 << 63) - 1]
OFFSETS = [0, 1, M32 - 1, M32, M32 + 1, (1 << 63) - 1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("mtime", "timestamp"), TIMES)
@pytest.mark.parametrize(("name", "flags"), NAMES, ids=["ascii", "long", "latin", "cjk"])
def test_local_header(name: bytes, flags: int, mtime: int, timestamp: bytes, size: int) -> None:
    large = size >= M32
    extra = struct.pack("<HHQQ", 1, 16, size, size) * large + timestamp
    date, time = reference.dos_date_time(mtime)
    header = local_header(member(name=name, size=size, mtime=mtime, crc32=0xCAFEBABE))
    assert parse(LOCAL, header) == (
        {
            "signature": SIGNATURES["local"],
            "version needed": 45 if large else 20,
            "flags": flags,
            "method": 0,
            "time": time,
            "date": date,
            "crc-32": 0xCAFEBABE,
            "compressed size": min(size, M32),
            "uncompressed size": min(size, M32),
            "name length": len(name),
            "extra length": len(extra),
        },
        name + extra,
    )


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("size", SIZES)
def test_central_header(size: int, offset: int) -> None:
    # Just the overflowing values, in the order of 4.5.3; a version of its own.
    wide = [size, size] * (size >= M32) + [offset] * (offset >= M32)
    timestamp = struct.pack("<HHBi", 0x5455, 5, 1, 1_600_000_000)
    extra = reference.zip64(*wide) + timestamp
    date, time = reference.dos_date_time(1_600_000_000)
    assert parse(CENTRAL, central_header(member(size=size, crc32=1), offset)) == (
        {
            "signature": SIGNATURES["central"],
            "version made by": 3 << 8 | 63,
            "version needed": 45 if wide else 20,
            "flags": 0,
            "method": 0,
            "time": time,
            "date": date,
            "crc-32": 1,
            "compressed size": min(size, M32),
            "uncompressed size": min(size, M32),
            "name length": 4,
            "extra length": len(extra),
            "comment length": 0,
            "disk number": 0,
            "internal attributes": 0,
            "external attributes": 0o100644 << 16,
            "offset": min(offset, M32),
        },
        b"name" + extra,
    )


@pytest.mark.parametrize(("name", "flags"), NAMES, ids=["ascii", "long", "latin", "cjk"])
@pytest.mark.parametrize(("mtime", "timestamp"), TIMES)
def test_both_headers_say_the_same(name: bytes, flags: int, mtime: int, timestamp: bytes) -> None:
    one = member(name=name, mtime=mtime, size=7, crc32=8)
    local, local_rest = parse(LOCAL, local_header(one))
    central, central_rest = parse(CENTRAL, central_header(one, 9))
    assert local_rest == central_rest == name + timestamp
    assert local.items() - central.items() == {("signature", SIGNATURES["local"])}
    assert central["flags"] == flags


@pytest.mark.parametrize(
    ("values", "attributes"),
    [
        ({}, 0o100644 << 16),
        ({"executable": True}, 0o100755 << 16),
        ({"name": b"folder/"}, 0o040755 << 16 | 0x10),  # the lower half: MS-DOS, a directory
    ],
)
def test_attributes(values: dict[str, Any], attributes: int) -> None:
    central, _ = parse(CENTRAL, central_header(member(**values), 0))
    assert central["external attributes"] == attributes


def test_a_folder_is_stored_like_an_empty_file() -> None:
    folder, file = (parse(LOCAL, local_header(member(name=name))) for name in (b"a/", b"ab"))
    assert folder == (file[0], file[1].replace(b"ab", b"a/"))
    assert folder[0]["version needed"] == 20  # 4.4.3.2: also of a folder


# -- End records ---------------------------------------------------------------

END_CASES = [
    # count, offset, size, and whether ZIP64 sets in
    (0, 0, 0, False),
    (1, 100, 50, False),
    (65534, 100, 50, False),
    (65535, 100, 50, True),
    (65536, 100, 50, True),
    (1, M32 - 1, 50, False),
    (1, M32, 50, True),
    (1, M32 + 1, 50, True),
    (1, 100, M32 - 1, False),
    (1, 100, M32, True),
    (1, 100, M32 + 1, True),
    (65534, M32 - 1, M32 - 1, False),
    (70_000, 1 << 60, 1 << 40, True),
]


@pytest.mark.parametrize(("count", "offset", "size", "zip64"), END_CASES)
def test_end_records(count: int, offset: int, size: int, zip64: bool) -> None:
    data = end_records(count, offset, size)
    if zip64:
        wide, data = parse(ZIP64_END, data)
        assert wide == {
            "signature": SIGNATURES["zip64 end"],
            "record size": 44,
            "version made by": 3 << 8 | 63,
            "version needed": 45,
            "disk number": 0,
            "directory disk": 0,
            "entries on disk": count,
            "entries": count,
            "directory size": size,
            "directory offset": offset,
        }
        locator, data = parse(LOCATOR, data)
        assert locator == {
            "signature": SIGNATURES["locator"],
            "end record disk": 0,
            "end record offset": offset + size,
            "disks": 1,
        }
    assert parse(END, data) == (
        {
            "signature": SIGNATURES["end"],
            "disk number": 0,
            "directory disk": 0,
            "entries on disk": min(count, M16),
            "entries": min(count, M16),
            "directory size": min(size, M32),
            "directory offset": min(offset, M32),
            "comment length": 0,
        },
        b"",
    )
