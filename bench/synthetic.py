"""Games of random data for measuring, and the same archives stored as plain files."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.session import Stop

BIG: Final = "Three Discs"
SMALL: Final = "Many Small Files"
MEMBERS: Final = 3
SMALL_MEMBERS: Final = 8000
SMALL_SIZE: Final = 32 << 10
CHUNK: Final = 4 << 20
MIB: Final = 1 << 20
# The library, the plain copies and both mounts' caches of both games; and room for the rest.
MEMORY_FACTOR: Final = 4
MEMORY_SPARE: Final = 1 << 30
# The library, the plain copies, and what is built first or downloaded.
DISK_FACTOR: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """One archive, in the mount and as a plain file with the same bytes."""

    name: str
    sources: Path
    mounted: Path
    plain: Path
    size: int


def check_room(folder: Path, size: int) -> None:
    """Raise :exc:`BenchError` if disk or memory can't take a game of *size* bytes.

    What doesn't stay in memory measures the disk.
    """
    total = size + SMALL_MEMBERS * SMALL_SIZE
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if free < DISK_FACTOR * total:
        raise BenchError(
            f"{folder} has {free // MIB} MiB free, and {DISK_FACTOR * total // MIB} are needed:"
            " give a smaller --size, or another folder as TMPDIR="
        )
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) << 10
            needed = MEMORY_FACTOR * total + MEMORY_SPARE
            if available < needed:
                raise BenchError(
                    f"{available // MIB} MiB of memory are available, and {needed // MIB}"
                    " are needed: give a smaller --size"
                )


def build(library: Path, size: int, stop: Stop) -> list[str]:
    """Make both games in *library*; returns the paths of their archives.

    Random bytes: neither holes nor compression of the file system make them quicker to read.
    """
    data = random.Random(1)
    folder = library / "roms/bench"
    for number in range(MEMBERS):
        _write(folder / BIG / f"disc{number + 1}.bin", size // MEMBERS, data, stop)
    for number in range(SMALL_MEMBERS):
        # As in real games: no folder with thousands of files.
        path = folder / SMALL / f"{number // 100:02}" / f"{number:04}.dat"
        _write(path, SMALL_SIZE, data, stop)
    # Written out now, and not while something is measured.
    os.sync()
    return [f"roms/bench/{name}.zip" for name in (BIG, SMALL)]


def _write(path: Path, size: int, data: random.Random, stop: Stop) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for offset in range(0, size, CHUNK):
            stop.check()
            file.write(data.randbytes(min(CHUNK, size - offset)))


def copy_out(library: Path, path: str, mountpoint: Path, stop: Stop) -> Archive:
    """Copy the archive at *path* out of the mount, into a folder beside that.

    Raises :exc:`BenchError` unless the two are the same.
    """
    mounted = mountpoint / path
    plain = mountpoint.with_name("plain") / mounted.name
    plain.parent.mkdir(parents=True, exist_ok=True)
    with plain.open("wb") as file:
        for chunk in _chunks(mounted, stop):
            file.write(chunk)
        os.fsync(file.fileno())
    size = plain.stat().st_size
    sources = (library / path).with_suffix("")
    # What is served is what was read: from here on all of them are in the page cache by reading,
    # as they are on a server. By writing, the kernel caches in larger pieces, and nginx sends
    # those up to a quarter faster.
    for cached in (mounted, plain, sources):
        drop_cache(cached)
    if mounted.stat().st_size != size or _sha256(mounted, stop) != _sha256(plain, stop):
        raise BenchError(f"{plain.name}: the copy is not what is in the mount: a defect of zipfs")
    return Archive(name=plain.stem, sources=sources, mounted=mounted, plain=plain, size=size)


def read_through(path: Path, stop: Stop) -> None:
    """Read a file, or all files in a folder, so that it is in the page cache."""
    for file in _files(path):
        for _ in _chunks(file, stop):
            pass


def drop_cache(path: Path) -> None:
    """Let the kernel forget what it has cached of a file, or of all files in a folder."""
    for file in _files(path):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _chunks(path: Path, stop: Stop) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            stop.check()
            yield buffer[:count]


def _sha256(path: Path, stop: Stop) -> bytes:
    sha = hashlib.sha256()
    for chunk in _chunks(path, stop):
        sha.update(chunk)
    return sha.digest()
