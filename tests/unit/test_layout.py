"""The table of segments, on archives of any size: no byte of data exists here."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import cache

import pytest

from tests.planned import PlannedArchive, held
from tests.reference import File, Pieces, archive
from tests.strictzip import read_archive
from zipfs.archive.layout import Data, Layout, Piece
from zipfs.archive.records import Member
from zipfs.errors import LayoutError

GIB = 1 << 30
M32 = 0xFFFFFFFF
LOCAL, CENTRAL, TIMESTAMP, END, ZIP64_END = 30, 46, 9, 22, 56 + 20


def layout_of(files: Sequence[File]) -> Layout:
    return Layout(
        Member(
            name=file.name,
            size=file.size,
            mtime=file.mtime,
            crc32=file.crc32,
            executable=file.executable,
        )
        for file in files
    )


def plain(pieces: Sequence[Piece]) -> list[bytes | Data]:
    return [piece if isinstance(piece, Data) else bytes(piece) for piece in pieces]


SMALL = (
    File(name=b"a", data=b"first"),
    File(name=b"empty 1"),
    File(name=b"empty 2"),
    File(name="ü/b".encode(), data=b"second"),
    File(name=b"empty 3"),
)
LARGE = (
    File(name=b"disc 1", data=5 * GIB + 7),
    File(name=b"none"),
    File(name=b"disc 2", data=700 * (1 << 20)),
    File(name=b"disc 3", data=M32),
)
MANY = tuple(File(name=b"%d.dat" % n, data=n % 3) for n in range(70_000))
NARROW = MANY[:65534]
WIDE = MANY[:65535]


def filled(header: str, limit: int) -> tuple[File, ...]:
    """Files of which the last one's header, or else the directory, begins at *limit*."""
    first = File(name=b"1", data=1 << 31)
    used = LOCAL + 1 + TIMESTAMP + (1 << 31)
    last = File(name=b"3", data=100)
    behind = LOCAL + 1 + TIMESTAMP + 100 if header == "directory" else 0
    second = File(name=b"2", data=limit - used - (LOCAL + 1 + TIMESTAMP) - behind)
    return first, second, last


ARCHIVES: dict[str, tuple[File, ...]] = {
    "empty": (),
    "one empty": (File(name=b"a"),),
    "small": SMALL,
    "large": LARGE,
    "many": MANY,
    "65534": NARROW,
    "65535": WIDE,
    "size just fits": (File(name=b"a", data=M32 - 1),),
    "size overflows": (File(name=b"a", data=M32),),
    "offset just fits": filled("last", M32 - 1),
    "offset overflows": filled("last", M32),
    "directory just fits": filled("directory", M32 - 1),
    "directory overflows": filled("directory", M32),
    "year 2100": (File(name=b"a", mtime=4_102_444_800, data=b"x"),),
}
each_archive = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.large if len(files) > 60_000 else ())
        for name, files in ARCHIVES.items()
    ],
)


@cache
def archive_of(name: str) -> tuple[tuple[File, ...], Layout]:
    return ARCHIVES[name], layout_of(ARCHIVES[name])


@each_archive
def test_is_the_archive_of_the_specification(name: str) -> None:
    files, layout = archive_of(name)
    expected = archive(files)
    assert layout.size == expected.size
    planned = PlannedArchive(layout, lambda piece: data_of(files, piece))
    # The directory with the end records, and each local header with what surrounds it.
    directory = layout.data_offset(len(files) - 1) + files[-1].size if files else 0
    windows = [(directory - 1 if files else 0, layout.size)]
    windows += [(layout.header_offset(n) - 1, 200) for n in range(1, min(len(files), 500))]
    for offset, length in windows:
        assert planned.read_at(offset, length) == expected.read_at(offset, length)


def data_of(files: Sequence[File], piece: Data) -> bytes:
    data = files[piece.source].data
    if isinstance(data, int):
        return bytes(piece.length)
    return data[piece.offset : piece.offset + piece.length]


