"""The corpus: folders that are hard on somebody, and the archives that they have to give.

Each :class:`Case` is one game folder: its files, and what each has to be called in the
archive, written out by hand here rather than asked of zipfs. What a program finds in the
archive is compared with that.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from tests.support.libraries import MTIME, content

GIB: Final = 1 << 30
_CHUNK: Final = 1 << 20

Mount = Literal["default", "portable", "fixed", "execute", "playlists", "unprivileged"]
"""How zipfs is mounted for a case: ``--portable-names``, ``--timestamps fixed``,
``--execute-bits``, with playlists for the platform that all cases are of, or as a user who isn't
root."""


@dataclass(frozen=True, slots=True)
class File:
    """A regular file: *data*, or so many zero bytes without space on the disk.

    *name* is what it has to be called in the archive, if not by its path.
    """

    data: bytes | int = b""
    mtime: int = MTIME
    name: bytes | None = None
    tail: bytes = b""
    """What comes behind the zero bytes."""
    stated: int | None = None
    """When the archive has to say that it was modified, if not at *mtime*."""
    mode: int = 0o644

    @property
    def size(self) -> int:
        return (self.data if isinstance(self.data, int) else len(self.data)) + len(self.tail)

    def chunks(self) -> Iterator[bytes]:
        if isinstance(self.data, int):
            for offset in range(0, self.data, _CHUNK):
                yield bytes(min(_CHUNK, self.data - offset))
        else:
            yield self.data
        yield self.tail


@dataclass(frozen=True, slots=True)
class Entry:
    """What a program has to find under a name. *mtime* in Unix seconds."""

    size: int
    crc32: int
    sha256: str
    mtime: int


Files = Mapping[bytes, File]


@dataclass(frozen=True, slots=True)
class Case:
    """One game folder. *files* by path; *others* makes what else there is in the folder.

    *folders*: empty ones, by path, and what each has to be called. *heavy*: many gigabytes, or
    very many files.
    """

    name: str
    files: Callable[[], Files]
    others: Callable[[bytes], None] | None = None
    more: Callable[[], Files] = field(default=dict)
    """Files that are in the archive, and that *others* has made."""
    folders: Mapping[bytes, bytes] = field(default_factory=dict, hash=False)
    made: Callable[[], Files] = field(default=dict)
    """Members that zipfs makes, last in the archive."""
    mount: Mount = "default"
    heavy: bool = False

    def build(self, folder: bytes) -> None:
        """Make the folder."""
        os.makedirs(folder)
        for path, file in self.files().items():
            _write(folder, path, file)
        for path in self.folders:
            os.makedirs(folder + b"/" + path)
        if self.others:
            self.others(folder)

    def members(self) -> dict[bytes, File]:
        """What has to be in the archive, by name, in the order of the archive."""
        files = {**self.files(), **self.more()}
        named = {path if file.name is None else file.name: file for path, file in files.items()}
        newest = max(file.mtime if file.stated is None else file.stated for file in files.values())
        order = sorted(
            [*((name, b"", file) for name, file in named.items()),
             *((name, b"/", File(mtime=newest)) for name in self.folders.values())],
            key=lambda item: (item[0].split(b"/")[-1], item[0]),
        )  # fmt: skip
        return {**{name + slash: file for name, slash, file in order}, **self.made()}

    def entries(self) -> dict[bytes, Entry]:
        """The same, as a program has to find it."""
        return {name: _entry(file) for name, file in self.members().items()}


def _entry(file: File) -> Entry:
    crc32 = 0
    sha256 = hashlib.sha256()
    for chunk in file.chunks():
        crc32 = zlib.crc32(chunk, crc32)
        sha256.update(chunk)
    stated = file.mtime if file.stated is None else file.stated
    return Entry(file.size, crc32, sha256.hexdigest(), stated)


def _write(folder: bytes, path: bytes, file: File) -> None:
    """One component at a time: the whole path may be longer than the system takes in one."""
    *parents, name = path.split(b"/")
    here = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        for parent in parents:
            with contextlib.suppress(FileExistsError):
                os.mkdir(parent, dir_fd=here)
            below = os.open(parent, os.O_PATH | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=here)
        with open(descriptor, "wb") as stream:
            if isinstance(file.data, int):
                stream.truncate(file.data)
                stream.seek(file.data)
            else:
                stream.write(file.data)
            stream.write(file.tail)
            stream.flush()
            os.utime(descriptor, (file.mtime, file.mtime))
            os.fchmod(descriptor, file.mode)
    finally:
        os.close(here)


# ------------------------------------------------------------------------ names


def _named(*names: str) -> Callable[[], Files]:
    """Files of these names, each with a content of its own."""

    def files() -> Files:
        return {name.encode(): File(b"content of " + name.encode()) for name in names}

    return files


def _mapped(names: Mapping[bytes, str]) -> Callable[[], Files]:
    """Files that are called otherwise in the archive."""
    return lambda: {
        raw: File(b"content of " + raw, name=name.encode()) for raw, name in names.items()
    }


_LONG_ASCII: Final = "long " * 50
_DEEP_1000: Final = "/".join(f"folder {number:03}" for number in range(90))
_DEEP_5000: Final = "/".join(f"{number:03}".ljust(250, "_") for number in range(20))

_NAMES: Final = (
    Case(
        "ascii",
        _named(
            *("Game (USA) [!].bin", "a-b_c.d", "~tilde", "'apostrophe'", "&+=,;", "{braces}"),
            *("$dollar ${HOME} `id`", "^caret", "@at", "-dash", "--help", ".hidden", "100% %41"),
        ),
    ),
    Case("latin nfc", _named("Pokémon Édition.bin", "Größe/Übung.txt", "ñandú/ação.cue", "Łódź")),
    Case(
        "latin nfd",
        _named("Poke\u0301mon E\u0301dition.bin", "Gro\u0308\u00dfe/U\u0308bung.txt", "plain"),
    ),
    Case("nfc and nfd", _named("caf\u00e9", "cafe\u0301", "d\u00e9/x", "de\u0301/x")),
    Case(
        "japanese",
        _named("ゼルダの伝説/時のオカリナ.z64", "ファイナルファンタジー.cue", "ガ", "カ\u3099"),
    ),
    Case("emoji", _named("😀.txt", "👩\u200d👩\u200d👧\u200d👦/🇺🇳.bin", "☎\ufe0f")),
    Case("right to left", _named("משחק/דיסק 1.bin", "لعبة.cue", "abc \u202etxt.exe")),
    Case(
        "other planes",
        _named("\U00010348", "\U0010fffd", "\ue000", "\ufffd", "\ufeffbom", "\u2028"),
    ),
    Case("from smb", _named("Game\uf029/file\uf028", "what\uf025", "a\uf022b")),
    Case(
        "long",
        _named("x" * 255, "é" * 127 + "x", "ゼ" * 85, "😀" * 63 + "abc", _LONG_ASCII + ".bin"),
    ),
    Case("deep", _named(f"{_DEEP_1000}/file", f"{_DEEP_1000}/other")),
    Case("deeper than PATH_MAX", _named(f"{_DEEP_5000}/file", "beside")),
    Case("spaces and dots", _named(" before", "behind ", "  ", "dot.", "dots...", " /.. .", "...")),
    Case(
        "shell",
        _named('"quoted"', "#1", "50%25", "what?", "*", "a*b", "<tag>", "a|b", "[a-z]", "!x"),
    ),
    Case(
        "unsafe",
        _mapped(
            {
                b"new\nline": "new%0Aline",
                b"tab\there": "tab%09here",
                b"back\\slash": "back%5Cslash",
                b"..\\..\\climb": "..%5C..%5Cclimb",
                b"C:": "C%3A",
                b"stream.txt:Zone": "stream.txt%3AZone",
                b"\x1b[31mred": "%1B[31mred",
                b"delete\x7f": "delete%7F",
                "c1\x85".encode(): "c1%C2%85",
                b"dir:/a\rb": "dir%3A/a%0Db",
            }
        ),
    ),
    Case(
        "not utf-8",
        _mapped(
            {
                b"caf\xe9.txt": "caf%E9.txt",
                "Pokémon.bin".encode("latin-1"): "Pok%E9mon.bin",
                "ゼルダ".encode("shift-jis"): "%83[%83%8B%83_",
                b"\xed\xa0\x80": "%ED%A0%80",
                b"\xc0\xaf\xc0\xae": "%C0%AF%C0%AE",
                b"d\xff/\xfe": "d%FF/%FE",
            }
        ),
    ),
    Case(
        "too long once mapped",
        _mapped(
            {
                b"\xff" * 255: "%FF" * 79 + "~c96173bbcef0ef20",
                b"a" * 240 + b":" * 11 + b".bin": "a" * 234 + "~5c05339f6c67d015.bin",
            }
        ),
    ),
    Case(
        "clash once mapped",
        _mapped(
            {
                b"a%3Ab": "a%3Ab",
                b"a:b": "a%3Ab (2)",
                b"%FF.bin": "%FF.bin",
                b"\xff.bin": "%FF (2).bin",
                b"d%3A/x": "d%3A/x",
                b"d:/x": "d%3A (2)/x",
            }
        ),
    ),
    Case("letter case", _named("readme", "README", "Readme", "dir/a", "DIR/a", "Dir/A", "ß", "SS")),
    Case(
        "windows devices",
        _named("CON", "con.txt", "AUX/NUL.bin", "COM1", "LPT9.cue", "COM¹", "PRN "),
    ),
    Case(
        "portable",
        _mapped(
            {
                b"readme": "readme (3)",
                b"README": "README",
                b"Readme": "Readme (2)",
                b"what?*.bin": "what%3F%2A.bin",
                b'"<|>"': "%22%3C%7C%3E%22",
                b"dot.": "dot%2E",
                b"space ": "space%20",
                b"CON": "%43ON",
                b"nul.txt": "%6Eul.txt",
                b"lpt1 .a": "%6Cpt1 .a",
                b"COM1/x": "%43OM1/x",
                b"consult": "consult",
                "é".encode(): "é (2)",
                "e\u0301".encode(): "e\u0301",
                "Straße".encode(): "Straße (2)",
                b"STRASSE": "STRASSE",
                b"back\\slash": "back%5Cslash",
                b"Disc/1": "Disc/1",
                b"disc": "disc (2)",
            }
        ),
        mount="portable",
    ),
)

# ------------------------------------------------------------------------ files


def _dates() -> Files:
    moments = {
        # 0x5455 says the rest exactly; from 2038 on there is DOS time only, in twos, to 2107.
        b"1975": 157_766_400,
        b"1979, last second": 315_532_799,
        b"1980": 315_532_800,
        b"1980, second 1": 315_532_801,
        b"odd second": 1_600_000_001,
        b"leap day": 951_827_696,
        b"last of 31 bits": (1 << 31) - 1,
        b"2038": 1 << 31,
        b"2039, odd": 2_180_000_001,
        b"2107": 4_354_819_198,
        b"after 2107": 4_354_819_200,
    }
    stated = {b"2039, odd": 2_180_000_000, b"after 2107": 4_354_819_198}
    return {
        name: File(b"dated", mtime=moment, stated=stated.get(name))
        for name, moment in moments.items()
    }


def _zip(name: bytes, data: bytes) -> bytes:
    """A small ZIP, to be a member, whose records a reader mustn't take for those outside."""
    common = struct.pack(
        "<HHHIIIHH", 0, 0, 0x21, zlib.crc32(data), len(data), len(data), len(name), 0
    )
    local = b"PK\3\4\x14\0\0\0" + common + name + data
    central = b"PK\1\2\x14\0\x14\0\0\0" + common + bytes(14) + name
    central = central[:42] + struct.pack("<I", 0) + name
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end


