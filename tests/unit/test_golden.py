"""Golden archives: what format version 1 makes of fixed input, byte for byte (DESIGN B4).

A test here that fails says that an archive which somebody has half downloaded has other
bytes now. If that is meant, raise ``FORMAT_VERSION``, which every validator depends on, and
only then put the new values here.

Each archive whose values stand here was read to the end by Python's zipfile, Info-ZIP's
unzip, 7-Zip, bsdtar and the strict reader first.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import xxhash

from tests.planned import PlannedArchive
from tests.strictzip import read_archive
from zipfs.archive import validators
from zipfs.archive.layout import Data, Layout
from zipfs.archive.names import entry_names
from zipfs.archive.records import FORMAT_VERSION, Member, archive_time
from zipfs.index.hash_file import FileHasher
from zipfs.index.index import Index
from zipfs.library.filestate import Checksums, FileState
from zipfs.library.library import Library
from zipfs.sealing.outcomes import Sealed
from zipfs.sealing.sealer import Sealer

ARCHIVE = b"roms/game.zip"
_ZEROS = bytes(1 << 20)


@dataclass(frozen=True)
class Source:
    """A file: its content, a number standing for so many zeros, and when it was modified."""

    data: bytes | int
    mtime: int = 1_600_000_000

    @property
    def size(self) -> int:
        return self.data if isinstance(self.data, int) else len(self.data)

    def part(self, offset: int, length: int) -> bytes:
        if isinstance(self.data, int):
            return bytes(length)
        return self.data[offset : offset + length]


@dataclass(frozen=True)
class Golden:
    """A game folder, and what its archive has to be."""

    files: Mapping[bytes, Source]
    size: int
    sha256: str
    content_id: int
    mtime_ns: int
    inode: int


GOLDEN: dict[str, Golden] = {
    "ascii": Golden(
        {
            b"Game (Disc 1).bin": Source(bytes(range(256)) * 3, 1_111_111_111),
            b"Game (Disc 2).bin": Source(b"second disc", 1_234_567_890),
            b"Game.cue": Source(b'FILE "Game (Disc 1).bin" BINARY\r\n', 1_000_000_001),
        },
        1_200,
        "0cd504d9e2121e96aa7f8f535769d96a42a02fcc74dbf76387e521231b7a2f01",
        0xD4D368E6411BED2E376A2B7E1E44BEEE,
        1_234_519_012_244_511_744,
        0x60A6FDA4589056CD,
    ),
    "nested": Golden(
        {
            b"z/a.dat": Source(b"base names come first"),
            b"a/b.dat": Source(b"in the order"),
            b"a/a.dat": Source(b"then paths"),
            b"a/a/a.dat": Source(b"deeper"),
            b"a.dat": Source(b"top"),
            b"B.dat": Source(b"bytewise: before a.dat"),
            b"update/v1.1/eboot.bin": Source(b"\0" * 17),
        },
        893,
        "4fb6a947d68b1c6ad70084b370362778ddbfc58ab135c09c1b33d440cfe858f0",
        0x7B52241188251B113E6B832CF647C259,
        1_599_968_551_487_804_197,
        0x0F4959B538A4EF86,
    ),
    "utf-8": Golden(
        {
            "Pokémon/Édition.bin".encode(): Source(b"composed"),
            "Poke\u0301mon.bin".encode(): Source(b"decomposed"),
            "ゼルダの伝説.sfc".encode(): Source(b"three bytes a character"),
            "😀.txt".encode(): Source(b"four"),
            b"plain.txt": Source(b"no flag here"),
            "Музыка/01.ogg".encode(): Source(b"the folder's name counts as well"),
        },
        859,
        "f7ba3774125ad24cb38c813b2822583527b6878deac4936b95a50dfc40c1f272",
        0x64F850AAC905DFA182E7A2A20359DB14,
        1_599_938_156_563_879_697,
        0x20BB5AE29B5C3E8A,
    ),
    "dates": Golden(
        {
            b"before 1901": Source(b"1", -(1 << 31) - 1),
            b"1901": Source(b"2", -(1 << 31)),
            b"before 1970": Source(b"3", -1),
            b"1970": Source(b"4", 0),
            b"before 1980": Source(b"5", 315_532_799),
            b"1980": Source(b"6", 315_532_800),
            b"odd": Source(b"7", 1_600_000_001),
            b"leap day": Source(b"8", 951_827_696),
            b"last of 32 bits": Source(b"9", (1 << 31) - 1),
            b"after 2038": Source(b"10", 1 << 31),
            b"after 2038, odd": Source(b"11", (1 << 31) + 1),
            b"2100-02-28": Source(b"12", 4_107_542_399),
            b"2107": Source(b"13", 4_354_819_199),
            b"after 2107": Source(b"14", 4_354_819_200),
            b"far": Source(b"15", 1 << 40),
        },
        1_591,
        "85b11e47bc454ee75e3defbe1b0b4d5ddbfa0780f653f97f648c2d6061c1610a",
        0x17E5EC264C58F776D7149483CE406586,
        4_354_762_104_432_336_527,
        0x6B6200B1DA8232D5,
    ),
    "empty files": Golden(
        {
            b"empty": Source(b""),
            b"folder/empty": Source(b"", 1_500_000_000),
            b"one byte": Source(b"\n"),
            b"zz empty": Source(b""),
        },
        465,
        "3ba1ae005b0a0743acb53f44fec550e8668f61fa8fa23f849298800f71765858",
        0x35C030CB784E52F98F952A315695096B,
        1_599_993_621_568_808_875,
        0x3958EE19705DCA4D,
    ),
    "mapped names": Golden(
        {
            b"caf\xe9.txt": Source(b"Latin-1"),
            b"caf%E9.txt": Source(b"looks like it"),
            b"a:b.txt": Source(b"colon"),
            b"a\\b.txt": Source(b"backslash"),
            b"new\nline": Source(b"control"),
            b"\xed\xa0\x80": Source(b"surrogate"),
            b"\xc0\xae\xc0\xae/overlong": Source(b"dots"),
            "c1\x85".encode(): Source(b"C1 control"),
            b"dir:/a": Source(b"a folder is mapped"),
            b"dir%3A": Source(b"and a file has its name"),
            b"\xe9\xff": Source(b"no character at all"),
        },
        1_408,
        "8ee24ea923647ce41cff05e36519d68a21da9bc299744764be050076ed14d11b",
        0x3AABA2C60354C87152F0C73FCB7EAC3D,
        1_599_916_355_322_249_657,
        0x48A4E49C7196CEC3,
    ),
    "nothing": Golden(
        {},
        22,
        "8739c76e681f900923b900c9df0ef75cf421d39cabb54650c4b9ad19b6a76d85",
        0x45CDD2E492A8BBFC29CC0124CA8BF34B,
        315_477_429_273_143_378,
        0x74CBFB8D06976611,
    ),
    "large": Golden(
        {
            b"disc.iso": Source((4 << 30) + 1, 1_600_000_001),
            b"manual.pdf": Source(b"behind 4 GiB", 1_500_000_000),
        },
        4_294_967_683,
        "93ea1dc26aad52f62ef52e73889c253c21b8ef7446f2488b85b8514f6cf5ae27",
        0x0F9192364594E66446A68B16E168D412,
        1_599_938_543_539_703_704,
        0x196CCD369DCEC6D2,
    ),
    "many": Golden(
        {b"%d/%05d.dat" % (n % 7, n): Source(n % 5, 1_600_000_000 + n) for n in range(65_600)},
        7_740_898,
        "b00be0fa6c794345afa2a3f7300b1ddd8a44c1437e7e398f0e276481db769d8f",
        0xF71D81A57DAE691727C7DF740CFCE93F,
        1_599_986_560_924_368_003,
        0x0D3FF58E3427F84C,
    ),
}  # fmt: skip
SMALL = [name for name in GOLDEN if name not in ("large", "many")]
each_golden = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in SMALL else pytest.mark.large) for name in GOLDEN],
)


@dataclass(frozen=True)
class Made:
    """The archive that the pure modules make of a golden game."""

    layout: Layout
    sources: list[Source]
    digests: list[bytes]

    def part(self, piece: Data) -> bytes:
        return self.sources[piece.source].part(piece.offset, piece.length)


@cache
def made(name: str) -> Made:
    files = GOLDEN[name].files
    names = entry_names(files)
    # DESIGN, "The ZIP": by base name, then by path, bytewise.
    order = sorted(files, key=lambda path: (names[path].split(b"/")[-1], names[path]))
    sources = [files[path] for path in order]
    members = []
    digests = []
    for path, source in zip(order, sources, strict=True):
        crc32 = 0
        digest = xxhash.xxh3_128()
        for offset in range(0, source.size, len(_ZEROS)):
            part = source.part(offset, min(len(_ZEROS), source.size - offset))
            crc32 = zlib.crc32(part, crc32)
            digest.update(part)
        members.append(
            Member(
                name=names[path],
                size=source.size,
                mtime=archive_time(source.mtime),
                crc32=crc32,
            )
        )
        digests.append(digest.digest())
    return Made(Layout(members), sources, digests)


def sha256(archive: Made) -> str:
    digest = hashlib.sha256()
    for piece in archive.layout.plan(0, archive.layout.size):
        if not isinstance(piece, Data):
            digest.update(piece)
            continue
        for offset in range(0, piece.length, len(_ZEROS)):
            length = min(len(_ZEROS), piece.length - offset)
            source = archive.sources[piece.source]
            digest.update(source.part(piece.offset + offset, length))
    return digest.hexdigest()


def test_version() -> None:
    assert FORMAT_VERSION == 1


@each_golden
def test_bytes(name: str) -> None:
    archive, golden = made(name), GOLDEN[name]
    assert (archive.layout.size, sha256(archive)) == (golden.size, golden.sha256)


@each_golden
def test_validators(name: str) -> None:
    archive, golden = made(name), GOLDEN[name]
    content = validators.content_id(archive.layout, archive.digests)
    seconds = validators.first_mtime(validators.date(archive.layout), content)
    inode = validators.inode(b"archive", ARCHIVE, content.to_bytes(16, "big"))
    assert (content, validators.mtime_ns(seconds, content), inode) == (
        golden.content_id,
        golden.mtime_ns,
        golden.inode,
    )


@each_golden
def test_readers_take_it(name: str) -> None:
    archive = made(name)
    file = PlannedArchive(archive.layout, archive.part)
    entries = read_archive(file, check_data=name != "large")
    with zipfile.ZipFile(file) as reader:
        infos = reader.infolist()
        if name in SMALL:
            assert reader.testzip() is None
    members = archive.layout.members
    assert [(entry.name.encode(), entry.size, entry.crc32) for entry in entries] == [
        (member.name, member.size, member.crc32) for member in members
    ]
    assert [(info.filename.encode(), info.file_size, info.CRC) for info in infos] == [
        (member.name, member.size, member.crc32) for member in members
    ]


@pytest.mark.parametrize("name", [name for name in SMALL if name not in ("dates", "nothing")])
def test_from_a_library(name: str, tmp_path: Path) -> None:
    """The same from real files: names, order, times and checksums as the product takes them.

    Not ``dates``: no file system holds all of them.
    """
    golden = GOLDEN[name]
    folder = os.fsencode(tmp_path / "roms" / "game")
    for path, source in golden.files.items():
        target = os.path.join(folder, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Path(os.fsdecode(target)).write_bytes(source.part(0, source.size))
        os.utime(target, (0, source.mtime))
    library = Library(os.fsencode(tmp_path))
    index = Index(str(tmp_path / "index"))
    try:
        sealer = Sealer(library, index, globs=(b"roms/*",), settle=0)
        records = {}
        for file in library.scan(b"roms/game", sealer.policy).files:
            records[file.source] = (file.state, hashed(library.absolute(file.source), file.state))
        index.put_files(records)
        _, version = sealer.examine(b"roms/game", b"roms/game", whole=True)
    finally:
        index.close()
    assert version is not None
    digest = hashlib.sha256()
    for piece in version.plan(0, version.size):
        if isinstance(piece, Data):
            path = library.absolute(version.files[piece.source].source)
            data = Path(os.fsdecode(path)).read_bytes()
            digest.update(data[piece.offset : piece.offset + piece.length])
        else:
            digest.update(piece)
    assert digest.hexdigest() == golden.sha256
    assert version.sealed == Sealed(
        path=ARCHIVE,
        content=golden.content_id,
        inode=golden.inode,
        size=golden.size,
        mtime_ns=golden.mtime_ns,
        access=version.sealed.access,
        count=len(golden.files),
    )


def hashed(path: bytes, state: FileState) -> Checksums:
    hasher = FileHasher(path, state)
    try:
        checksums = hasher.advance(state.size)
    finally:
        hasher.close()
    assert checksums is not None
    return checksums