@each_archive
def test_strict_reader_takes_it(name: str) -> None:
    files, layout = archive_of(name)
    entries = read_archive(PlannedArchive(layout))
    assert [(entry.name.encode(), entry.size, entry.crc32, entry.mtime) for entry in entries] == [
        (file.name, file.size, file.crc32, file.mtime if file.mtime < 1 << 31 else None)
        for file in files
    ]
    assert [(entry.header_offset, entry.data_offset) for entry in entries] == [
        (layout.header_offset(n), layout.data_offset(n)) for n in range(len(files))
    ]


@each_archive
def test_python_takes_it(name: str) -> None:
    files, layout = archive_of(name)
    with zipfile.ZipFile(PlannedArchive(layout)) as reader:
        assert [
            (info.orig_filename.encode(), info.file_size, info.CRC) for info in reader.infolist()
        ] == [(file.name, file.size, file.crc32) for file in files]


@pytest.mark.parametrize(
    ("name", "zip64_end", "per_member"),
    [
        ("size just fits", 0, 0),
        ("size overflows", ZIP64_END, 20 + 20),
        ("offset just fits", ZIP64_END, 0),
        ("offset overflows", ZIP64_END, 12),
        ("directory just fits", 0, 0),
        ("directory overflows", ZIP64_END, 0),
        ("65534", 0, 0),
        ("65535", ZIP64_END, 0),
        ("many", ZIP64_END, 0),
        ("empty", 0, 0),
    ],
)
def test_size_by_hand(name: str, zip64_end: int, per_member: int) -> None:
    """Every byte that isn't data, counted from the specification; *per_member* is ZIP64's."""
    files, layout = archive_of(name)
    if name == "size just fits":
        zip64_end = ZIP64_END  # behind such a member the directory begins beyond 32 bits
    each = LOCAL + TIMESTAMP + CENTRAL + TIMESTAMP
    headers = sum(each + 2 * len(file.name) + file.size for file in files)
    assert layout.size == headers + per_member + zip64_end + END


# -- Ranges --------------------------------------------------------------------


def test_pieces_of_a_small_archive() -> None:
    layout = layout_of(SMALL[:3])
    data = archive(SMALL[:3]).tobytes()
    empty = LOCAL + 7 + TIMESTAMP
    assert plain(list(layout.plan(0, layout.size))) == [
        data[:40],
        Data(0, 0, 5),
        data[45 : 45 + empty],
        data[45 + empty : 45 + 2 * empty],
        data[45 + 2 * empty :],
    ]


# offset, length, pieces: LARGE's first member begins at 65 (20 bytes of ZIP64) and
# the second one's header behind it.
START = LOCAL + 6 + 20 + TIMESTAMP
STOP = START + 5 * GIB + 7


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (START, 1, [Data(0, 0, 1)]),
        (START - 1, 1, [b"_"]),
        (START - 1, 2, [b"_", Data(0, 0, 1)]),
        (4 * GIB, 1 << 20, [Data(0, 4 * GIB - START, 1 << 20)]),
        (STOP - 1, 1, [Data(0, 5 * GIB + 6, 1)]),
        (STOP - 1, 2, [Data(0, 5 * GIB + 6, 1), b"P"]),
        (STOP, 1, [b"P"]),
        (STOP, 0, []),
    ],
)
def test_pieces_at_the_edges(offset: int, length: int, expected: list[bytes | Data]) -> None:
    found = plain(list(layout_of(LARGE).plan(offset, length)))
    assert len(found) == len(expected)
    for piece, wanted in zip(found, expected, strict=True):
        if isinstance(wanted, Data):
            assert piece == wanted
        else:
            assert isinstance(piece, bytes)
            assert len(piece) == len(wanted)
    if expected[-1:] == [b"P"]:
        assert found[-1] == b"P"


