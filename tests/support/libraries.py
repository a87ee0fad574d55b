"""Libraries for tests: games of any content, and the archives that are expected of them."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import zlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import AnyStr, Final

import xxhash

from zipfs.archive import validators
from zipfs.archive.layout import Data, Layout
from zipfs.archive.names import entry_names
from zipfs.archive.records import Member, archive_time
from zipfs.sealing.members import FIXED_TIME

MTIME: Final = 1_600_000_000
"""What files are dated, if not told otherwise: 2020-09-13 12:26:40 UTC."""
_CHUNK: Final = 1 << 20


def content(size: int, seed: int | str = 0) -> bytes:
    """*size* bytes that look random and are always the same for the same *seed*."""
    return random.Random(f"{seed}").randbytes(size)


def make_file(path: Path | bytes, data: bytes | int, *, mtime: float = MTIME) -> None:
    """A file with *data*, or sparse with so many zero bytes, dated *mtime* (Unix seconds)."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        if isinstance(data, int):
            file.truncate(data)
        else:
            file.write(data)
    os.utime(path, ns=(round(mtime * 1e9), round(mtime * 1e9)))


def make_game(
    root: Path,
    game: str | bytes,
    files: Mapping[AnyStr, bytes | int],
    *,
    mtime: float = MTIME,
) -> Path:
    """The folder of a *game* in the library *root*, with *files* (see :func:`make_file`)."""
    folder = os.path.join(os.fsencode(root), os.fsencode(game))
    os.makedirs(folder, exist_ok=True)
    for name, data in files.items():
        make_file(os.path.join(folder, os.fsencode(name)), data, mtime=mtime)
    return Path(os.fsdecode(folder))


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The archive that is expected of a folder: computed from its files, by no mount."""

    layout: Layout
    files: tuple[bytes, ...]
    """Absolute paths of the members."""
    digests: tuple[bytes, ...]

    @property
    def size(self) -> int:
        return self.layout.size

    @property
    def content_id(self) -> int:
        return validators.content_id(self.layout, self.digests)

    @property
    def mtime_ns(self) -> int:
        """Of a path that has shown no other content with the same time."""
        newest = validators.date(self.layout)
        return validators.mtime_ns(validators.first_mtime(newest, self.content_id), self.content_id)

    def inode(self, path: str | bytes) -> int:
        """The inode of the archive at *path* in the mount."""
        return validators.inode(b"archive", os.fsencode(path), self.content_id.to_bytes(16))

    def read(self, offset: int, length: int) -> bytes:
        """Bytes *offset* to *offset + length*, less at the end."""
        return b"".join(self.chunks(offset, length))

    def chunks(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The same in pieces of at most 1 MiB."""
        for piece in self.layout.plan(offset, self.size if length is None else length):
            if not isinstance(piece, Data):
                yield bytes(piece)
                continue
            with open(self.files[piece.source], "rb") as file:
                file.seek(piece.offset)
                left = piece.length
                while left:
                    chunk = file.read(min(left, _CHUNK))
                    assert chunk, f"{self.files[piece.source]!r} has become shorter"
                    yield chunk
                    left -= len(chunk)

    def sha256(self) -> str:
        hasher = hashlib.sha256()
        for chunk in self.chunks():
            hasher.update(chunk)
        return hasher.hexdigest()


def expected(
    folder: Path | bytes,
    *,
    leave_out: Container[str] = (),
    playlist: tuple[str, bytes] | None = None,
    prefix: str = "",
    executable: bool = False,
) -> Expected:
    """The archive that is expected of *folder* with all that is in it, links followed.

    *leave_out* are paths relative to it that don't belong. *executable*: with the execute bits of
    files. *playlist* is the name and the
    content of one that is added; *prefix* stands before the names of all others. The files are
    looked at now, and once more when they are read.
    """
    root = os.fsencode(folder)
    sources: dict[bytes, Path | bytes] = {}
    for parent, folders, names in os.walk(root, followlinks=True):
        relative = os.path.relpath(parent, root)
        if parent != root and not folders + names and os.fsdecode(relative) not in leave_out:
            sources[os.fsencode(prefix) + relative] = b""
        for name in names:
            relative = os.path.relpath(os.path.join(parent, name), root)
            if os.fsdecode(relative) not in leave_out:
                path = Path(os.fsdecode(parent), os.fsdecode(name))
                sources[os.fsencode(prefix) + relative] = path
    names_of = entry_names(sources)
    order = sorted(sources, key=lambda path: (os.path.basename(names_of[path]), names_of[path]))
    members: list[tuple[bytes, Path | bytes]] = [
        (names_of[path] + b"/" * isinstance(sources[path], bytes), sources[path]) for path in order
    ]
    if playlist is not None:
        members.append((playlist[0].encode(), playlist[1]))
    return expected_of_members(members, executable=executable)


def expected_of_members(
    members: Sequence[tuple[bytes, Path | bytes]], *, executable: bool = False
) -> Expected:
    """The archive of *members*, in their order: each a name in it, and a file or a content.

    What is no file is dated like the newest one; a folder has a ``/`` at its name's end.
    """
    dates = {what: what.stat().st_mtime_ns for _, what in members if isinstance(what, Path)}
    times = {what: archive_time(date // 1_000_000_000) for what, date in dates.items()}
    newest = max(times.values(), default=FIXED_TIME)
    files, digests, inline, made = [], [], {}, []
    for number, (name, what) in enumerate(members):
        if isinstance(what, bytes):
            inline[number] = what
            size, mtime, crc32 = len(what), newest, zlib.crc32(what)
        else:
            size, mtime = what.stat().st_size, times[what]
            crc32, digest = _checksums(os.fsencode(what))
            files.append(os.fsencode(what))
            digests.append(digest)
        runs = executable and isinstance(what, Path) and bool(what.stat().st_mode & 0o111)
        made.append(Member(name=name, size=size, mtime=mtime, crc32=crc32, executable=runs))
    return Expected(layout=Layout(made, inline), files=tuple(files), digests=tuple(digests))


def expected_archive(folder: Path | bytes, *, leave_out: Container[str] = ()) -> bytes:
    """All bytes of :func:`expected`."""
    return b"".join(expected(folder, leave_out=leave_out).chunks())


def _checksums(path: bytes) -> tuple[int, bytes]:
    crc32 = 0
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            crc32 = zlib.crc32(chunk, crc32)
            digest.update(chunk)
    return crc32, digest.digest()


def sha256(path: Path | bytes) -> str:
    """Of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """What there was to know of one file or folder."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    data: str
    """SHA-256 of a file's content, or a link's target."""


def tree(folder: Path | bytes, *, contents: bool = True) -> dict[bytes, Snapshot]:
    """All that is in *folder*, itself included, to be compared with the same at another time.

    Without *contents* no file is read, for sparse ones of many gigabytes.
    """
    root = os.fsencode(folder)
    found = {b".": _snapshot(root, contents=contents)}
    for parent, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(parent, name)
            found[os.path.relpath(path, root)] = _snapshot(path, contents=contents)
    return found


def _snapshot(path: bytes, *, contents: bool) -> Snapshot:
    status = os.lstat(path)
    data = ""
    if stat.S_ISLNK(status.st_mode):
        data = os.fsdecode(os.readlink(path))
    elif stat.S_ISREG(status.st_mode) and contents:
        data = sha256(path)
    return Snapshot(
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        data,
    )
