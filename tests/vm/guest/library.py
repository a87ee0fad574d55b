"""The games on a source, and what happens to each of them, at the server."""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.vm.judging import Members, digest

PLATFORM: Final = "roms/psx"
DISC: Final = "disc1.bin"
SMALL: Final = ("game.cue", "readme.txt")
"""Without its disc a game is still an archive: two files."""
SIZE: Final = 8 << 20
"""Of a disc: much more than what is on its way to a client."""
_BLOCK: Final = 1 << 20
_DATE: Final = 1_600_000_000


def content(size: int, seed: int) -> bytes:
    """*size* bytes, different at each place and for each *seed*; fast where Python is slow."""
    block = random.Random(seed).randbytes(min(size, _BLOCK))
    data = b"".join(
        struct.pack(">QQ", seed, number) + block[16:] for number in range(-(-size // _BLOCK))
    )
    return data[:size]


def write(path: Path, data: bytes, *, date: int = _DATE) -> None:
    """A file, on its disk and with its date."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.utime(path, (date, date))


def make(server: Path, folder: str, seed: int) -> None:
    """The game *folder*; all of it older than any settle time."""
    game = server / PLATFORM / folder
    shutil.rmtree(game, ignore_errors=True)
    game.mkdir(parents=True)
    write(game / DISC, content(SIZE, seed))
    for name in SMALL:
        write(game / name, content(1000, seed + 1))
    for place in (game, game.parent, game.parent.parent):
        os.utime(place, (_DATE, _DATE))


def truth(server: Path, folder: str) -> Members:
    """What an archive of the game has to have now, read at the server."""
    game = server / PLATFORM / folder
    return {file.name: digest(file.read_bytes()) for file in sorted(game.iterdir())}


def _in_place(disc: Path, data: bytes) -> None:
    with disc.open("r+b") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _put_back(disc: Path, data: bytes) -> None:
    before = os.stat(disc)
    _in_place(disc, data)
    os.utime(disc, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replaced(disc: Path, data: bytes) -> None:
    """By another file of the same size and date."""
    spare = disc.parent.parent.parent / "spare"
    write(spare, data)
    os.rename(spare, disc)


def _renamed(disc: Path, _: bytes) -> None:
    os.rename(disc, disc.with_name("disc2.bin"))


def _truncated(disc: Path, _: bytes) -> None:
    os.truncate(disc, SIZE // 2)


def _deleted(disc: Path, _: bytes) -> None:
    disc.unlink()


@dataclass(frozen=True, kw_only=True)
class Change:
    folder: str
    apply: Callable[[Path, bytes], None]
    seed: int

    @property
    def archive(self) -> str:
        return f"{PLATFORM}/{self.folder}.zip"

    def at(self, server: Path) -> Path:
        return server / PLATFORM / self.folder / DISC


CHANGES: Final[Mapping[str, Change]] = {
    name: Change(folder=f"Game {name}", apply=apply, seed=10 * number)
    for number, (name, apply) in enumerate(
        {
            "in place": _in_place,
            "dated back": _put_back,
            "truncated": _truncated,
            "replaced": _replaced,
            "renamed": _renamed,
            "deleted": _deleted,
        }.items(),
        1,
    )
}