def _containers() -> Files:
    inner = _zip(b"inner.txt", b"a member of a member")
    return {
        b"discs.m3u": File(b"Disc 1.cue\nDisc 2.cue\n"),
        b"inner.zip": File(inner),
        b"inner.7z": File(b"7z\xbc\xaf\x27\x1c" + content(200, "7z")),
        b"inner.tar": File(b"inner".ljust(257, b"\0") + b"ustar" + bytes(762)),
        b"self.exe": File(b"MZ" + content(500, "exe") + inner),
        b"gzipped.gz": File(b"\x1f\x8b\x08\0" + content(50, "gz")),
    }


def _signatures() -> Files:
    """Data that look like the records of a ZIP, also at the very end."""
    end = b"PK\5\6" + bytes(18)
    return {
        b"a local header": File(b"PK\3\4" + bytes(26) + b"PK\3\4"),
        b"b descriptor": File(b"PK\7\x08" + bytes(12) + b"PK\7\x08" + bytes(20)),
        b"c directory": File((b"PK\1\2" + bytes(42)) * 3),
        b"d zip64": File(b"PK\6\6" + bytes(52) + b"PK\6\7" + bytes(16) + end),
        b"z end": File(content(1000, "end") + end),
    }


def _ordinary() -> Files:
    files = {
        b"Game (Disc %d)/Track %02d.bin" % (disc, track): File(
            content(5_000 * track, disc * 100 + track)
        )
        for disc in (1, 2, 3)
        for track in range(1, 12)
    }
    return files | {b"Game (Disc %d)/Game.cue" % disc: File(b"FILE") for disc in (1, 2, 3)}