@each_archive
def test_every_range_is_whole_and_no_more(name: str) -> None:
    """Around each boundary: as many bytes as there are, in pieces that aren't empty."""
    files, layout = archive_of(name)
    some = range(0, len(files), max(1, len(files) // 5))
    edges = [layout.header_offset(n) for n in some] + [layout.data_offset(n) for n in some]
    edges += [layout.size, layout.size - END]
    for edge in edges:
        for offset in range(max(edge - 2, 0), edge + 3):
            for length in (0, 1, 2, 3, 100, 5 * GIB if len(files) < 10 else 10_000):
                pieces = list(layout.plan(offset, length))
                lengths = [p.length if isinstance(p, Data) else len(p) for p in pieces]
                assert 0 not in lengths
                assert sum(lengths) == max(0, min(length, layout.size - offset))


@pytest.mark.parametrize("beyond", [0, 1, 1 << 40, 1 << 70])
@each_archive
def test_nothing_lies_beyond_the_end(name: str, beyond: int) -> None:
    _, layout = archive_of(name)
    assert list(layout.plan(layout.size + beyond, 1 << 20)) == []


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (-5, -5)])
def test_no_range_before_the_beginning(offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="no such range"):
        list(layout_of(SMALL).plan(offset, length))


def test_a_range_of_a_large_archive_takes_few_pieces() -> None:
    """A read in the middle of 70,000 members touches only what it covers."""
    _, layout = archive_of("many")
    offset = layout.header_offset(35_000)
    length = layout.header_offset(35_100) - offset
    pieces = list(layout.plan(offset, length))
    assert sum(not isinstance(piece, Data) for piece in pieces) == 100


# -- Empty folders, and files that can be executed --------------------------


def test_a_folder_has_no_source() -> None:
    files = (
        File(name=b"a", data=b"first"),
        File(name=b"saves/"),
        File(name=b"run.sh", data=b"#!/bin/sh", executable=True),
        File(name=b"x/y/"),
    )
    layout = layout_of(files)
    assert [layout.source_of(number) for number in range(4)] == [0, None, 1, None]
    planned = PlannedArchive(layout, held([b"first", b"#!/bin/sh"]))
    assert planned.readall() == archive(files).tobytes()
    assert layout.locate(layout.data_offset(2) + 1, 8) == (1, 1)
    entries = read_archive(planned, check_data=True)
    assert [entry.executable for entry in entries] == [False, False, True, False]
    with zipfile.ZipFile(planned) as reader:
        assert reader.testzip() is None
        assert [info.is_dir() for info in reader.infolist()] == [False, True, False, True]


# -- What is no archive --------------------------------------------------------


def test_a_name_is_there_once() -> None:
    with pytest.raises(LayoutError, match="the same name"):
        layout_of((File(name=b"a"), File(name=b"b"), File(name=b"a", data=b"other")))


def test_a_file_is_no_folder_of_the_same_name() -> None:
    with pytest.raises(LayoutError, match="the same name"):
        layout_of((File(name=b"a/b"), File(name=b"a/b/")))


def test_order_is_the_callers() -> None:
    one, two = File(name=b"b", data=b"1"), File(name=b"a", data=b"2")
    data = [
        PlannedArchive(layout_of(files), held([b"%s" % f.data for f in files if f.data])).readall()
        for files in ((one, two), (two, one))
    ]
    assert data == [archive((one, two)).tobytes(), archive((two, one)).tobytes()]
    assert data[0] != data[1]


def test_metadata_are_what_is_kept() -> None:
    layout = layout_of(LARGE)
    data = sum(file.size for file in LARGE)
    assert layout.metadata_size == layout.size - data + 8 * (2 * len(LARGE) + 2)
    assert [len(header) for header in layout.headers] == [
        layout.data_offset(n) - layout.header_offset(n) for n in range(len(LARGE))
    ]


def test_reference_reads_itself() -> None:
    """The model that ranges are compared with gives the slices it should."""
    pieces = Pieces([b"ab", 3, b"", b"cd"])
    whole = b"ab\0\0\0cd"
    for offset in range(9):
        for length in range(9):
            assert pieces.read_at(offset, length) == whole[offset : offset + length]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_larger_than_a_file_can_be(count: int) -> None:
    members = (
        Member(name=b"%d" % number, size=(1 << 63) - 1, mtime=0, crc32=0) for number in range(count)
    )
    with pytest.raises(LayoutError, match="larger than a file can be"):
        Layout(members)
