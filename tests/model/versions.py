"""The model: which versions a game has had, and what each of them looks like.

It knows nothing of how zipfs finds, keeps or reads an archive. Bytes come from the plain
writer in :mod:`tests.reference`, validators from the pure functions that state them.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import xxhash

from tests import reference
from zipfs.archive import validators
from zipfs.archive.layout import Layout
from zipfs.archive.names import entry_names
from zipfs.archive.records import Member, archive_time

RECENT: Final = 10.0
"""Seconds for which the mount may still show what the library was: the second for which the
kernel believes us and the one for which we believe ourselves, and a busy machine."""


class ModelError(AssertionError):
    """The mount did what it must not do."""


def check(condition: object, message: str) -> None:
    if not condition:
        raise ModelError(message)


class Blob:
    """The content of a file at some time."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @cached_property
    def crc32(self) -> int:
        return zlib.crc32(self.data)

    @cached_property
    def digest(self) -> bytes:
        return xxhash.xxh3_128_digest(self.data)


class Source:
    """A file of the library, whatever it is called: what an open descriptor leads to.

    *writes* counts what happened to it in place. That is what a pinned file doesn't survive;
    other names, none at all, or another mode make no difference.
    """

    def __init__(self, blob: Blob) -> None:
        self.blob = blob
        self.writes = 0


@dataclass(frozen=True)
class Part:
    """A file of a game at one moment. *path* is relative to the game's folder."""

    path: bytes
    source: Source
    blob: Blob
    mtime_ns: int
    writes: int
    """Of *source*, at that moment."""


class Version:
    """One archive: what *parts* and empty *folders* make at *path* in the mount.

    *times*: number of times of a day that contents are given first.
    """

    def __init__(
        self, path: str, parts: list[Part], folders: list[bytes], times: int = validators.DAY
    ) -> None:
        names = entry_names([*(part.path for part in parts), *folders])
        ordered = sorted(
            parts, key=lambda part: (names[part.path].rpartition(b"/")[2], names[part.path])
        )
        files = [(names[part.path], part.blob, _seconds(part)) for part in ordered]
        newest = max(mtime for _, _, mtime in files)
        made = [(names[folder] + b"/", Blob(b""), newest) for folder in folders]
        self.files = sorted(files + made, key=lambda file: _order(file[0]))
        layout = Layout(
            Member(name=name, size=len(blob.data), mtime=mtime, crc32=blob.crc32)
            for name, blob, mtime in self.files
        )
        self.content = validators.content_id(layout, (blob.digest for _, blob, _ in files))
        self.inode = validators.inode(b"archive", path.encode(), self.content.to_bytes(16))
        self.size = layout.size
        self.first = validators.first_mtime(validators.date(layout), self.content % times)
        self.shown: int | None = None
        """The ``st_mtime_ns`` that it was seen with."""

    @cached_property
    def _pieces(self) -> reference.Pieces:
        return reference.archive(
            [
                reference.File(name=name, data=blob.data, mtime=mtime)
                for name, blob, mtime in self.files
            ]
        )

    def read(self, offset: int, length: int) -> bytes:
        """Bytes *offset* to *offset + length*, less at the end."""
        if offset >= self.size:
            return b""
        return self._pieces.read_at(offset, length)

    def __str__(self) -> str:
        files = ", ".join(f"{name.decode()} {len(blob.data)}" for name, blob, _ in self.files)
        return f"{self.inode:x} ({files})"


def _order(name: bytes) -> tuple[bytes, bytes]:
    path = name.removesuffix(b"/")
    return path.rpartition(b"/")[2], path