def _discs() -> Files:
    """Discs that a program finds by their names, in folders and under names hard on it."""
    discs = {
        b"Disc %d/Pok\xc3\xa9mon (Disc %d).%s" % (disc, disc, extension): File(
            content(size, disc), mtime=MTIME + disc
        )
        for disc in range(1, 12)
        for extension, size in ((b"cue", 80), (b"bin", 3000))
    }
    return discs | {
        b"#12.chd": File(b"a comment?"),
        b"DLC/13.chd": File(b"no disc"),
        b"zzz": File(b"behind the others by its name"),
    }


def _playlist() -> Files:
    lines = [f"Disc {disc}/Pokémon (Disc {disc}).cue\n" for disc in range(1, 12)]
    return {b"playlist.m3u": File("".join(["./#12.chd\n", *lines]).encode(), mtime=MTIME + 11)}


def _links(folder: bytes) -> None:
    os.symlink(b"real.bin", folder + b"/link.bin")
    os.symlink(b"dir", folder + b"/linked dir")
    os.link(folder + b"/real.bin", folder + b"/hard.bin")


def _left_out(folder: bytes) -> None:
    os.symlink(b"/etc/passwd", folder + b"/outside")
    os.symlink(b"nothing", folder + b"/dangling")
    os.mkfifo(folder + b"/fifo")
    os.mkdir(folder + b"/@eaDir")
    for name in (b"/Thumbs.db", b"/.DS_Store", b"/@eaDir/x"):
        Path(os.fsdecode(folder + name)).write_bytes(b"junk")
    here = os.getcwd()
    os.chdir(folder)  # a socket's path may have but 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(b"socket")
    finally:
        os.chdir(here)


