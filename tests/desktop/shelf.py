"""The library on the desktop: a platform with all kinds of things, one of odd names, a big one."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Final

from tests.support.libraries import MTIME, content, make_file, make_game

GAME: Final = "Final Fantasy VII"
"""A game of two discs, and so with a playlist."""
DISCS: Final = {"Disc 1.chd": content(3_000_000, 1), "Disc 2.chd": content(2_000_000, 2)}
SMALL: Final = "Ape Escape"
STORED: Final = "Dragon.zip"
"""A file of the library that is a ZIP already: what any archive is to look like."""
SINGLE: Final = "Single"
"""A folder with one file, which stays a folder."""
DISC: Final = "Wipeout.chd"
PICTURE: Final = "cover.png"
"""File managers show a thumbnail of it."""
COLOUR: Final = b"\x20\x60\xa0"
"""What it is filled with: red, green, blue."""
SHOWN: Final = (SINGLE, f"{SMALL}.zip", PICTURE, STORED, f"{GAME}.zip", DISC)
"""What the folder ``roms/psx`` of the mount has, in the order of file managers."""

ODD: Final = ("new\nline", "<b>&amp; 100% $(x)", "\u202ertl \u05e9\u05dc\u05d5\u05dd", "-rf")
NOT_UTF8: Final = b"bad \xff\xfe name"

MANY: Final = 2000
_DAY: Final = 86_400


def make_platform(library: Path) -> None:
    """The folder ``roms/psx``."""
    make_game(library, f"roms/psx/{GAME}", DISCS)
    files = {"ape.cue": b"FILE ape.bin", "ape.bin": content(70_000), "extras/a.txt": b"a"}
    make_game(library, f"roms/psx/{SMALL}", files, mtime=MTIME + 1000 * _DAY)
    make_game(library, f"roms/psx/{SINGLE}", {"Single.chd": content(5000)})
    make_file(library / "roms/psx" / DISC, content(1_234_567))
    make_file(library / "roms/psx" / PICTURE, _png(640, 480), mtime=MTIME + _DAY)
    with zipfile.ZipFile(library / "roms/psx" / STORED, "w") as archive:
        archive.writestr("a", b"a")


def make_odd(library: Path) -> None:
    """The folder ``roms/odd``: names that are hard on somebody."""
    for name in ODD:
        make_game(library, f"roms/odd/{name}", {"a": b"1", "b": b"2"})
    make_game(library, b"roms/odd/" + NOT_UTF8, {"a": b"1", "b": b"2"})


def make_many(library: Path) -> None:
    """The folder ``roms/many``: each game is older than the one before."""
    for number in range(MANY):
        files = {"a": b"%d" % number, "b": b"2"}
        game = f"roms/many/Game {number:04}"
        # Two days, as an archive's date is that of the files or the day before.
        make_game(library, game, files, mtime=MTIME - 2 * _DAY * number)


def _png(width: int, height: int) -> bytes:
    """A picture of one colour."""
    lines = (b"\0" + COLOUR * width) * height

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )
