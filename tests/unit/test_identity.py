"""The validators: functions of the content, and of nothing else (DESIGN V1 to V4)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest
import xxhash

from tests.reference import File, archive, dos_date_time
from zipfs.archive import validators
from zipfs.archive.layout import Layout
from zipfs.archive.records import FORMAT_VERSION, Member, archive_time
from zipfs.archive.validators import DAY, NANOSECONDS


def described(files: Sequence[File]) -> tuple[Layout, list[bytes]]:
    members = []
    digests = []
    for file in files:
        assert isinstance(file.data, bytes)
        members.append(
            Member(
                name=file.name,
                size=file.size,
                mtime=archive_time(file.mtime),
                crc32=file.crc32,
                executable=file.executable,
            )
        )
        if not file.is_folder:
            digests.append(xxhash.xxh3_128_digest(file.data))
    return Layout(members), digests


def content_of(*files: File) -> int:
    return validators.content_id(*described(files))


A = File(name=b"a", data=b"one")
B = File(name=b"b", data=b"two")


# -- V3: the content id --------------------------------------------------------


def test_content_id_is_what_the_design_says() -> None:
    """Version and, for each member, its header and its content: worked out by hand."""
    date, time = dos_date_time(A.mtime)
    header = (
        b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, 0, 0, time, date, A.crc32, 3, 3, 1, 9)
        + b"a" + struct.pack("<HHBi", 0x5455, 5, 1, A.mtime)
    )  # fmt: skip
    digest = xxhash.xxh3_128_digest(b"one")
    parts = struct.pack("<I", FORMAT_VERSION) + struct.pack("<I", len(header)) + header + digest
    assert content_of(A) == xxhash.xxh3_128_intdigest(parts)


def test_content_id_of_an_executable() -> None:
    """Only the central directory states it, so its attributes come before the member's header."""
    plain, digest = described([A])[0].headers[0], xxhash.xxh3_128_digest(b"one")
    parts = struct.pack("<III", FORMAT_VERSION, 0xFFFFFFFF, 0o100755 << 16)
    parts += struct.pack("<I", len(plain)) + plain + digest
    assert content_of(replace(A, executable=True)) == xxhash.xxh3_128_intdigest(parts)


def test_content_id_of_a_folder() -> None:
    """Of its header, which has its name, and of no content."""
    folder = File(name=b"a/", mtime=A.mtime)
    header = described([folder])[0].headers[0]
    parts = struct.pack("<II", FORMAT_VERSION, len(header)) + header + xxhash.xxh3_128_digest(b"")
    assert content_of(folder) == xxhash.xxh3_128_intdigest(parts)


def test_content_id_of_nothing() -> None:
    assert content_of() == xxhash.xxh3_128_intdigest(struct.pack("<I", FORMAT_VERSION))


OTHERS = {
    "content": (File(name=b"a", data=b"One"), B),
    "size": (File(name=b"a", data=b"onee"), B),
    "name": (File(name=b"c", data=b"one"), B),
    "mtime": (File(name=b"a", data=b"one", mtime=A.mtime + 1), B),
    "order": (B, A),
    "one less": (A,),
    "one more": (A, B, File(name=b"c")),
    "contents swapped": (File(name=b"a", data=b"two"), File(name=b"b", data=b"one")),
    "boundary moved": (File(name=b"a", data=b"onet"), File(name=b"b", data=b"wo")),
    "year 2100, 2 s later": (File(name=b"a", data=b"one", mtime=4_102_444_802), B),
    "year 2100": (File(name=b"a", data=b"one", mtime=4_102_444_800), B),
    "execute bit": (File(name=b"a", data=b"one", executable=True), B),
    "the other's execute bit": (A, File(name=b"b", data=b"two", executable=True)),
    "an empty file more": (A, B, File(name=b"d")),
    "an empty folder more": (A, B, File(name=b"d/")),
    "one executable": (A, B, File(name=b"d", executable=True)),
}


def test_other_bytes_have_another_content_id() -> None:
    contents = [content_of(A, B), *(content_of(*files) for files in OTHERS.values())]
    whole = [archive((A, B)), *(archive(files) for files in OTHERS.values())]
    assert len({pieces.tobytes() for pieces in whole}) == len(whole)
    assert len(set(contents)) == len(contents)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (4_102_444_800, 4_102_444_801),  # beyond 2038 an archive counts in twos
        (1 << 40, 1 << 41),  # beyond 2107 not at all
        (-1, -(1 << 40)),  # nor before 1970
    ],
)
def test_times_that_an_archive_cant_tell_apart(one: int, other: int) -> None:
    """V2: equal bytes have equal validators, whatever the disk knows beyond them."""
    first, second = (File(name=b"a", mtime=mtime) for mtime in (one, other))
    assert described([first])[0].headers == described([second])[0].headers
    assert content_of(first) == content_of(second)
    dates = [validators.date(described([file])[0]) for file in (first, second)]
    assert dates[0] == dates[1]


def test_content_id_has_128_bits() -> None:
    contents = [content_of(File(name=b"%d" % n)) for n in range(64)]
    assert max(contents) < 1 << 128
    assert max(contents) >= 1 << 120


@pytest.mark.parametrize(
    "digests", [[], [b"1" * 16], [b"1" * 16] * 3, [b"1" * 16, b"1" * 15], [b"1" * 17, b"1" * 16]]
)
def test_one_whole_digest_a_member(digests: list[bytes]) -> None:
    layout, _ = described([A, B])
    with pytest.raises(ValueError, match=r"zip\(\)|16 bytes"):
        validators.content_id(layout, digests)


