"""Keeps the book of what isn't shown true: who says what in it, and who takes it back.

A look at a game replaces what was said of that game, and a listing of a folder, or a walk
through it, what was said of the folder. What no walk leads through (folders that hold no games)
is listed again after each walk, and a single path when something is said to have changed there.

All of it belongs to trio's thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

import trio

from zipfs.library import Library
from zipfs.omissions import By, Omissions
from zipfs.outcomes import Examination, Unhashed, Unsettled
from zipfs.paths import is_within
from zipfs.sources import LeftOut, SourceFile
from zipfs.survey import lane_of
from zipfs.threads import Threads


class Reviews(Omissions):
    """The book of what *library* doesn't show."""

    def __init__(self, library: Library, threads: Threads) -> None:
        super().__init__()
        self._library = library
        self._in_thread = threads.run
        self._nursery: trio.Nursery | None = None

    def begin(self, nursery: trio.Nursery) -> None:
        """Look again in *nursery*, from now on."""
        self._nursery = nursery

    # -- Games -----------------------------------------------------------------

    def looked(self, path: bytes, last: Examination | None, examination: Examination) -> None:
        """The game at *path* was found as *examination* says, and before as *last* does."""
        self.settle(path, None)  # itself it is there
        self.replace((By.GAME, path), examination.left_out)
        waits = isinstance(examination.outcome, Unhashed | Unsettled)
        if not (waits and last and last.fingerprint == examination.fingerprint):
            self.drop((By.HASHING, path))

    def not_looked(self, path: bytes, reason: str) -> None:
        """The game at *path* couldn't be looked at."""
        self.replace((By.GAME, path), [LeftOut(path, f"can't be looked at: {reason}")])

    def unreadable(self, path: bytes, file: SourceFile, error: OSError) -> None:
        """*file* couldn't be hashed, so that the game at *path* has no archive for now."""
        left_out = LeftOut(file.source, f"can't be read: {error.strerror}")
        self.add((By.HASHING, path), left_out)

    def gone(self, path: bytes) -> None:
        """There is no game at *path*."""
        for by in (By.GAME, By.HASHING):
            self.drop((by, path))

    # -- Folders ---------------------------------------------------------------

    def listed(self, folder: bytes, found: Iterable[LeftOut]) -> None:
        """*found* is all that isn't shown of the folder with that source."""
        self.replace((By.FOLDER, folder), found)

    def walked(self, seen: set[bytes], unseen: Sequence[bytes], since: float) -> None:
        """A walk that began at *since* has *seen* these games; *unseen* doesn't answer."""
        for by in (By.GAME, By.HASHING):
            for path in self.owners(by, since):
                if path not in seen and not within(path, unseen):
                    self.drop((by, path))
        for folder in self.owners(By.FOLDER, since):
            if self._nursery and not within(folder, unseen):
                self._nursery.start_soon(self._list, folder)

    def changed(self, path: bytes) -> None:
        """Something has changed at the source *path*, which may have been left out."""
        if self._nursery and self.holds(path):
            self._nursery.start_soon(self._look, path)

    async def _look(self, path: bytes) -> None:
        with contextlib.suppress(OSError):  # then it is what it was
            entry = await self._in_thread(self._library.entry, path, lane=lane_of(path), item=path)
            self.settle(path, entry if isinstance(entry, LeftOut) else None)

    async def _list(self, folder: bytes) -> None:
        lane = lane_of(folder + b"/")
        try:
            found = await self._in_thread(self._library.folder, folder, lane=lane, item=folder)
        except (FileNotFoundError, NotADirectoryError):
            self.drop((By.FOLDER, folder))
        except OSError:
            return  # it is what it was
        else:
            self.listed(folder, (entry for _, entry in found if isinstance(entry, LeftOut)))


def within(path: bytes, folders: Iterable[bytes]) -> bool:
    """Whether *path* is one of *folders* or in one of them; all are in the library itself."""
    return any(not folder or is_within(path, folder) for folder in folders)