def _seconds(part: Part) -> int:
    return archive_time(part.mtime_ns // 1_000_000_000)


@dataclass(eq=False)
class Epoch:
    """A stretch of time in which a game was the same; *version* is None if it was no archive."""

    version: Version | None
    sources: dict[Source, int]
    """Its files, and how often each had been written to."""
    began: float
    ended: float = math.inf

    def is_untouched(self) -> bool:
        """Whether none of its files was changed in place since."""
        return all(source.writes == writes for source, writes in self.sources.items())


@dataclass(eq=False)
class History:
    """All that a game has been. *path* is that of its archive, relative to the mount."""

    path: str
    times: int = validators.DAY
    """As those of a :class:`Version`."""
    epochs: list[Epoch] = field(default_factory=list)
    versions: dict[int, Version] = field(default_factory=dict)
    """By inode."""
    _seconds: dict[int, Version] = field(default_factory=dict)
    """Versions seen, by whole-second mtime."""

    @property
    def now(self) -> Epoch:
        return self.epochs[-1]

    def note(self, parts: list[Part], folders: list[bytes], now: float) -> bool:
        """It is *parts* and empty *folders* from now on; whether that is something new."""
        version = None
        if len(parts) >= 2:
            version = Version(self.path, parts, folders, self.times)
            version = self.versions.setdefault(version.inode, version)
        sources = {part.source: part.writes for part in parts}
        if self.epochs:
            if self.now.version is version and self.now.sources == sources:
                return False
            self.now.ended = now
        self.epochs.append(Epoch(version, sources, now))
        return True

    def identify(
        self, inode: int, size: int, mtime_ns: int, now: float, recent: float = RECENT
    ) -> Version:
        """The version with these validators; raises :exc:`ModelError` if none has them.

        Nor may it be older than *recent*, in seconds (DESIGN V1, V2, V4).
        """
        version = self.versions.get(inode)
        if version is None:
            raise ModelError(f"{self.path} was never this: inode {inode:x}, {size} bytes")
        check(size == version.size, f"{self.path}: {size} bytes, not {version.size}: {version}")
        self._check_mtime(version, mtime_ns)
        check(
            any(epoch.version is version for epoch in self.recent(now, recent)),
            f"{self.path} is shown as it was long ago: {version}",
        )
        return version

    def identify_http(self, seconds: int, size: int, now: float, recent: float) -> Version:
        """The same by what an ETag has: the mtime in whole seconds, and the size."""
        version = self._seconds.get(seconds) or next(
            (
                one
                for one in self.known
                if one.size == size
                and one.shown is None
                and (one.first - seconds) % validators.DAY == 0
            ),
            None,
        )
        if version is None:
            raise ModelError(f"{self.path} was never this: {size} bytes of {seconds}")
        mtime_ns = validators.mtime_ns(seconds, version.content)
        return self.identify(version.inode, size, mtime_ns, now, recent)

    def _check_mtime(self, version: Version, mtime_ns: int) -> None:
        if version.shown is not None:
            check(version.shown == mtime_ns, f"{self.path}: another mtime than before: {version}")
            return
        back = validators.mtime_ns(version.first, version.content) - mtime_ns
        days, rest = divmod(back, validators.DAY * validators.NANOSECONDS)
        # A day back for each other version that might have had the time already (V3).
        rivals = sum((other.first - version.first) % validators.DAY == 0 for other in self.known)
        check(
            not rest and 0 <= days < rivals,
            f"{self.path}: the mtime is {back} ns off: {version}",
        )
        seconds = mtime_ns // validators.NANOSECONDS
        check(
            self._seconds.setdefault(seconds, version) is version,
            f"{self.path}: the mtime, in seconds, of two: {version}, {self._seconds[seconds]}",
        )
        version.shown = mtime_ns

    @property
    def known(self) -> list[Version]:
        return list(self.versions.values())

    @property
    def seen(self) -> int:
        """How many versions were seen in the mount."""
        return len(self._seconds)

    @property
    def moved(self) -> int:
        """How many of them have another time than their first, which was another's (V3)."""
        return sum(seconds != version.first for seconds, version in self._seconds.items())

    def recent(self, now: float, seconds: float = RECENT) -> list[Epoch]:
        """What it was so many *seconds* ago and since."""
        found = []
        for epoch in reversed(self.epochs):
            if epoch.ended < now - seconds:
                break
            found.append(epoch)
        return found

    def pins(self, version: Version, now: float) -> list[Epoch]:
        """Where an archive of *version* that is opened now may have its files from."""
        return [epoch for epoch in self.recent(now) if epoch.version is version]