# -- V1, V3: the modification time ---------------------------------------------


@pytest.mark.parametrize(
    ("mtimes", "expected"),
    [
        ((), 315_532_800),
        ((1_600_000_000,), 1_600_000_000),
        ((1_600_000_000, 1_700_000_000, 5), 1_700_000_000),
        ((-5,), 315_532_800),
        ((315_532_799, 315_532_800), 315_532_800),
        ((315_532_801,), 315_532_801),
        ((1 << 40,), 4_354_819_198),
    ],
)
def test_date_is_the_newest_members(mtimes: Sequence[int], expected: int) -> None:
    files = [File(name=b"%d" % n, data=b"", mtime=mtime) for n, mtime in enumerate(mtimes)]
    assert validators.date(described(files)[0]) == expected


NEWEST = 1_600_000_000


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (0, NEWEST),
        (1, NEWEST - 1),
        (DAY - 1, NEWEST - (DAY - 1)),
        (DAY, NEWEST),
        (5 * DAY + 7, NEWEST - 7),
        ((1 << 128) - 1, NEWEST - ((1 << 128) - 1) % 86400),
    ],
)
def test_time_of_day_is_a_checksum(content: int, expected: int) -> None:
    assert validators.first_mtime(NEWEST, content) == expected


@pytest.mark.parametrize(
    ("content", "nanoseconds"),
    [
        (0, 0),
        (DAY - 1, 0),  # these bits are in the seconds already
        (DAY, 1),
        (DAY * (NANOSECONDS - 1), NANOSECONDS - 1),
        (DAY * NANOSECONDS, 0),
        ((1 << 128) - 1, ((1 << 128) - 1) // 86400 % 1_000_000_000),
    ],
)
def test_nanoseconds_are_further_bits(content: int, nanoseconds: int) -> None:
    assert validators.mtime_ns(NEWEST, content) == NEWEST * 1_000_000_000 + nanoseconds


@pytest.mark.parametrize(
    ("taken", "days"),
    [
        ((), 0),
        ((NEWEST - 7,), 1),
        ((NEWEST - 7, NEWEST - 7 - DAY), 2),
        ((NEWEST - 7 - DAY,), 0),  # nobody's clash
        ((NEWEST - 6, NEWEST - 8, NEWEST), 0),
    ],
)
def test_a_clash_moves_by_whole_days(taken: Sequence[int], days: int) -> None:
    found = validators.resolve_clash(NEWEST, 3 * DAY + 7, taken.__contains__)
    assert found == NEWEST - 7 - days * DAY


def test_versions_of_a_path_never_share_a_second() -> None:
    """V1, in the worst case: each content asks for the same second."""
    issued: set[int] = set()
    for n in range(500):
        issued.add(validators.resolve_clash(NEWEST, n * DAY + 7, issued.__contains__))
    assert len(issued) == 500
    assert {seconds % DAY for seconds in issued} == {(NEWEST - 7) % DAY}


# -- V4: the inode -------------------------------------------------------------


def test_inode_depends_on_all_it_is_made_of() -> None:
    nodes = [
        (b"archive", b"roms/a.zip", bytes(16)),
        (b"archive", b"roms/a.zip", bytes(15) + b"\1"),
        (b"archive", b"roms/b.zip", bytes(16)),
        (b"file", b"roms/a.zip", bytes(16)),
        (b"archive", b"roms/a.zip"),
        (b"folder", b"roms"),
        (b"folder", b"roms/a"),
    ]
    inodes = [validators.inode(*node) for node in nodes]
    assert len(set(inodes)) == len(nodes)
    assert inodes == [validators.inode(*node) for node in nodes]
    assert 1 << 56 <= max(inodes) < 1 << 63


@pytest.mark.parametrize(
    ("hashed", "expected"),
    [(0, 2), (1, 3), (2, 2), (3, 3), (1 << 63, 2), ((1 << 64) - 1, (1 << 63) - 1)],
)
def test_inode_is_neither_none_nor_the_root(
    hashed: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(_: bytes) -> int:
        return hashed

    monkeypatch.setattr(xxhash, "xxh3_64_intdigest", digest)
    assert validators.inode(b"file", b"a") == expected


# -- ETags ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "size", "expected"),
    [
        (1_600_000_000, 1000, '"5f5e1000-3e8"'),
        (1_600_000_000, 0, '"5f5e1000-0"'),
        (0x7FFFFFFF + 1, 6 << 30, '"80000000-180000000"'),
    ],
)
def test_nginx_etag(seconds: int, size: int, expected: str) -> None:
    assert validators.nginx_etag(seconds, size) == expected


@pytest.mark.parametrize(
    ("mtime", "size", "time_digits", "size_digits"),
    [
        (36, 35, "10", "z"),
        (0, 0, "0", "0"),
        (1_600_000_000, 1296, "qgljwg", "100"),
        (1_600_000_000_123_456_789, 6 << 30, "c5m8nwuppfrp", "2yjo2yo"),
    ],
)
def test_caddy_etag(mtime: int, size: int, time_digits: str, size_digits: str) -> None:
    assert (int(time_digits, 36), int(size_digits, 36)) == (mtime, size)
    assert validators.caddy_etag(mtime, size) == f'"{time_digits}{size_digits}"'


def test_no_etag_of_what_is_no_time() -> None:
    with pytest.raises(ValueError, match="-1"):
        validators.caddy_etag(-1, 0)
