"""The strict reader is strict: it takes what is right, and nothing that is wrong anywhere."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from tests.reference import Changes, File, Flipped, Pieces, archive, timestamp, zip64
from tests.strictzip import Entry, Source, StrictZipError, read_archive

GIB = 1 << 30
DISC = File(name=b"Game (Disc 1).bin", data=b"\x00\x01data", mtime=1_600_000_001)
NOTES = File(name="Музыка/données.txt".encode(), data=b"notes", mtime=5, executable=True)
EMPTY = File(name=b"empty", mtime=2**31)
FOLDER = File(name=b"saves/", mtime=-5)
SAMPLE = (DISC, NOTES, EMPTY, FOLDER)
LARGE = (File(name=b"large", data=5 * GIB), File(name=b"far", data=GIB))


def test_says_what_the_headers_say() -> None:
    assert read_archive(archive(SAMPLE), check_data=True) == [
        Entry(
            name="Game (Disc 1).bin",
            size=6,
            crc32=DISC.crc32,
            dos_time=datetime(2020, 9, 13, 12, 26, 40, tzinfo=UTC),
            mtime=1_600_000_001,
            header_offset=0,
            data_offset=30 + 17 + 9,
        ),
        Entry(
            name="Музыка/données.txt",
            size=5,
            crc32=NOTES.crc32,
            dos_time=datetime(1980, 1, 1, tzinfo=UTC),
            mtime=5,
            header_offset=62,
            data_offset=62 + 30 + 25 + 9,
            executable=True,
        ),
        Entry(
            name="empty",
            size=0,
            crc32=0,
            dos_time=datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
            mtime=None,
            header_offset=131,
            data_offset=131 + 30 + 5,
        ),
        Entry(
            name="saves/",
            size=0,
            crc32=0,
            dos_time=datetime(1980, 1, 1, tzinfo=UTC),
            mtime=None,
            header_offset=166,
            data_offset=166 + 30 + 6,
        ),
    ]


@pytest.mark.parametrize(
    "files",
    [
        (),
        SAMPLE,
        LARGE,
        (File(name=b"a", data=0xFFFFFFFE), EMPTY),
        (File(name=b"a", data=0xFFFFFFFF), EMPTY),
        (File(name=b"a", data=0xFFFFFFFE - 30 - 1 - 9), EMPTY),
        (File(name=b"a", data=0xFFFFFFFF - 30 - 1 - 9), EMPTY),
    ],
)
def test_takes_what_is_right(files: Sequence[File]) -> None:
    entries = read_archive(archive(files))
    assert [(entry.name.encode(), entry.size, entry.crc32) for entry in entries] == [
        (file.name, file.size, file.crc32) for file in files
    ]


def test_sources_are_alike() -> None:
    data = archive(SAMPLE).tobytes()
    sources: list[Source] = [data, bytearray(data), memoryview(data), io.BytesIO(data)]
    expected = read_archive(archive(SAMPLE))
    assert [read_archive(source) for source in sources] == [expected] * 4


def test_another_reader_agrees() -> None:
    with zipfile.ZipFile(io.BytesIO(archive(SAMPLE).tobytes())) as reader:
        assert reader.testzip() is None
        assert [
            (info.filename, info.file_size, info.CRC, info.header_offset)
            for info in reader.infolist()
        ] == [
            (entry.name, entry.size, entry.crc32, entry.header_offset)
            for entry in read_archive(archive(SAMPLE))
        ]


# -- Each bit, each byte -------------------------------------------------------


@pytest.mark.parametrize("files", [SAMPLE, LARGE], ids=["small", "zip64"])
def test_no_bit_of_the_metadata_is_free(files: tuple[File, ...]) -> None:
    pieces = archive(files)
    taken = []
    for offset in pieces.metadata_offsets():
        for bit in range(8):
            try:
                # Only what is small has all its data read: there they are metadata's equal.
                read_archive(Flipped(pieces, offset, 1 << bit), check_data=files is SAMPLE)
            except StrictZipError:
                continue
            taken.append((offset, bit))
    assert not taken


def test_no_byte_is_missing_or_too_many() -> None:
    data = archive(SAMPLE).tobytes()
    taken = []
    for offset in range(len(data) + 1):
        wrong = {
            "cut off": data[:offset],
            "beheaded": data[offset:] if offset else b"",
            "one more": data[:offset] + b"\0" + data[offset:],
            "one less": data[:offset] + data[offset + 1 :],
        }
        for kind, damaged in wrong.items():
            if damaged == data:
                continue
            try:
                read_archive(damaged, check_data=True)
            except StrictZipError:
                continue
            taken.append((kind, offset))
    assert not taken


# -- Each field, wrong in a way that hangs together -----------------------------

UNKNOWN_EXTRA = struct.pack("<HHI", 0x7075, 4, 0)
CASES: list[tuple[str, Sequence[File], Changes, str]] = [
    # Rules that hold for a header by itself, so that both headers break them alike.
    *(
        (f"both {field}", (DISC,), Changes(local=change, central=change), f"central {name}")
        for field, change, name in (
            ("descriptor", {"flags": 8}, "flags"),
            ("encrypted", {"flags": 1}, "flags"),
            ("utf-8 for ascii", {"flags": 1 << 11}, "flags"),
            ("deflated", {"method": 8}, "method"),
            ("version 1.0", {"version needed": 10}, "version needed"),
            ("version 4.5", {"version needed": 45}, "version needed"),
            ("compressed size", {"compressed size": 5}, "compressed size"),
            ("no day", {"date": 0}, "date"),
            ("month 13", {"date": 13 << 5 | 1}, "date"),
            ("hour 24", {"time": 24 << 11}, "date"),
            ("second 60", {"time": 30}, "date"),
            ("local time", {"time": 14 << 11 | 26 << 5 | 20}, "time"),
            ("no mtime", {"extra": b""}, "extra 0x5455"),
            ("atime", {"extra": struct.pack("<HHBii", 0x5455, 9, 3, 0, 0)}, "extra 0x5455"),
            ("mtime flag", {"extra": struct.pack("<HHBi", 0x5455, 5, 0, 0)}, "extra 0x5455"),
            ("unknown extra", {"extra": timestamp(DISC.mtime) + UNKNOWN_EXTRA}, "extra"),
            ("extra twice", {"extra": 2 * timestamp(DISC.mtime)}, "extra"),
            ("extra's head", {"extra": timestamp(DISC.mtime) + b"UT\0"}, "extra length"),
            ("extra's end", {"extra": timestamp(DISC.mtime)[:-1]}, "extra 0x5455"),
            ("zip64 for small", {"extra": zip64(6, 6) + timestamp(0)}, "extra 0x0001"),
            ("1969", {"extra": struct.pack("<HHBi", 0x5455, 5, 1, -1)}, "extra 0x5455"),
        )
    ),
    # Rules that hold for the local header and the directory entry together.
    *(
        (f"local {field}", SAMPLE, Changes(local={field: value}), f"local {name}")
        for field, value, name in (
            ("crc-32", 1, "crc-32"),
            ("extra", timestamp(DISC.mtime - 1), "extra 0x5455"),
            ("name", b"Game (Disc 2).bin", "name"),
            ("method", 8, "method"),
            ("version needed", 63, "version needed"),
        )
    ),
    ("local size", (DISC,), Changes(local={"compressed size": 5, "uncompressed size": 5}),
     "local uncompressed size"),
    ("local time", (EMPTY,), Changes(local={"time": 5 << 11}), "local time"),
    ("local date", (EMPTY,), Changes(local={"date": 127 << 9 | 12 << 5 | 31}), "local date"),
    ("local utf-8", (NOTES,), Changes(local={"flags": 0}), "local flags"),
    # Fields that only the directory has.
    *(
        (f"central {field}", (DISC,), Changes(central={field: value}), f"central {field}")
        for field, value in (
            ("version made by", 20),
            ("version made by", 3 << 8 | 20),
            ("disk number", 1),
            ("internal attributes", 1),
            ("external attributes", 0),
            ("external attributes", 0o120777 << 16),
            ("external attributes", 0o100777 << 16),
            ("external attributes", 0o040755 << 16 | 0x10),
            ("offset", 1),
            ("comment length", 1),
            ("name length", 500),
        )
    ),
    *(
        ("a folder's attributes", (FOLDER,), Changes(central={"external attributes": value}),
         "central external attributes")
        for value in (0o100644 << 16, 0o100755 << 16, 0o040755 << 16, 0x10)
    ),
    ("a folder's CRC-32", (FOLDER,), Changes(central={"crc-32": 1}), "central crc-32"),
    ("a folder with data", (File(name=b"folder/", data=b"x"),), Changes(), "central crc-32"),
    ("overlap", SAMPLE, Changes(central={"offset": 0}), "central offset"),
    ("data beyond the directory", (DISC,),
     Changes(local={"compressed size": 999, "uncompressed size": 999},
             central={"compressed size": 999, "uncompressed size": 999}),
     "local uncompressed size"),
    # Names.
    *(
        (f"name {name!r}", (File(name=name),), Changes(), "central name")
        for name in (
            b"",
            b"/etc/passwd",
            b"/",
            b"a//b",
            b"a//",
            b"a/../",
            b".",
            b"a/./b",
            b"..",
            b"../a",
            b"a/..",
            b"a\\b",
            b"C:a",
            b"a\nb",
            b"a\0",
            b"a\x7f",
            "a\x85b".encode(),
            b"\xff",
            b"\xed\xa0\x80",
            b"\xc0\xaf",
        )
    ),
    ("name twice", (DISC, DISC), Changes(), "central name"),
    ("file and folder", (File(name=b"a/b/c"), File(name=b"a")), Changes(), "central name"),
    ("file and empty folder", (File(name=b"a/"), File(name=b"a")), Changes(), "central name"),
    ("file and folder of one", (File(name=b"a/b/"), File(name=b"a")), Changes(), "central name"),
    # ZIP64 exactly where a field overflows.
    ("no zip64 sizes", (LARGE[0],), Changes(central={"extra": timestamp(LARGE[0].mtime)}),
     "central extra 0x0001"),
    ("no local zip64", LARGE[:1], Changes(local={"extra": timestamp(0)}), "local extra 0x0001"),
    ("one size only", LARGE[:1], Changes(central={"extra": zip64(5 * GIB) + timestamp(0)}),
     "central extra 0x0001"),
    ("one local size only", LARGE[:1], Changes(local={"extra": zip64(5 * GIB)}),
     "local extra 0x0001"),
    ("two sizes", LARGE[:1], Changes(central={"extra": zip64(5 * GIB, 5 * GIB + 1)}),
     "central extra 0x0001"),
    ("sizes too small", LARGE[:1], Changes(central={"extra": zip64(0xFFFFFFFE, 0xFFFFFFFE)}),
     "central extra 0x0001"),
    ("offset that fits", LARGE[:1], Changes(central={"extra": zip64(5 * GIB, 5 * GIB, 0)}),
     "central extra 0x0001"),
    ("local version", LARGE, Changes(local={"version needed": 20}), "local version needed"),
    ("central version", LARGE, Changes(central={"version needed": 20}), "central version needed"),
    ("zip64 end for nothing", SAMPLE, Changes(zip64=True), "end directory offset"),
    ("no zip64 end", LARGE, Changes(zip64=False), "locator signature"),
    # The end records.
    *(
        (f"end {field}", SAMPLE, Changes(end={field: value}), f"end {name}")
        for field, value, name in (
            ("signature", 0, "signature"),
            ("disk number", 1, "disk number"),
            ("directory disk", 1, "directory disk"),
            ("entries on disk", 2, "entries on disk"),
            ("comment length", 1, "comment length"),
            ("directory size", 1, "directory offset"),
            ("directory offset", 1, "directory offset"),
        )
    ),
    *(
        (f"zip64 end {field}", LARGE, Changes(zip64_end={field: value}), f"zip64 end {field}")
        for field, value in (
            ("signature", 0),
            ("record size", 56),
            ("version made by", 45),
            ("version needed", 62),
            ("disk number", 1),
            ("directory disk", 1),
            ("entries on disk", 1),
        )
    ),
    *(
        (f"locator {field}", LARGE, Changes(locator={field: value}), f"locator {field}")
        for field, value in (
            ("signature", 0),
            ("end record disk", 1),
            ("end record offset", 0),
            ("disks", 0),
        )
    ),
    ("zip64 count", LARGE, Changes(zip64_end={"entries": 3, "entries on disk": 3}), "end entries"),
    ("count too small", SAMPLE, Changes(end={"entries": 3, "entries on disk": 3}),
     "end directory size"),
    ("count too large", SAMPLE, Changes(end={"entries": 5, "entries on disk": 5}),
     "central signature"),
    # Bytes that belong to nothing.
    ("gap", SAMPLE, Changes(between=b"\0"), "central offset"),
    ("gap before the directory", SAMPLE, Changes(before_directory=b"\0"), "end directory offset"),
    ("gap in the directory", SAMPLE, Changes(after_directory=b"\0"), "end directory size"),
    ("gap before the end", SAMPLE, Changes(before_end=b"\0"), "end directory offset"),
    ("gap before the locator's end", LARGE, Changes(before_end=b"\0"), "locator signature"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "changes", "field"),
    [pytest.param(*case, id=name) for name, *case in CASES],
)
def test_names_the_wrong_field(files: Sequence[File], changes: Changes, field: str) -> None:
    with pytest.raises(StrictZipError) as caught:
        read_archive(archive(files, changes))
    assert caught.value.field == field


def test_reads_data_only_if_asked_to() -> None:
    data = archive((DISC,)).tobytes().replace(b"data", b"date")
    assert len(read_archive(data)) == 1
    with pytest.raises(StrictZipError, match=r"^data: 'Game \(Disc 1\)\.bin' has the CRC-32"):
        read_archive(data, check_data=True)


def test_a_short_read_is_no_finding() -> None:
    class Short(Pieces):
        def read_at(self, offset: int, length: int) -> bytes:
            return super().read_at(offset, length)[:-1]

    with pytest.raises(OSError, match="gave 21"):
        read_archive(Short([archive(SAMPLE).tobytes()]))
