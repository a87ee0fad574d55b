"""What a command claims in the shared index, in a real PostgreSQL (DESIGN K1)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.postgresql import Shared
from tests.support.waiting import poll
from zipfs.index.shared import session
from zipfs.index.shared.postgresql.database import LEASE, Database
from zipfs.index.shared.postgresql.rows import Row
from zipfs.index.shared.probe import Votes
from zipfs.index.shared.shared_index import SharedIndex
from zipfs.library.filestate import Checksums, FileState
from zipfs.library.library import Library
from zipfs.library.scan import SourceFile

NAME = "games"


@pytest.fixture
def database(shared: Shared) -> Iterator[Database]:
    """A connection of another head, without that."""
    with shared.server.connect(shared.name) as connection:
        found = Database(connection)
        found.find(NAME, make=True)
        yield found


@pytest.fixture
def index(shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedIndex]:
    """The index of a command that has joined; its files are made up."""
    monkeypatch.setattr(session, "compare_within", lambda _, recorded: Votes(len(recorded), 0, 0))
    (tmp_path / "library").mkdir()
    library = Library(str(tmp_path / "library"))
    found = SharedIndex(str(tmp_path / "index"), shared.address, NAME, library)
    with contextlib.closing(found):
        found.join()
        yield found


def wanted(number: int, size: int = 10) -> SourceFile:
    return SourceFile(b"", b"file %d" % number, FileState(number, size, 1, 2))


def row(file: SourceFile) -> Row:
    return Row(file.source, file.state, Checksums(1, bytes(16), b""), 1)


class Work:
    """A command that hashes, one file at a time."""

    def __init__(self, index: SharedIndex, files: list[SourceFile]) -> None:
        self._index = index
        self._done: list[SourceFile] = []
        self.others: list[SourceFile] = []
        self.files: Generator[SourceFile] = index.claims.each(files, self.save, self.others.append)

    def save(self) -> None:
        self._index.put_files({file.source: row(file).record for file in self._done})
        self._done.clear()

    def all(self) -> list[SourceFile]:
        """Hash all that is left to hash here."""
        found = []
        for file in self.files:
            self._done.append(file)
            found.append(file)
        return found


def test_what_is_free_is_claimed(database: Database) -> None:
    mine, other = database.enrol("mine"), database.enrol("other")
    files = [wanted(number) for number in range(6)]
    database.offer([(file, 2) for file in files[:3]], other, [0])
    assert len(database.claim(other, 2, 1 << 30)) == 2
    database.put([row(files[5])], [0])
    known, claimed = database.take(files, mine, [0])
    assert [one.path for one in known] == [files[5].source]
    assert claimed == files[2:5]
    assert database.take(files, mine, [0])[1] == claimed  # if the answer was lost
    assert database.take(files, other, [0])[1] == files[:2]
    database.refuse(other, files[:2])
    assert database.take(files, mine, [0])[1] == files[:5]


def test_what_the_dead_have_claimed_is_free(database: Database, shared: Shared) -> None:
    mine, other = database.enrol("mine"), database.enrol("other")
    files = [wanted(number) for number in range(3)]
    assert database.take(files, other, [0])[1] == files
    assert database.take(files, mine, [0])[1] == []
    shared.ask(f"UPDATE zipfs.heads SET until = until - interval '{LEASE} s' WHERE id = {other}")  # noqa: S608
    assert database.take(files, mine, [0])[1] == files


def test_what_only_a_damaged_row_tells_is_hashed(database: Database, shared: Shared) -> None:
    mine = database.enrol("mine")
    database.put([row(wanted(1))], [0])
    shared.ask("UPDATE zipfs.files SET crc32 = crc32 + 1")
    assert database.take([wanted(1)], mine, [0]) == ([], [wanted(1)])


def test_what_others_have_is_waited_for_once_all_else_is_saved(
    index: SharedIndex, database: Database, shared: Shared
) -> None:
    files = [wanted(number, number) for number in range(1, 1000)]
    other = database.enrol("other")
    theirs = files[10:20]
    assert database.take(theirs, other, [0])[1] == theirs
    work = Work(index, files)
    found: list[list[SourceFile]] = []
    thread = threading.Thread(target=lambda: found.append(work.all()))
    thread.start()
    poll("the rest to be told", lambda: shared.count("files") == 989)
    assert not work.others
    database.put([row(file) for file in theirs[:-1]], [0])
    poll("it to know these", lambda: set(work.others) == set(theirs[:-1]))
    assert thread.is_alive()
    database.refuse(other, theirs[-1:])  # it couldn't read that
    thread.join()
    assert found == [[*files[:10], *files[20:], theirs[-1]]]
    poll("it to be told", lambda: not shared.count("queue"))


def test_what_was_not_hashed_is_given_back(
    index: SharedIndex, database: Database, shared: Shared
) -> None:
    files = [wanted(number, number) for number in range(1, 6)]
    work = Work(index, files)
    first = next(work.files)
    index.claims.failed(first)
    assert next(work.files) == files[1]
    work.files.close()
    other = database.enrol("other")
    poll("all to be free", lambda: database.take(files, other, [0])[1] == files)


def test_nobody_else_claims_what_is_being_saved(
    index: SharedIndex, database: Database, shared: Shared
) -> None:
    files = [wanted(1)]
    other = database.enrol("other")
    taken: list[SourceFile] = []
    work = Work(index, files)
    save = work.save

    def saving() -> None:
        if work._done:  # not at the beginning
            taken.extend(database.take(files, other, [0])[1])
        save()

    work.files = index.claims.each(files, saving, work.others.append)
    work.files.send(None)
    work._done += files
    assert list(work.files) == []
    assert taken == []
