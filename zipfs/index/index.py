"""The index: checksums in a SQLite file, with the tables of :class:`zipfs.index.tables.Store`.

Losing the file costs only time (DESIGN S3): what becomes of one that is damaged, or can't be
written, is in :mod:`zipfs.index.indexfile`.

Every method may touch the disk: call it from a worker thread. Thread-safe.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

from zipfs.index.gate import Claims, Unshared
from zipfs.index.indexfile import IndexFile
from zipfs.index.rows import Made, MadeAt, Published, Record
from zipfs.index.tables import Store
from zipfs.library.filestate import Checksums, FileState

if TYPE_CHECKING:
    from zipfs.index.gate import Gate
    from zipfs.index.shared.state import HeadFacts

_NOTHING: Final = FileState(0, -1, 0, 0), Checksums(0, bytes(16))
"""A record in place of one that can't be deleted; no file has this size."""
_BATCH: Final = 5000
"""Number of files that are asked for at a time; a list can have half a million."""
_TURN: Final = 0.001
"""Seconds between two batches, in which others get the index: a lock alone isn't fair."""


class UnissuedError(Exception):
    """A modification time has to be agreed on with others, which takes about *seconds*."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no modification time for {seconds} seconds")
        self.seconds = seconds


class Index(IndexFile):
    """The index of a library's files and archives, in its file."""

    @property
    def gate(self) -> Gate | None:
        """Which files are to be hashed here; None: all."""
        return None

    @property
    def claims(self) -> Claims:
        """The same for commands, which have joined."""
        return Unshared()

    def join(self) -> None:
        """For commands, which have time: be in step with others who share it."""

    def head_facts(self) -> HeadFacts | None:
        """Figures of what is shared with others; None: nothing is."""
        return None

    def files(self, paths: Iterable[bytes]) -> dict[bytes, Record]:
        """The records of those of *paths* that have one, without :attr:`Checksums.blocks`."""
        found: dict[bytes, Record] = {}
        remaining = iter(paths)
        batch = list(islice(remaining, _BATCH))
        while batch:
            with self._lock:
                found |= self._merged(functools.partial(_files, batch))
            if batch := list(islice(remaining, _BATCH)):
                time.sleep(_TURN)
        return found

    def put_files(self, records: Mapping[bytes, Record]) -> None:
        """Save *records*, by path; they replace earlier ones of the same paths."""
        with self._lock:
            self._writing(lambda store: store.put_files(records))

    def forget_files(self, digests: Mapping[bytes, bytes]) -> None:
        """Forget the checksums of each path that are those of the content with its digest."""
        with self._lock:
            self._writing(lambda store: store.forget_files(digests))
            known = self._merged(lambda store: dict(store.files(list(digests))))
            left = {p: _NOTHING for p, (_, found) in known.items() if found.digest == digests[p]}
            if left:  # the file can't be written
                self._writing(lambda store: store.put_files(left))

    def files_after(self, path: bytes) -> tuple[list[tuple[bytes, Record]], bytes | None]:
        """Some files on disk with a path after *path*, and the path to continue from, if any."""
        with self._lock:
            return next(self._reading(lambda store: store.files_after(path)), ([], None))

    def prune(self, paths: Collection[bytes], *, blocks: bool = True) -> None:
        """Forget the files at *paths*, which are gone; with *blocks* those of no file, too."""
        with self._lock:
            self._writing(lambda store: store.prune(paths, blocks=blocks))

    def missing(self, paths: Collection[bytes]) -> dict[bytes, int]:
        """Since when those of *paths* are missing that are known to be; Unix time."""
        with self._lock:
            return self._merged(lambda store: store.missing(paths))

    def put_missing(self, changes: Mapping[bytes, int | None]) -> None:
        """Save since when files are missing; None: they are there."""
        with self._lock:
            self._writing(lambda store: store.put_missing(changes))

    def has_files(self) -> bool:
        """Whether there is a record of any file."""
        with self._lock:
            return any(self._reading(lambda store: store.has_files()))

    def blocks(self, digest: bytes) -> bytes | None:
        """The checksums of the blocks of the content with *digest*; None if unknown."""
        with self._lock:
            return next(filter(None, self._reading(lambda store: store.blocks(digest))), None)

    def issued(self, path: bytes) -> dict[int, int]:
        """The modification times, in Unix seconds, that were issued at *path*, by content."""
        with self._lock:
            return self._merged(lambda store: store.issued(path))

    def issue(
        self, path: bytes, content: int, choose: Callable[[Callable[[int], bool]], int]
    ) -> int:
        """The modification time, in Unix seconds, of *content* at the archive *path*.

        The one that was issued before, or else *choose(taken)*, which is saved; *taken* returns
        whether a time was issued to another content of *path* (DESIGN V3). A shared index
        raises :exc:`UnissuedError`.
        """
        with self._lock:
            known = self._merged(lambda store: store.issued(path))
            if content in known:
                return known[content]

            def give(store: Store) -> None:
                # Read again in the transaction: another process can have issued it meanwhile.
                known.update(store.issued(path))
                if content not in known:
                    known[content] = choose(frozenset(known.values()).__contains__)
                store.put_issued(path, content, known[content])

            self._writing(give)
            if content not in known:
                known[content] = choose(frozenset(known.values()).__contains__)
            return known[content]

    def put_issued(self, issued: Iterable[tuple[bytes, int, int]]) -> None:
        """Save modification times, each with its path and content, in place of others."""
        rows = list(issued)

        def put(store: Store) -> None:
            for row in rows:
                store.put_issued(*row)

        with self._lock:
            self._writing(put)

    def issued_after(
        self, after: tuple[bytes, bytes]
    ) -> tuple[list[tuple[bytes, int]], tuple[bytes, bytes] | None]:
        """Some of what is issued on disk, by path and content after *after*; where to go on."""
        with self._lock:
            return next(self._reading(lambda store: store.issued_after(after)), ([], None))

    def archive(self, path: bytes) -> Published | None:
        """What was last saved of the archive at *path*; None if nothing was."""
        with self._lock:
            found = [*filter(None, self._reading(lambda store: store.archive(path)))]
        return found[-1] if found else None

    def archives_after(self, path: bytes) -> tuple[list[tuple[bytes, Published]], bytes | None]:
        """Some archives with a path after *path*, and the path to continue from, if any."""
        with self._lock:
            # What isn't on disk was put in by this process, which knows it.
            return next(self._reading(lambda store: store.archives_after(path)), ([], None))

    def folders(self) -> dict[bytes, int]:
        """When the listing of each folder last changed, in nanoseconds since the epoch."""
        with self._lock:
            return self._merged(lambda store: store.folders())

    def put_dates(self, archives: Mapping[bytes, Published], folders: Mapping[bytes, int]) -> None:
        """Save what is at the paths of *archives*, and when the listings of *folders* changed."""
        with self._lock:
            self._writing(lambda store: store.put_dates(archives, folders))

    def games(self, folder: bytes) -> dict[bytes, MadeAt]:
        """What the archives of the games in *folder* were, by the games' names."""
        with self._lock:
            return self._merged(lambda store: store.games(folder))

    def game(self, path: bytes) -> MadeAt | None:
        """The same for the game at *path*; None if nothing is known."""
        folder, _, name = path.rpartition(b"/")
        with self._lock:
            return self._merged(lambda store: store.games(folder, name)).get(name)

    def put_games(self, games: Mapping[bytes, Made | None]) -> None:
        """Save what archives are, by the games' paths; None: there is none any more."""
        split = {}
        for path, made in games.items():
            folder, _, name = path.rpartition(b"/")
            split[folder, name] = made
        with self._lock:
            self._writing(lambda store: store.put_games(split))


def _files(paths: Iterable[bytes], store: Store) -> dict[bytes, Record]:
    return dict(store.files(paths))
