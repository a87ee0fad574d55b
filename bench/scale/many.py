"""Libraries of very many tiny files, for measuring what grows with their number."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.session import Stop

SPARE: Final = 1 << 30  # bytes, for the indexes
PLATFORM_GAMES: Final = 1000


def check_room(folder: Path, files: int, folders: int) -> None:
    """Raise :exc:`BenchError` if the file system of *folder* can't take so many."""
    status = os.statvfs(folder)
    # Some (btrfs, XFS) tell of no limit, or of none yet.
    if status.f_files and status.f_favail < files + folders:
        raise BenchError(
            f"{folder} has {status.f_favail:,} inodes free, and {files + folders:,} are needed:"
            " another folder as TMPDIR=, or --quick"
        )
    free = status.f_bavail * status.f_frsize
    needed = SPARE + (files + folders) * status.f_bsize
    if free < needed:
        raise BenchError(
            f"{folder} has {free >> 20} MiB free, and {needed >> 20} are needed:"
            " another folder as TMPDIR=, or --quick"
        )


def game_name(number: int) -> str:
    # As long as the names of real games.
    return f"Game {number:06} (Europe) (En,Fr,De)"


def game_path(number: int, platform_games: int = PLATFORM_GAMES) -> str:
    """Where a game is in its library."""
    return f"roms/platform{number // platform_games:03}/{game_name(number)}"


def make_games(
    library: Path, games: int, files: int, stop: Stop, platform_games: int = PLATFORM_GAMES
) -> None:
    """Make a library of *games* with so many *files* each, of a few bytes, all different."""
    for number in range(games):
        stop.check()
        folder = library / game_path(number, platform_games)
        folder.mkdir(parents=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            for file in range(files):
                _write(f"part{file:06}.bin", b"%d %d\n" % (number, file), descriptor)
        finally:
            os.close(descriptor)
    # Written out now, and not while something is measured.
    os.sync()


def make_files(folder: Path, count: int) -> None:
    """Make so many plain files with the names of archives."""
    folder.mkdir(parents=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        for number in range(count):
            _write(f"{game_name(number)}.zip", b"%d\n" % number, descriptor)
    finally:
        os.close(descriptor)


def make_sparse(library: Path, name: str, size: int) -> None:
    """Make a game of two files, one of them with *size* bytes that take no room."""
    folder = library / "roms/sparse" / name
    folder.mkdir(parents=True)
    (folder / "readme.txt").write_text(name)
    with (folder / "disc.bin").open("wb") as file:
        file.truncate(size)


def _write(name: str, data: bytes, folder: int) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
