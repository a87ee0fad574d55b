"""What the queue of files to be hashed holds: jobs, their ranks, and who waits for them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from zipfs.library.filestate import FileState
from zipfs.library.scan import SourceFile


class Rank(enum.IntEnum):
    """How urgent a file is; the lowest is hashed first."""

    ASKED = enum.auto()
    """A program asks for it."""
    MEMBER = enum.auto()
    """Without it an archive isn't there."""
    SINGLE = enum.auto()
    """It is passed through alone, and there all the same (:mod:`zipfs.catalog.singles`)."""


class UnexpectedError(Exception):
    """An unexpected exception in the process that hashes; the argument is its traceback."""


class Request:
    """Files that one game waits for, or a single one.

    It is done when each of them has its checksums or can't be read (:exc:`PermissionError`), and
    as soon as one fails otherwise (:exc:`ChangedError`, :exc:`OSError`, :exc:`UnexpectedError`);
    then *done* is called. *failures* are the files without checksums, each with its error.
    """

    __slots__ = ("_done", "_pending", "failures", "files", "is_done")

    def __init__(self, files: Sequence[SourceFile], done: Callable[[], object]) -> None:
        self.files = files
        self.is_done = False
        self._done = done
        self.failures: list[tuple[SourceFile, Exception]] = []
        self._pending = 0
        """Number of them in the queue."""

    def join(self, job: Job) -> None:
        """Wait for *job* as well."""
        if self not in job.requests:
            job.requests.append(self)
            self._pending += 1

    def finish(self, file: SourceFile, error: Exception | None) -> None:
        """Record that *file* has its checksums, or has none because of *error*."""
        self._pending -= 1
        if error:
            self.failures.append((file, error))
        is_over = not self._pending or (error and not isinstance(error, PermissionError))
        if is_over and not self.is_done:
            self.is_done = True
            self._done()


Key = tuple[bytes, FileState]
Position = tuple[Rank, int, int, Key]
"""A position in the queue, in sort order: rank, size, number, and file."""


@dataclass(eq=False, slots=True)
class Job:
    """A file in the queue, and its progress: *offset* bytes are hashed."""

    number: int
    file: SourceFile
    rank: Rank
    requests: list[Request] = field(default_factory=list)
    """The requests that wait for it; none if the game was examined again meanwhile."""
    offset: int = 0
    is_admitted: bool = False
    died: int = 0
    """Number of processes that ended unexpectedly at this file."""

    @property
    def key(self) -> Key:
        return self.file.source, self.file.state
