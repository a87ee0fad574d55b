"""What others put down for the head's thread, and what it has claimed for them. Thread-safe."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable
from typing import Final

from zipfs.index.shared.exchange import Choose
from zipfs.index.shared.postgresql.database import BATCH
from zipfs.library.filestate import FileState
from zipfs.library.scan import SourceFile

Key = tuple[bytes, FileState]
"""A file: its path and its state."""

_ISSUE: Final = 2.0
"""Seconds after which nobody waits for an answer about a modification time."""


class Desk:
    """Requests of a head, in the order of their kinds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered = threading.Condition(self._lock)
        self._offers: dict[Key, tuple[SourceFile, int]] = {}
        self._refused: dict[Key, SourceFile] = {}
        self._claimed: dict[Key, SourceFile] = {}
        self._wanted: tuple[int, int] | None = None
        self._taking: list[SourceFile] = []
        self._issues: dict[tuple[bytes, int], tuple[Choose, float]] = {}
        self._issuing: list[tuple[bytes, int]] = []
        self._ended = threading.Event()
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)

    # -- Put down -------------------------------------------------------------------

    def wake(self) -> None:
        """Have the thread look at once."""
        with contextlib.suppress(OSError):  # it is full, or closed
            self._bell.send(b"!")

    def offer(self, file: SourceFile, rank: int) -> None:
        """*file* is to be hashed by whoever comes first."""
        with self._lock:
            self._offers[file.source, file.state] = file, rank
        self.wake()

    def want(self, count: int, size: int) -> None:
        """Claim up to *count* files of *size* bytes; 0: none."""
        with self._lock:
            before, self._wanted = self._wanted, (count, size) if count else None
        if count and before is None:
            self.wake()

    def take(self, files: Iterable[SourceFile]) -> None:
        """Claim those of *files* that nobody else has: instead of what was put down so before."""
        with self._lock:
            self._taking = list(files)
        self.wake()

    def release(self, file: SourceFile, *, refuse: bool) -> None:
        """*file* isn't to be hashed here any more; *refuse*: as it can't be."""
        with self._lock:
            if self._claimed.pop((file.source, file.state), None) and refuse:
                self._refused[file.source, file.state] = file
        if refuse:
            self.wake()

    def issue(self, path: bytes, content: int, choose: Choose, wait: float) -> bool:
        """Have a modification time issued; False if nobody has answered for long.

        Waits for up to *wait* seconds. The answer is in the index then.
        """
        now = time.monotonic()
        with self._lock:
            _, since = self._issues.setdefault((path, content), (choose, now))
            if now - since > max(_ISSUE, wait):
                del self._issues[path, content]
                return False
            self.wake()
            if wait:
                self._answered.wait_for(lambda: (path, content) not in self._issues, wait)
            return True

    # -- Taken up, by the thread ------------------------------------------------------

    def offers(self) -> list[tuple[SourceFile, int]]:
        """Some files that are offered."""
        with self._lock:
            some = list(self._offers.items())[:BATCH]
            for key, _ in some:
                del self._offers[key]
        return [offer for _, offer in some]

    def refused(self) -> list[SourceFile]:
        with self._lock:
            files = list(self._refused.values())
            self._refused.clear()
        return files

    def wanted(self) -> tuple[int, int] | None:
        """How much to claim."""
        with self._lock:
            return self._wanted

    def has_claimed(self, files: Iterable[tuple[SourceFile, int]]) -> None:
        """*files* are claimed; no more is wanted until somebody says so."""
        with self._lock:
            self._claimed.update(((file.source, file.state), file) for file, _ in files)
            self._wanted = None

    def takes(self) -> list[SourceFile]:
        """What is to be claimed by :meth:`take`; until :meth:`has_taken`."""
        with self._lock:
            return self._taking

    def has_taken(self, files: list[SourceFile], claimed: Iterable[SourceFile]) -> None:
        """Of *files*, which :meth:`takes` returned, those are *claimed*."""
        with self._lock:
            self._claimed.update(((file.source, file.state), file) for file in claimed)
            if self._taking is files:
                self._taking = []

    def claimed(self) -> list[SourceFile]:
        with self._lock:
            return list(self._claimed.values())

    def issues(self) -> dict[tuple[bytes, int], Choose]:
        """Some modification times that are wanted; :meth:`issued` once they are there."""
        with self._lock:
            self._issuing = list(self._issues)[:BATCH]
            return {key: self._issues[key][0] for key in self._issuing}

    def issued(self) -> None:
        """What :meth:`issues` returned is in the index."""
        with self._lock:
            for key in self._issuing:
                self._issues.pop(key, None)
            self._answered.notify_all()

    def fileno(self) -> int:
        """For select(2): readable when somebody has put something down."""
        return self._ear.fileno()

    def rest(self) -> None:
        """What was put down so far will be looked at."""
        with contextlib.suppress(BlockingIOError):
            while self._ear.recv(4096):
                pass

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until :meth:`end`."""
        self._ended.wait(seconds)

    def end(self) -> None:
        """Nothing will be put down any more."""
        self._ended.set()
        self.wake()

    def close(self) -> None:
        self._ear.close()
        self._bell.close()