def _not_quite_empty(folder: bytes) -> None:
    """What an operating system leaves in an empty folder, and what else isn't shown."""
    Path(os.fsdecode(folder + b"/saves/.DS_Store")).write_bytes(b"junk")
    os.makedirs(folder + b"/saves/@eaDir/deeper")
    os.rmdir(folder + b"/linked")
    os.symlink(b"saves", folder + b"/linked")
    os.makedirs(folder + b"/not empty/below")
    os.symlink(b"nothing", folder + b"/not empty/below/dangling")
    os.mkdir(folder + b"/@eaDir")


def _unreadable(folder: bytes) -> None:
    for name in (b"/closed.bin", b"/closed folder"):
        if name.endswith(b"folder"):
            os.mkdir(folder + name)
        else:
            Path(os.fsdecode(folder + name)).write_bytes(b"closed")
        os.chmod(folder + name, 0)


_REAL: Final = File(b"the real one")
_FIXED: Final = 315_619_200
"""What ``--timestamps fixed`` dates each member: 1980-01-02 00:00:00 UTC."""

_FILES: Final = (
    Case("ordinary", _ordinary),
    Case("empty among others", lambda: {b"empty": File(), b"full": File(b"full")}),
    Case("only empty", lambda: {b"a": File(), b"b/c": File(), b"z": File()}),
    Case("one byte each", lambda: {b"%02x" % byte: File(bytes([byte])) for byte in range(256)}),
    Case("dates", _dates),
    Case(
        "fixed dates",
        lambda: {name: replace(file, stated=_FIXED) for name, file in _dates().items()},
        mount="fixed",
    ),
    Case(
        "before 1970",
        lambda: {
            b"1969, last second": File(b"dated", mtime=-1, stated=315_532_800),
            b"1901": File(b"dated", mtime=-(1 << 31), stated=315_532_800),
            b"1970": File(b"dated", mtime=0),
        },
    ),
    Case(
        "empty folders",
        lambda: {b"Game.bin": File(b"a game"), b"data/levels/1": File(b"one")},
        others=_not_quite_empty,
        folders={
            b"saves": b"saves",
            b"linked": b"linked",
            b"Game": b"Game",  # in the archive before all others
            b"data/levels/empty": b"data/levels/empty",
            b"data/saves": b"data/saves",
            "Übung/ゼ".encode(): "Übung/ゼ".encode(),
            b"\xff/a:b": b"%FF/a%3Ab",
            b"a/b/c/d/e": b"a/b/c/d/e",
        },
    ),
    Case(
        "execute bits",
        lambda: {
            b"run.sh": File(b"#!/bin/sh\n", mode=0o755),
            b"bin/game": File(b"\x7fELF", mode=0o700),
            b"bin/by others": File(b"x", mode=0o645),
            b"data": File(b"data"),
            b"read-only": File(b"data", mode=0o444),
        },
        folders={b"saves": b"saves"},
        mount="execute",
    ),
    Case("playlist", _discs, made=_playlist, mount="playlists"),
    Case("containers", _containers),
    Case("signatures", _signatures),
    Case(
        "same names elsewhere",
        _named("a/a", "b/a", "a/b/a", "a.zip/a", "b/b/b/b", "ab", "c/a.zip"),
    ),
    Case(
        "links",
        lambda: {b"real.bin": _REAL, b"dir/file": File(b"in a folder")},
        others=_links,
        more=lambda: {
            b"link.bin": _REAL,
            b"hard.bin": _REAL,
            b"linked dir/file": File(b"in a folder"),
        },
    ),
    Case(
        "left out",
        lambda: {b"kept": File(b"kept"), b"also kept": File(b"also")},
        others=_left_out,
    ),
    Case(
        "unreadable",
        lambda: {b"kept": File(b"kept"), b"also kept": File(b"also")},
        others=_unreadable,
        mount="unprivileged",
    ),
    Case(
        "sparse",
        lambda: {b"hole.img": File(64 << 20, tail=b"end"), b"zeros.img": File(1 << 20)},
    ),
)

# ------------------------------------------------------------------------ sizes


def _large(size: int) -> Callable[[], Files]:
    """A member of about 4 GiB, and small ones before and behind."""
    return lambda: {
        b"a.txt": File(b"before"),
        b"disc.iso": File(size - 4, tail=b"last"),
        b"z.txt": File(b"behind"),
    }


def _many(count: int) -> Callable[[], Files]:
    return lambda: {b"%02d/%06d" % (n % 100, n): File(b"%d" % n) for n in range(count)}


_SIZES: Final = (
    Case("just below 4 GiB", _large(4 * GIB - 2000), heavy=True),
    Case("4 GiB - 2", _large(4 * GIB - 2), heavy=True),
    Case("4 GiB - 1", _large(4 * GIB - 1), heavy=True),
    Case("4 GiB", _large(4 * GIB), heavy=True),
    Case("65534 members", _many(65_534), heavy=True),
    Case("65535 members", _many(65_535), heavy=True),
    Case("65536 members", _many(65_536), heavy=True),
    Case("100000 members", _many(100_000), heavy=True),
)


CASES: Final = (*_NAMES, *_FILES, *_SIZES)
