"""Which files of a command, such as ``zipfs index``, are hashed here: those that it has claimed.

It asks for its own files alone, a batch at a time, in their order (:meth:`Desk.take`), and for the
next batch while it hashes one. What others have claimed it asks for again at the end, and then
every second: until they have hashed it, or are dead, or have given it back.

While there is nobody to share with, or nobody may be told, all is hashed here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Final

from zipfs.index.shared.desk import Key
from zipfs.index.shared.gate import COUNT, bytes_at_once
from zipfs.index.shared.head import Head
from zipfs.index.shared.state import Mode
from zipfs.library.filestate import FileState
from zipfs.library.scan import SourceFile

_LOOK: Final = 0.5
"""Seconds between two looks at whether the database answers."""
_AGAIN: Final = 1.0
"""Seconds after which what others have claimed is asked for again."""


class SharedClaims:
    """The claims of *head*; the files of which *is_own* holds aren't shared."""

    def __init__(self, head: Head, is_own: Callable[[bytes], bool]) -> None:
        self._head = head
        self._is_own = is_own
        self._changed = threading.Condition()
        """Also the lock of what follows. A file is in one of the first four."""
        self._left: dict[Key, SourceFile] = {}
        """What wasn't asked for yet."""
        self._theirs: dict[Key, SourceFile] = {}
        """What others have claimed, when it was last asked for."""
        self._mine: dict[Key, SourceFile] = {}
        """What is claimed here."""
        self._known: list[SourceFile] = []
        """What others have hashed, and nobody here was told of."""
        self._asked: list[Key] = []
        """The batch whose answer is awaited."""
        self._asked_at = 0.0
        self._hashed: list[SourceFile] = []
        """What was hashed here, and isn't saved yet; the last may be under way."""
        self._rate: float | None = None
        """Bytes a second."""

    # -- For who hashes -------------------------------------------------------------

    def each(
        self,
        files: Iterable[SourceFile],
        save: Callable[[], object],
        known: Callable[[SourceFile], object],
    ) -> Generator[SourceFile]:
        shared = {}
        try:
            for file in files:
                if self._is_own(file.source):
                    yield file
                else:
                    shared[file.source, file.state] = file
            save()
            with self._changed:
                self._left = shared
            self._head.state.changed = self._wake
            while found := self._next():
                batch, others = found
                for file in others:
                    known(file)
                yield from self._each_of(batch)
                save()
                for file in self._hashed:
                    self._head.desk.release(file, refuse=False)
                self._hashed.clear()
        finally:
            self._give_back()

    def failed(self, file: SourceFile) -> None:
        if file in self._hashed:
            self._hashed.remove(file)
            self._head.desk.release(file, refuse=True)

    def _each_of(self, batch: Sequence[SourceFile]) -> Generator[SourceFile]:
        began = time.monotonic()
        size = 0
        for file in batch:
            if self._begin(file):
                yield file
                size += file.state.size
        if size and (seconds := time.monotonic() - began) > 0:
            self._rate = size / seconds

    def _begin(self, file: SourceFile) -> bool:
        """Whether *file* is still to be hashed; it is nobody else's any more."""
        key = file.source, file.state
        with self._changed:
            found = [files.pop(key, None) for files in (self._mine, self._left, self._theirs)]
        if not any(found):
            return False
        self._hashed.append(file)
        return True

    def _next(self) -> tuple[list[SourceFile], list[SourceFile]] | None:
        """What is to be hashed here now, and what others have hashed; waits for either.

        None: nothing is left.
        """
        with self._changed:
            while True:
                shares = self._shares()
                batch = list(self._mine.values())
                if shares is False:
                    batch = _portion([*batch, *self._left.values(), *self._theirs.values()],
                                     self._rate)  # fmt: skip
                if shares and sum(file.state.size for file in batch) <= bytes_at_once(self._rate):
                    # A large one takes long enough to ask for more after it: others may be idle.
                    self._ask(ahead=bool(batch))
                known, self._known = self._known, []
                if batch or known:
                    return batch, known
                if not (self._left or self._theirs):
                    return None
                self._changed.wait(_LOOK)

    def _shares(self) -> bool | None:
        """Whether there is somebody to ask; None: it is worth waiting until that is known."""
        state = self._head.state
        if state.is_joining():
            return None
        shares = state.mode is Mode.SHARING and state.answers()
        if not shares and self._asked:
            self._asked.clear()
            self._head.desk.take(())
        return shares

    def _ask(self, *, ahead: bool) -> None:
        """Ask for the next batch, if none is asked for; *ahead*: there is work until it comes."""
        if self._asked:
            return
        batch = _portion(self._left.values(), self._rate)
        if not batch and not ahead and time.monotonic() - self._asked_at >= _AGAIN:
            batch = list(self._theirs.values())[:COUNT]
        if batch:
            self._asked = [(file.source, file.state) for file in batch]
            self._asked_at = time.monotonic()
            self._head.desk.take(batch)

    def _give_back(self) -> None:
        """What was claimed and isn't hashed is for others."""
        with self._changed:
            self._asked.clear()
            self._head.desk.take(())
            for file in (*self._mine.values(), *self._hashed):
                self._head.desk.release(file, refuse=True)
            for files in (self._left, self._theirs, self._mine):
                files.clear()
            self._known.clear()
            self._hashed.clear()

    # -- In the head's thread ---------------------------------------------------------

    def claimed(self, files: Sequence[tuple[SourceFile, int]]) -> None:
        with self._changed:
            for file, _ in files:
                key = file.source, file.state
                if self._left.pop(key, None) or self._theirs.pop(key, None):
                    self._mine[key] = file
                elif key not in self._mine:  # it came to be hashed here without
                    self._head.desk.release(file, refuse=True)
            for key in self._asked:
                if other := self._left.pop(key, None) or self._theirs.pop(key, None):
                    self._theirs[key] = other  # the last of all now
            self._asked.clear()
            self._changed.notify_all()

    def known(self, files: Sequence[tuple[bytes, FileState]]) -> None:
        with self._changed:
            for key in files:
                file = self._left.pop(key, None) or self._theirs.pop(key, None)
                if mine := self._mine.pop(key, None):  # another one thought this head dead
                    self._head.desk.release(mine, refuse=False)
                if found := file or mine:
                    self._known.append(found)
            self._changed.notify_all()

    def asked(self, files: Sequence[tuple[bytes, FileState]]) -> None:
        """What is claimed is hashed within a second, but for the largest files."""

    def reissued(self, archives: Sequence[bytes]) -> None:
        """No archive is shown here."""

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _portion(files: Iterable[SourceFile], rate: float | None) -> list[SourceFile]:
    """The first of *files*, for half a second; at least one, if there is any."""
    found: list[SourceFile] = []
    left = bytes_at_once(rate)
    for file in files:
        if left <= 0 or len(found) == COUNT:
            break
        found.append(file)
        left -= file.state.size
    return found
