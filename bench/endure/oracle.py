"""What a download has to be: independent of zipfs, and of its own reader of ZIPs.

The first archive that comes under a path and an ETag is taken apart by :mod:`zipfile`, CRCs
included; its members have to be one of the states that the game's files were in
(:mod:`.library`). It is kept, and whatever comes under the same path and ETag later has to
have the same bytes: all of them, or the same slice. That is what an ETag promises.
"""

from __future__ import annotations

import os
import shutil
import threading
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import xxhash

from bench.endure.day import WrongError
from bench.endure.library import MIB, Shelf, State, digest

KEPT: Final = 3
"""Versions that are kept of an archive whose game changes."""


@dataclass(frozen=True, slots=True)
class Good:
    """A version of an archive that was found to be right."""

    file: Path
    size: int
    digest: bytes

    def slice(self, offset: int, length: int) -> bytes | None:
        """So many bytes of it; None if it has been let go of meanwhile."""
        try:
            with self.file.open("rb", buffering=0) as file:
                return os.pread(file.fileno(), length, offset)
        except FileNotFoundError:
            return None


def etag_of(status: os.stat_result) -> str:
    """The ETag that nginx makes of a file."""
    return f'"{int(status.st_mtime):x}-{status.st_size:x}"'


class Oracle:
    """Knows what is right of *shelf*; keeps what it has seen in *folder*."""

    def __init__(self, shelf: Shelf, folder: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._shelf = shelf
        self._folder = folder
        self._known: dict[str, dict[str, Good]] = {}
        self._lock = threading.Lock()
        self._number = 0
        folder.mkdir(parents=True, exist_ok=True)

    def count(self, what: str, number: int = 1) -> None:
        """Count something that is told in the end."""
        with self._lock:
            self.counts[what] += number

    def good(self, archive: str, etag: str) -> Good | None:
        """The version of *archive* with this ETag, if it has been seen."""
        with self._lock:
            return self._known.get(archive, {}).get(etag)

    def sink(self, archive: str, etag: str) -> Sink:
        """What takes a body of *archive*, and says whether it is right."""
        return Sink(self, archive, etag)

    def check_file(self, archive: str, file: Path) -> None:
        """Raise :exc:`WrongError` unless *file*, a copy of *archive*, is a version of it."""
        found = digest(file)
        with self._lock:
            known = [good.digest for good in self._known.get(archive, {}).values()]
        if found not in known:
            self.take_apart(archive, file)
        self.count("bodies compared")

    def draft(self) -> Path:
        """A name for a file."""
        with self._lock:
            self._number += 1
            return self._folder / f"{self._number:06}.zip"

    def take_apart(self, archive: str, file: Path) -> None:
        """Raise :exc:`WrongError` unless *file* is a ZIP with the members that it must have."""
        members: set[tuple[str, bytes]] = set()
        try:
            with zipfile.ZipFile(file) as opened:
                for info in opened.infolist():
                    hasher = xxhash.xxh3_128()
                    with opened.open(info) as member:
                        while data := member.read(MIB):
                            hasher.update(data)
                    members.add((info.filename, hasher.digest()))
        except (zipfile.BadZipFile, EOFError) as error:
            raise WrongError(f"{archive}: {error}") from None
        state: State = frozenset(members)
        if state not in self._shelf.states(archive):
            raise WrongError(f"{archive}: members that its game never had")
        self.count("archives taken apart")

    def keep(self, archive: str, etag: str, file: Path, found: bytes) -> None:
        """*file* is the version of *archive* with this ETag, from now on."""
        good = Good(file, file.stat().st_size, found)
        with self._lock:
            versions = self._known.setdefault(archive, {})
            first = versions.setdefault(etag, good)
            old = []
            while len(versions) > KEPT:
                old.append(versions.pop(next(iter(versions))))
        if first is not good:
            old.append(good)
            if first.digest != found:
                raise WrongError(f"{archive}: other bytes under the ETag {etag}")
        for one in old:
            one.file.unlink(missing_ok=True)

    def compare(self, archive: str, etag: str, offset: int, data: bytes) -> bool:
        """Raise :exc:`WrongError` if *data* isn't there in *archive*; whether that is known."""
        good = self.good(archive, etag)
        expected = good.slice(offset, len(data)) if good else None
        if expected is None:
            self.count("pieces of versions not seen whole")
            return False
        if expected != data:
            raise WrongError(f"{archive} {etag}: wrong bytes in {offset}+{len(data)}")
        self.count("pieces compared")
        return True

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class Sink:
    """Takes the bytes of a version in order."""

    def __init__(self, oracle: Oracle, archive: str, etag: str) -> None:
        self.etag = etag
        self.received = 0
        self._oracle = oracle
        self._archive = archive
        self._good = oracle.good(archive, etag)
        self._hasher = xxhash.xxh3_128()
        self._draft = None if self._good else oracle.draft()
        self._file = self._draft.open("wb") if self._draft else None

    def add(self, data: memoryview | bytes) -> None:
        self.received += len(data)
        self._hasher.update(data)
        if self._file:
            self._file.write(data)

    def drop(self) -> None:
        """There won't be more."""
        if self._file:
            self._file.close()
        if self._draft:
            self._draft.unlink(missing_ok=True)

    def finish(self) -> None:
        """All of it was there: raise :exc:`WrongError` unless it is right."""
        found = self._hasher.digest()
        if self._good:
            if (self.received, found) != (self._good.size, self._good.digest):
                raise WrongError(f"{self._archive}: other bytes under the ETag {self.etag}")
        elif self._file and self._draft:
            self._file.close()
            self._oracle.take_apart(self._archive, self._draft)
            self._oracle.keep(self._archive, self.etag, self._draft, found)
        self._oracle.count("bodies compared")
