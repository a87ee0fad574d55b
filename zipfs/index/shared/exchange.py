"""Bringing an index and the shared one in step, by small steps.

In this order, each time: what was hashed here is told before what others changed is read, so that
of two results for a file the later one wins everywhere, whoever was away meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol

from zipfs.archive.validators import DAY
from zipfs.index.rows import Record
from zipfs.index.shared.ledger import NOWHERE, Cursor, Ledger
from zipfs.index.shared.postgresql.database import BATCH, Database, Library
from zipfs.index.shared.postgresql.rows import Issued, Row, forgetting
from zipfs.library.filestate import FileState

Choose = Callable[[Callable[[int], bool]], int]
"""Chooses a modification time; its argument returns whether one is taken."""


_LATE: Final = 60_000_000_000
"""Nanoseconds within which checksums that are to be shared are in the index."""


class Cache(Protocol):
    """The index of this head, as far as it is shared."""

    def is_empty(self) -> bool:
        """Whether it has no file."""

    def records(self, paths: Sequence[bytes]) -> dict[bytes, Record]:
        """The records of *paths*, with their blocks."""

    def all_files(self) -> Iterator[bytes]:
        """The paths of all files."""

    def all_issued(self) -> Iterator[tuple[bytes, int]]:
        """The path and content of each modification time that was issued."""

    def issued_to(self, path: bytes, content: int) -> int | None:
        """The modification time of *content* at *path*."""

    def take(self, rows: Sequence[Row]) -> list[tuple[bytes, FileState]]:
        """Save *rows* of others; returns the files, and their states, that are known by them."""

    def take_issued(self, issued: Iterable[Issued]) -> list[bytes]:
        """Save these; returns the paths whose content had another time until now."""


class Listener(Protocol):
    """Is told what has changed, in any thread."""

    def known(self, files: Sequence[tuple[bytes, FileState]]) -> None:
        """The checksums of *files*, each in its state, are in the index now."""

    def reissued(self, archives: Sequence[bytes]) -> None:
        """The contents of *archives* have other modification times than they had until now."""


class Exchange:
    """Brings *cache* in step with *database*, and tells *listener*."""

    def __init__(
        self, database: Database, cache: Cache, ledger: Ledger, listener: Listener, counts: Counts
    ) -> None:
        self._database = database
        self._cache = cache
        self._ledger = ledger
        self._listener = listener
        self._counts = counts
        self._cursor = NOWHERE

    def begin(self, place: str, name: str, library: Library) -> bool:
        """Where it was left off in the library *name* at *place*; returns whether it was there.

        If not, or if the database is at an earlier state than it was, all is compared.
        """
        cursor = self._ledger.cursor
        database, _, timeline = place.partition("/")
        there = (
            cursor.library == name
            and cursor.seq <= library.seq
            and cursor.database.partition("/")[0] == database
            and (not timeline or cursor.database == place)
            and not self._cache.is_empty()
        )
        if there:
            self._cursor = cursor
        else:
            self._cursor = Cursor(place, name, 0, is_whole=self._cache.is_empty())
        return there

    def leave(self) -> None:
        """Files aren't shared, as their states mean something else here."""
        self._ledger.drop_files()
        self._ledger.move(NOWHERE)

    @property
    def is_whole(self) -> bool:
        """Whether what the index had before this database is in it as well."""
        return self._cursor.is_whole

    # -- From here to there ---------------------------------------------------------

    def push_all(self) -> Iterator[None]:
        """Save what isn't known to be in the shared index, in steps."""
        paths = self._cache.all_files()
        while batch := list(islice(paths, BATCH)):
            waiting = self._ledger.waits(batch)
            records = self._cache.records([path for path in batch if path not in waiting])
            now = time.time_ns()
            self._put(
                [
                    Row(path, *record, _hashed_after(record[0], now))
                    for path, record in records.items()
                ]
            )
            yield
        issued = self._cache.all_issued()
        while some := list(islice(issued, BATCH)):
            self._reissue(some)
            yield
        self._move(self._cursor._replace(is_whole=True))

    def push(self) -> bool:
        """Save some of what waits; returns whether there may be more."""
        files = self._ledger.files(BATCH)
        rows: list[Row] = []
        if files:
            hashed = [path for path, waiting in files.items() if not waiting.forgotten]
            records = self._cache.records(hashed)
            rows = [
                Row(path, *records[path], files[path].at_ns) for path in hashed if path in records
            ]
            rows += [
                forgetting(path, waiting.forgotten, waiting.at_ns)
                for path, waiting in files.items()
                if waiting.forgotten
            ]
            # What isn't in the index yet is being saved there just now. Or it never will be.
            late = time.time_ns() - _LATE
            told = {row.path for row in rows}
            done = {p: w for p, w in files.items() if p in told or w.at_ns < late}
            self._put(rows, lambda: self._ledger.shared(done))
        if issued := self._ledger.issued(BATCH):
            self._reissue(issued)
            self._ledger.shared_issued(issued)
        return len(rows) == BATCH or len(issued) == BATCH

    def _put(self, rows: Sequence[Row], done: Callable[[], object] = lambda: None) -> None:
        lost = self._database.put(rows, self._counts.damaged) if rows else []
        self._counts.shared += len(rows) - len(lost)
        done()
        if lost:
            self._take(lost)

    def _reissue(self, issued: Sequence[tuple[bytes, int]]) -> None:
        """Have times that were issued here, without asking, issued by all."""
        wanted: dict[tuple[bytes, int], Choose] = {}
        for path, content in issued:
            seconds = self._cache.issued_to(path, content)
            if seconds is not None:
                wanted[path, content] = _near(path, seconds)
        self.issue(wanted)

    def issue(self, wanted: Mapping[tuple[bytes, int], Choose]) -> None:
        """Have a time issued for each path and content, and save it."""
        if wanted:
            found = self._database.issue(wanted)
            self._take_issued(Issued(*key, seconds) for key, seconds in found.items())

    # -- From there to here ---------------------------------------------------------

    def pull(self, *, files: bool) -> Iterator[None]:
        """Take over all changes, in steps; with *files* those of files as well."""
        until = self._database.library().seq
        last: int | None = self._cursor.seq
        while last is not None and last < until:
            issued, last = self._database.changed_issued(last, until, self._counts.damaged)
            self._take_issued(issued)
            yield
        last = self._cursor.seq if files else None
        while last is not None and last < until:
            rows, last = self._database.changed_files(last, until, self._counts.damaged)
            self._take(rows)
            if last is not None:
                self._move(self._cursor._replace(seq=last))
            yield
            time.sleep(0)  # others want the index, and the interpreter
        if self._cursor.seq != until:
            self._move(self._cursor._replace(seq=until), save=files)

    def _take(self, rows: Sequence[Row]) -> None:
        if known := self._cache.take(rows):
            self._listener.known(known)
        self._counts.taken += len(rows)

    def took(self, rows: Sequence[Row]) -> None:
        """Take over *rows*, which were the answer to a question."""
        self._take(rows)

    def _take_issued(self, issued: Iterable[Issued]) -> None:
        if changed := self._cache.take_issued(issued):
            self._listener.reissued(changed)

    def _move(self, cursor: Cursor, *, save: bool = True) -> None:
        self._cursor = cursor
        if save:
            self._ledger.move(cursor)


class Counts:
    """What was exchanged since the start."""

    def __init__(self) -> None:
        self.taken = 0
        """Rows of files that were taken over, its own among them."""
        self.shared = 0
        """Rows of files that were saved."""
        self.damaged: Final = [0]
        """One number: rows with a wrong seal."""


def _hashed_after(state: FileState, now: int) -> int:
    """A time before *now* that is before a file with *state* was hashed, but after it had others.

    When that was isn't known. What others have hashed of it, in a later state, is later; and what
    they have of it in an earlier state, such as a standby that hasn't got all, isn't. Clocks and
    times of files may be wrong: then it is hashed once more.
    """
    return max(0, min(max(state.mtime_ns, state.ctime_ns), now))


def _near(path: bytes, seconds: int) -> Choose:
    """Chooses *seconds*, or a time near it, by the rules of who issued it."""
    # Archives move into the past by days (DESIGN V3), files by seconds, see catalog/singles.
    step = 1 if path.endswith(b"/") else -DAY

    def choose(taken: Callable[[int], bool]) -> int:
        free = seconds
        while taken(free):
            free += step
        return free

    return choose
