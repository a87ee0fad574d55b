"""A shared index: heads with indexes of their own, over one database of a real PostgreSQL.

DESIGN K1 to K4. Here heads are objects in this process; tests/mount/test_shared.py has mounts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio

from tests.support.documents import block
from tests.support.postgresql import Shared
from tests.support.waiting import poll, until
from zipfs.archive.validators import DAY
from zipfs.errors import IndexFileError
from zipfs.index.hash_jobs import Rank
from zipfs.index.hash_queue import Hasher
from zipfs.index.index import Index, UnissuedError
from zipfs.index.rows import Record
from zipfs.index.shared import session
from zipfs.index.shared.ledger import Ledger
from zipfs.index.shared.postgresql import schema, statements
from zipfs.index.shared.postgresql.database import Database
from zipfs.index.shared.postgresql.migration import migrate
from zipfs.index.shared.postgresql.rows import Row
from zipfs.index.shared.probe import Votes, compare
from zipfs.index.shared.shared_index import SharedIndex
from zipfs.index.shared.state import Mode
from zipfs.library.filestate import BLOCK, Checksums, FileState
from zipfs.library.library import Library
from zipfs.library.scan import SourceFile

NAME = "games"
GAME = b"roms/psx/Game.zip"


class Told:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.files: list[tuple[bytes, FileState]] = []
        self.archives: list[bytes] = []
        self.mine: list[tuple[SourceFile, int]] = []
        self.hurried: list[tuple[bytes, FileState]] = []

    def known(self, files: Sequence[tuple[bytes, FileState]]) -> None:
        self.files += files

    def reissued(self, archives: Sequence[bytes]) -> None:
        self.archives += archives

    def claimed(self, files: Sequence[tuple[SourceFile, int]]) -> None:
        self.mine += files

    def asked(self, files: Sequence[tuple[bytes, FileState]]) -> None:
        self.hurried += files


class One:
    """A head, its index and what it was told."""

    def __init__(self, folder: Path, address: str, library: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.index = SharedIndex(str(folder / "index"), address, NAME, Library(str(library)))
        self.told = Told()
        self.head = self.index._head

    def start(self) -> One:
        self.head.start(self.told)
        poll("the head to be in step", lambda: self.mode not in (Mode.JOINING, Mode.AWAY))
        return self

    @property
    def mode(self) -> Mode:
        return self.head.state.mode

    def wait(self, mode: Mode) -> None:
        poll(f"the head to be {mode}", lambda: self.mode is mode)

    def has(self, path: bytes, record: Record) -> bool:
        found = self.index.records([path]).get(path)
        return found is not None and found == record

    def issue(self, content: int, seconds: int, path: bytes = GAME) -> int:
        """Have a time issued to *content*, *seconds* or days before that."""

        def choose(taken: Callable[[int], bool]) -> int:
            free = seconds
            while taken(free):
                free -= DAY
            return free

        found: list[int] = []

        def issued() -> bool:
            with contextlib.suppress(UnissuedError):
                found.append(self.index.issue(path, content, choose))
            return bool(found)

        poll("a time to be issued", issued)
        return found[0]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    return folder


@pytest.fixture
def heads(disks: Callable[..., One], monkeypatch: pytest.MonkeyPatch) -> Callable[..., One]:
    """Makes heads of one library, whose files are made up: ``heads("a").start()``."""
    monkeypatch.setattr(session, "compare_within", lambda _, recorded: Votes(len(recorded), 0, 0))
    return disks


@pytest.fixture
def disks(shared: Shared, tmp_path: Path, library: Path) -> Iterator[Callable[..., One]]:
    """Makes heads that look at the files of their libraries."""
    made = []

    def make(name: str, *, of: Path = library, address: str = shared.address) -> One:
        made.append(One(tmp_path / name, address, of))
        return made[-1]

    yield make
    for one in made:
        one.index.close()


def record(number: int, size: int = 10) -> Record:
    """Some checksums of a file in some state."""
    blocks = bytes(8) * -(-size // BLOCK) if size > BLOCK else b""
    digest = number.to_bytes(16)
    return FileState((1 << 64) - number, size, 7 * number, 9 * number), Checksums(
        (1 << 32) - number, digest, blocks
    )


def put(one: One, path: bytes, found: Record) -> None:
    one.index.put_files({path: found})


# ---------------------------------------------------------------- files


def test_what_one_has_hashed_all_have(heads: Callable[..., One], shared: Shared) -> None:
    first, second = heads("a").start(), heads("b").start()
    files = {b"roms/%d\xff" % n: record(n, 3 * BLOCK if n % 2 else n) for n in range(1, 2500)}
    first.index.put_files(files)
    poll("the other to have all", lambda: len(second.told.files) >= len(files))
    assert second.index.records(list(files)) == files
    assert {path for path, _ in second.told.files} == set(files)
    third = heads("c").start()  # later, with nothing
    assert third.index.records(list(files)) == files
    assert shared.count("files") == len(files)
    assert first.index.head_facts().waiting == 0


def test_a_long_path_is_one_like_others(heads: Callable[..., One]) -> None:
    first, second = heads("a").start(), heads("b").start()
    path = b"/".join([os.urandom(120).hex().encode()] * 16)
    assert len(path) > 2704  # what fits into an index of PostgreSQL
    put(first, path, record(1))
    poll("the other to have it", lambda: second.has(path, record(1)))


def test_what_is_forgotten_all_forget(heads: Callable[..., One]) -> None:
    first, second = heads("a").start(), heads("b").start()
    put(first, b"file", record(1))
    poll("the other to have it", lambda: second.has(b"file", record(1)))
    second.index.forget_files({b"file": record(1)[1].digest})
    poll("the first not to have it", lambda: not first.index.records([b"file"]))
    # The same content, if it is hashed again, is there again.
    put(second, b"file", record(1))
    poll("the first to have it", lambda: first.has(b"file", record(1)))
    first.index.forget_files({b"file": bytes(16)})  # another content, which it isn't
    put(first, b"other", record(2))
    poll("the other to have that", lambda: second.has(b"other", record(2)))
    assert second.has(b"file", record(1))
    assert heads("c").start().has(b"file", record(1))


def test_what_was_hashed_since_is_not_forgotten(heads: Callable[..., One]) -> None:
    """Somebody reads an earlier content, and finds that it isn't there any more."""
    first, second = heads("a"), heads("b").start()
    put(first, b"file", record(2))
    first.index.forget_files({b"file": record(1)[1].digest})
    first.start()
    poll("the other to have it", lambda: second.has(b"file", record(2)))


def test_another_content_is_told_though_it_was_hashed_before(heads: Callable[..., One]) -> None:
    first, second = heads("a").start(), heads("b")
    put(second, b"file", record(2))
    put(first, b"file", record(1))
    poll("it to be told", lambda: first.index.head_facts().waiting == 0)
    first.index.forget_files({b"file": record(1)[1].digest})
    poll("that to be told", lambda: first.index.head_facts().waiting == 0)
    second.start()
    poll("the other content to be here", lambda: first.has(b"file", record(2)))


def test_what_is_gone_everywhere_is_gone_there(heads: Callable[..., One], shared: Shared) -> None:
    first, second = heads("a").start(), heads("b").start()
    first.index.put_files({b"gone": record(1), b"there": record(2)})
    poll("the other to have it", lambda: second.has(b"there", record(2)))
    second.index.put_missing({b"gone": 5})  # for long, but not as long
    first.index.prune([b"gone"])
    poll("it to be told", lambda: first.index.head_facts().waiting == 0)
    put(first, b"mark", record(3))
    poll("the mark", lambda: second.has(b"mark", record(3)))
    assert second.has(b"gone", record(1))  # until it is pruned here, too
    assert not heads("c").start().index.records([b"gone"])
    with shared.server.connect(shared.name) as connection:
        database = Database(connection)
        database.find(NAME, make=True)
        database.tidy_files()
        assert shared.count("files") == 3  # all are to be told first
        shared.ask("UPDATE zipfs.files SET hashed_ns = 1 WHERE path = 'gone'")
        database.tidy_files()
        assert shared.count("files") == 2
    put(second, b"gone", record(4))  # it is back
    poll("it to be back there", lambda: first.has(b"gone", record(4)))


@pytest.mark.parametrize("way", ["pruned", "forgotten"])
def test_what_goes_while_news_of_it_are_taken_is_gone(
    heads: Callable[..., One], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """As a head's own news come back to it: it would tell all of what it has just forgotten."""
    head = heads("a").start()
    put(head, b"file", record(1))
    poll("it to be told", lambda: head.index.head_facts().waiting == 0)
    files = head.index.files
    gone: list[threading.Thread] = []

    def go() -> None:
        if way == "pruned":
            head.index.prune([b"file"])
        else:
            head.index.forget_files({b"file": record(1)[1].digest})

    def files_of_a_moment_later(paths: Sequence[bytes]) -> dict[bytes, Record]:
        if not gone and threading.current_thread() is threading.main_thread():
            gone.append(threading.Thread(target=go))
            gone[0].start()
            gone[0].join(0.5)
        return files(paths)

    monkeypatch.setattr(head.index, "files", files_of_a_moment_later)
    head.index.take([Row(b"file", *record(1), 1)])
    gone[0].join()
    assert head.index.records([b"file"]) == {}
    poll("that to be told", lambda: head.index.head_facts().waiting == 0)
    put(head, b"mark", record(3))
    poll("the mark to be told", lambda: head.index.head_facts().waiting == 0)
    assert head.index.records([b"file"]) == {}


def test_what_is_gone_on_one_head_and_there_on_another_stays(heads: Callable[..., One]) -> None:
    first, second = heads("a").start(), heads("b").start()
    put(first, b"file", record(1))
    poll("the other to have it", lambda: second.has(b"file", record(1)))
    first.index.prune([b"file"])
    poll("it to be told again", lambda: first.has(b"file", record(1)))
    assert second.has(b"file", record(1))
    assert heads("c").start().has(b"file", record(1))


def test_the_later_of_two_results_counts(heads: Callable[..., One]) -> None:
    """Whoever tells first: one was away while it hashed."""
    first, second = heads("a").start(), heads("b")
    put(second, b"file", record(1))  # not started: away
    time.sleep(0.01)
    put(first, b"file", record(2))
    poll("it to be told", lambda: first.index.head_facts().waiting == 0)
    second.start()
    poll("the later to be here", lambda: second.has(b"file", record(2)))
    assert first.has(b"file", record(2))
    third = heads("c")
    put(third, b"file", record(3))
    third.start()
    poll("the latest to be here", lambda: first.has(b"file", record(3)))
    poll("the latest to be there", lambda: second.has(b"file", record(3)))


def test_nothing_is_lost_without_a_database(
    heads: Callable[..., One], shared: Shared, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = heads("a").start(), heads("b").start()
    put(first, b"before", record(1))
    poll("the other to have it", lambda: second.has(b"before", record(1)))
    shared.server.stop()
    try:
        first.wait(Mode.AWAY)
        second.wait(Mode.AWAY)
        put(first, b"meanwhile", record(2))
        assert first.has(b"meanwhile", record(2))
        assert first.has(b"before", record(1))
        assert first.index.head_facts().waiting == 1
        assert first.index.head_facts().reason
    finally:
        shared.server.start()
    poll("the other to have it", lambda: second.has(b"meanwhile", record(2)))
    assert first.index.head_facts().waiting == 0
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 2  # one a head


def test_a_crash_after_saving_loses_nothing(
    heads: Callable[..., One], shared: Shared, tmp_path: Path
) -> None:
    """What was saved here, and not told, is told by the next start."""
    first = heads("a")
    put(first, b"file", record(1))
    first.index.close()
    assert shared.count("files") == 0
    again, second = heads("a").start(), heads("b").start()
    poll("the other to have it", lambda: second.has(b"file", record(1)))
    assert again.index.head_facts().waiting == 0


def test_what_is_just_being_saved_is_told_a_moment_later(heads: Callable[..., One]) -> None:
    """It is noted down first, and the thread that tells it may look in between."""
    first, second = heads("a").start(), heads("b").start()
    first.index._ledger.add([b"file"], time.time_ns())
    put(first, b"mark", record(2))
    poll("the mark", lambda: second.has(b"mark", record(2)))
    put(first, b"file", record(1))
    poll("the other to have it", lambda: second.has(b"file", record(1)))
    # What never came is no business of anybody.
    first.index._ledger.add([b"never"], 1)
    put(first, b"mark", record(3))
    poll("nothing to wait", lambda: first.index.head_facts().waiting == 0)


def test_what_was_there_before_is_not_told_in_place_of_what_comes(
    heads: Callable[..., One], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, with earlier checksums of the file."""
    first, second = heads("a").start(), heads("b").start()
    put(first, b"file", record(1))
    poll("the other to have it", lambda: second.has(b"file", record(1)))
    # Nor is what a head told itself taken over while it saves.
    poll("its own to be back", lambda: first.index.head_facts().taken == 1)
    save = Index.put_files

    def slowly(index: Index, records: dict[bytes, Record]) -> None:
        if index is first.index:
            first.head.desk.wake()
            poll("it to be told", lambda: first.index.head_facts().waiting == 0)
        save(index, records)

    monkeypatch.setattr(Index, "put_files", slowly)
    put(first, b"file", record(2))
    poll("the other to have the later", lambda: second.has(b"file", record(2)))


def test_an_empty_database_is_filled_again(heads: Callable[..., One], shared: Shared) -> None:
    first, second = heads("a").start(), heads("b").start()
    files = {b"%d" % n: record(n, 2 * BLOCK) for n in range(1, 1200)}
    first.index.put_files(files)
    assert first.issue(1, 5 * DAY) == 5 * DAY
    poll("the other to have all", lambda: len(second.told.files) >= len(files))
    shared.begin_anew()
    poll("all to be there again", lambda: shared.count("files") == len(files))
    poll("the time to be there again", lambda: shared.count("issued") == 1)
    third = heads("c").start()
    assert third.index.records(list(files)) == files
    assert third.issue(1, 9 * DAY) == 5 * DAY


def test_an_index_that_was_there_before_is_shared(heads: Callable[..., One]) -> None:
    first = heads("a")
    files = {b"%d" % n: record(n) for n in range(1, 1200)}
    first.index.put_files(files)
    first.index.close()
    os.unlink(first.index._ledger.file)
    first, second = heads("a").start(), heads("b").start()
    poll("the other to have all", lambda: second.index.records(list(files)) == files)


def test_an_index_that_was_lost_is_filled_again(heads: Callable[..., One], tmp_path: Path) -> None:
    first = heads("a").start()
    put(first, b"file", record(1))
    poll("it to be told", lambda: first.index.head_facts().waiting == 0)
    first.index.close()
    for file in tmp_path.glob("a/index*"):
        if not file.name.endswith(".shared"):
            file.unlink()
    assert heads("a").start().has(b"file", record(1))


def test_a_ledger_that_is_damaged_is_made_anew(
    heads: Callable[..., One], caplog: pytest.LogCaptureFixture
) -> None:
    first = heads("a").start()
    put(first, b"file", record(1))
    poll("it to be told", lambda: first.index.head_facts().waiting == 0)
    first.index.close()
    Path(first.index._ledger.file).write_bytes(b"x" * 5000)
    assert heads("a").start().has(b"file", record(1))
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("column", ["crc32", "digest", "mtime_ns", "blocks", "path", "inode"])
def test_a_damaged_row_is_no_row(heads: Callable[..., One], shared: Shared, column: str) -> None:
    first = heads("a").start()
    first.index.put_files({b"bad": record(1, 3 * BLOCK), b"good": record(2)})
    poll("it to be told", lambda: first.index.head_facts().waiting == 0)
    change = (
        f"overlay({column} placing '\\x01' from 1)"
        if column in ("digest", "blocks", "path")
        else f"{column} + 1"
    )
    shared.ask(f"UPDATE zipfs.files SET {column} = {change} WHERE path = 'bad'")  # noqa: S608
    second = heads("b").start()
    poll("the good one to be here", lambda: second.has(b"good", record(2)))
    assert not second.index.records([b"bad", b"\x01ad"])
    assert second.index.head_facts().damaged == 1


def test_two_libraries_know_nothing_of_each_other(
    shared: Shared, tmp_path: Path, library: Path, heads: Callable[..., One]
) -> None:
    first = heads("a").start()
    put(first, b"file", record(1))
    poll("it to be told", lambda: first.index.head_facts().waiting == 0)
    other = SharedIndex(str(tmp_path / "other"), shared.address, "others", Library(str(library)))
    with contextlib.closing(other):
        other.join()
        assert not other.has_files()
        other.put_files({b"file": record(2)})
        poll("it to be told", lambda: other.head_facts().waiting == 0)
    assert first.has(b"file", record(1))
    assert shared.count("files") == 2


# ---------------------------------------------------------------- modification times (V1 to V3)


def test_a_time_is_issued_by_all(heads: Callable[..., One]) -> None:
    first, second = heads("a").start(), heads("b").start()
    assert first.issue(1, 5 * DAY) == 5 * DAY
    assert second.issue(1, 5 * DAY) == 5 * DAY  # V2: the same content
    assert second.issue(2, 5 * DAY) == 4 * DAY  # V1: another one, which would have the same
    assert first.issue(2, 5 * DAY) == 4 * DAY
    assert first.issue(1, 7 * DAY) == 5 * DAY  # back again
    assert heads("c").start().issue(3, 5 * DAY) == 3 * DAY


def test_known_times_need_nobody(heads: Callable[..., One], shared: Shared) -> None:
    first = heads("a").start()
    first.issue(1, 5 * DAY)
    shared.server.stop()
    try:
        assert first.index.issue(GAME, 1, lambda taken: 1) == 5 * DAY
    finally:
        shared.server.start()


def test_times_that_were_issued_alone_are_issued_by_all_later(
    heads: Callable[..., One], shared: Shared
) -> None:
    first, second = heads("a").start(), heads("b").start()
    shared.server.stop()
    try:
        first.wait(Mode.AWAY)
        second.wait(Mode.AWAY)
        assert first.issue(1, 5 * DAY) == 5 * DAY
        assert second.issue(2, 5 * DAY) == 5 * DAY
        assert second.issue(3, 8 * DAY, b"other.zip") == 8 * DAY
    finally:
        shared.server.start()
    poll("both to be there", lambda: shared.count("issued") == 3)
    for one in (first, second):
        poll("both to be here", lambda one=one: len(one.index.issued(GAME)) == 2)  # type: ignore[misc]
    issued = first.index.issued(GAME)
    assert sorted(issued.values()) == [4 * DAY, 5 * DAY]
    assert second.index.issued(GAME) == issued
    # Whose time had to move is told so, and of no other archive.
    loser = second if issued[1] == 5 * DAY else first
    poll("it to be told", lambda: loser.told.archives == [GAME])
    winner = first if loser is second else second
    assert not winner.told.archives


def test_the_database_itself_refuses_a_clash(heads: Callable[..., One], shared: Shared) -> None:
    heads("a").start().issue(1, 5 * DAY)
    with pytest.raises(psycopg.errors.UniqueViolation):
        shared.ask(
            "INSERT INTO zipfs.issued SELECT library, key, path, %s, seconds, seal, seq"
            " FROM zipfs.issued",
            [b"\7" * 16],
        )


# ---------------------------------------------------------------- who hashes


@pytest.fixture
def databases(shared: Shared) -> Iterator[Callable[[], Database]]:
    """Makes connections of heads, without heads."""
    with contextlib.ExitStack() as stack:

        def make() -> Database:
            connection = stack.enter_context(shared.server.connect(shared.name))
            database = Database(connection)
            database.find(NAME, make=True)
            return database

        yield make


def wanted(number: int, size: int = 10) -> SourceFile:
    return SourceFile(b"", b"file %d" % number, FileState(number, size, 1, 2))


def claimed(database: Database, head: int, count: int = 100, size: int = 1 << 30) -> list[bytes]:
    return [file.source for file, _ in database.claim(head, count, size)]


def test_a_sample_is_of_this_era_among_many_of_earlier_ones(
    databases: Callable[[], Database],
) -> None:
    """And not all of those are looked through, which takes seconds."""
    database = databases()

    def put(first: int, count: int) -> None:
        rows = [
            Row(b"file %d" % n, FileState(n, 10, 1, 2), Checksums(n, n.to_bytes(16), b""), 1)
            for n in range(first, first + count)
        ]
        database.put(rows, [0])

    put(0, 3000)
    assert len(database.sample(64)) == 64
    database.new_era()
    assert database.sample(64) == []
    put(5000, 3)
    assert sorted(path for path, _ in database.sample(64)) == [
        b"file 5000",
        b"file 5001",
        b"file 5002",
    ]
    for statement in (statements.SAMPLE, statements.SAMPLE_LATEST):
        values = {"library": database._library, "count": 64, "first": b""}
        plan = database._db.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + statement, values)
        ((told,),) = plan
        assert 0 < _most_rows(told[0]["Plan"]) <= 20 * 64


def _most_rows(plan: dict[str, Any]) -> int:
    """Most rows that a part of *plan* gave."""
    return max([int(plan["Actual Rows"]), *map(_most_rows, plan.get("Plans", []))])


def test_a_file_is_claimed_once(databases: Callable[[], Database]) -> None:
    first, second = databases(), databases()
    a, b = first.enrol("a"), second.enrol("b")
    files = [(wanted(n), Rank.MEMBER) for n in range(10)]
    assert first.offer(files, a, [0]) == []
    assert second.offer(files, b, [0]) == []  # both want the same
    mine = claimed(first, a, 4)
    assert len(mine) == 4
    others = claimed(second, b)
    assert sorted(mine + others) == [file.source for file, _ in files]
    assert not claimed(first, a)


def test_two_who_claim_at_once_wait_for_nobody(
    databases: Callable[[], Database], shared: Shared
) -> None:
    """SKIP LOCKED: rows of a transaction that isn't over are passed over."""
    first, second = databases(), databases()
    a, b = first.enrol("a"), second.enrol("b")
    first.offer([(wanted(n), Rank.MEMBER) for n in range(10)], a, [0])
    with first._db.transaction():
        mine = claimed(first, a, 4)
        others = claimed(second, b)
    assert (len(mine), len(others)) == (4, 6)
    assert not set(mine) & set(others)


def test_what_is_claimed_has_a_limit(databases: Callable[[], Database]) -> None:
    database = databases()
    head = database.enrol("a")
    database.offer([(wanted(n, 1000), Rank.MEMBER) for n in range(10)], head, [0])
    assert len(claimed(database, head, size=2500)) == 3
    assert len(claimed(database, head, size=1)) == 1  # one at least, however large


def test_what_somebody_asks_for_comes_first(databases: Callable[[], Database]) -> None:
    first, second = databases(), databases()
    a, b = first.enrol("a"), second.enrol("b")
    files = [wanted(n, n) for n in range(10)]
    first.offer([(file, Rank.MEMBER) for file in files[:9]], a, [0])
    first.offer([(files[9], Rank.SINGLE)], a, [0])
    assert claimed(first, a, 2) == [files[0].source, files[1].source]  # the smallest
    second.offer([(files[7], Rank.ASKED), (files[1], Rank.ASKED)], b, [0])
    assert first.asked(a) == [(files[1].source, files[1].state)]  # it has claimed that one
    second.offer([(files[7], Rank.MEMBER)], b, [0])  # which takes nothing back
    assert claimed(first, a, 1) == [files[7].source]
    assert max(claimed(first, a)) == files[9].source


def test_the_dead_give_back_what_they_had(
    databases: Callable[[], Database], shared: Shared
) -> None:
    first, second = databases(), databases()
    a, b = first.enrol("a"), second.enrol("b")
    first.offer([(wanted(1), Rank.MEMBER)], a, [0])
    assert claimed(first, a)
    assert not claimed(second, b)
    shared.ask("UPDATE zipfs.heads SET until = now() - interval '1 s' WHERE name = 'a'")
    assert second.alive() == 1
    assert claimed(second, b)
    # Who was thought dead, and lives, is alive again.
    assert first.renew(a)
    assert first.alive() == 2
    assert not claimed(first, a)


def test_who_leaves_gives_back_what_he_had(databases: Callable[[], Database]) -> None:
    first, second = databases(), databases()
    a, b = first.enrol("a"), second.enrol("b")
    first.offer([(wanted(1), Rank.MEMBER)], a, [0])
    assert claimed(first, a)
    first.leave(a)
    assert claimed(second, b)
    assert not first.renew(a)


def test_who_is_too_long_about_it_gives_it_back(
    databases: Callable[[], Database], shared: Shared
) -> None:
    first, second = databases(), databases()
    a, b = first.enrol("a"), second.enrol("b")
    first.offer([(wanted(1, 60_000_000), Rank.MEMBER)], a, [0])
    assert claimed(first, a)
    shared.ask("UPDATE zipfs.queue SET claimed = claimed - interval '10 minutes'")
    assert not claimed(second, b)  # it is large
    shared.ask("UPDATE zipfs.queue SET claimed = claimed - interval '2 minutes'")
    assert claimed(second, b)


def test_what_one_can_not_hash_another_may(databases: Callable[[], Database]) -> None:
    first, second = databases(), databases()
    a, b = first.enrol("a"), second.enrol("b")
    first.offer([(wanted(1), Rank.MEMBER)], a, [0])
    assert claimed(first, a)
    first.refuse(a, [wanted(1)])
    assert not claimed(first, a)
    assert claimed(second, b)
    second.refuse(b, [wanted(1)])
    assert not claimed(first, a)
    first.offer([(wanted(1), Rank.MEMBER)], a, [0])  # it wants it again
    assert claimed(first, a)


def test_an_answer_that_was_lost_is_no_claim(databases: Callable[[], Database]) -> None:
    database = databases()
    head = database.enrol("a")
    database.offer([(wanted(n), Rank.MEMBER) for n in range(3)], head, [0])
    claimed(database, head)
    database.keep_claims(head, [wanted(1)])
    assert claimed(database, head) == [b"file 0", b"file 2"]


def test_what_is_known_is_not_queued(
    databases: Callable[[], Database], heads: Callable[..., One], shared: Shared
) -> None:
    database = databases()
    head = database.enrol("a")
    one = heads("a").start()
    database.offer([(wanted(1), Rank.MEMBER)], head, [0])
    put(one, wanted(1).source, (wanted(1).state, Checksums(1, bytes(16))))
    poll("it to be told", lambda: shared.count("files") == 1)
    assert shared.count("queue") == 0
    (row,) = database.offer([(wanted(1), Rank.MEMBER), (wanted(2), Rank.MEMBER)], head, [0])
    assert row.path == wanted(1).source
    assert claimed(database, head) == [b"file 2"]


# ---------------------------------------------------------------- states that aren't comparable


def filled(library: Path) -> dict[bytes, Record]:
    """Files in *library*, with records of their states."""
    found = {}
    for number in range(20):
        path = library / f"{number}"
        path.write_bytes(b"%d" % number)
        state = Library(str(library)).file(b"", entry(library, path.name)).state
        found[os.fsencode(path.name)] = state, Checksums(number, number.to_bytes(16))
    return found


def entry(library: Path, name: str) -> Any:
    found = Library(str(library)).entry(name.encode())
    assert found
    return found


def copied(library: Path, to: Path) -> Path:
    """A copy with the same sizes and mtimes, and other inodes."""
    shutil.copytree(library, to)
    return to


def test_a_copy_keeps_to_itself(
    disks: Callable[..., One], library: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Only times are issued by all: these are of contents, which are the same."""
    files = filled(library)
    first = disks("a").start()
    first.index.put_files(files)
    poll("it to be told", lambda: first.index.head_facts().waiting == 0)
    assert first.issue(1, 5 * DAY) == 5 * DAY
    second = disks("b", of=copied(library, tmp_path / "copy")).start()
    assert second.mode is Mode.ALONE
    assert "20 of 20 files have other inodes" in second.index.head_facts().reason
    assert "hashing alone" in caplog.text
    assert second.head.state.hashes_all()
    assert not second.index.has_files()
    put(second, b"0", record(1))
    assert second.issue(2, 5 * DAY) == 4 * DAY
    assert second.issue(1, 5 * DAY) == 5 * DAY
    assert second.index.head_facts().waiting == 0
    assert first.has(b"0", files[b"0"])
    assert disks("c").start().mode is Mode.SHARING


def test_a_library_on_another_disk_begins_anew(
    disks: Callable[..., One], library: Path, tmp_path: Path
) -> None:
    """With nobody there who could be right, the first one is."""
    first = disks("a").start()
    first.index.put_files(filled(library))
    poll("it to be told", lambda: first.index.head_facts().waiting == 0)
    first.index.close()
    copy = copied(library, tmp_path / "copy")
    second = disks("b", of=copy).start()
    assert second.mode is Mode.SHARING
    found = {
        p: (FileState.of(os.stat(copy / os.fsdecode(p))), c)
        for p, (_, c) in filled(library).items()
    }
    second.index.put_files(found)
    poll("it to be told", lambda: second.index.head_facts().waiting == 0)
    assert disks("c", of=copy).start().mode is Mode.SHARING
    assert disks("d").start().mode is Mode.ALONE


def test_what_has_changed_since_says_nothing(library: Path, tmp_path: Path) -> None:
    files = filled(library)
    recorded = [(path, state) for path, (state, _) in files.items()]
    (library / "0").write_bytes(b"longer than before")
    (library / "1").unlink()
    (library / "2").chmod(0o600)
    votes = compare(Library(str(library)), recorded)
    assert votes == (17, 1, 2)
    assert votes.agree
    assert compare(Library(str(copied(library, tmp_path / "x"))), recorded).agree is False
    assert compare(Library(str(tmp_path)), recorded).agree is None


def test_a_file_that_differs_on_one_head_ends_no_peace(heads: Callable[..., One]) -> None:
    """A disk mounted in the library that has other inodes on each head: each hashes it once."""
    first, second = heads("a").start(), heads("b").start()
    state, sums = record(1)
    mine, others = (state, sums), (state._replace(inode=5), sums)

    def at_peace() -> bool:
        for one, own in ((first, mine), (second, others)):
            if not one.has(b"file", own):
                put(one, b"file", own)  # as it would be hashed again
        return bool(first.index.head_facts().unlike + second.index.head_facts().unlike)

    poll("one to take nothing from the other", at_peace)
    put(first, b"file", mine)
    put(second, b"file", others)
    for one, other, number in ((first, second, 3), (second, first, 4)):
        put(one, b"mark", record(number))
        poll("the mark", lambda o=other, n=number: o.has(b"mark", record(n)))  # type: ignore[misc]
    assert first.has(b"file", mine)
    assert second.has(b"file", others)


def test_a_file_that_is_changed_often_is_shared_as_before(heads: Callable[..., One]) -> None:
    """By chmod, or restored with the same mtime: its inode and ctime are others each time."""
    first, second = heads("a").start(), heads("b").start()
    state, sums = record(1)
    for number in range(8):
        changed = state._replace(inode=number, ctime_ns=number), sums
        put(first, b"file", changed)
        poll("the other to have it", lambda c=changed: second.has(b"file", c))  # type: ignore[misc]
    assert not second.index.head_facts().unlike


def test_what_is_not_shared_waits_for_nobody(heads: Callable[..., One]) -> None:
    one = heads("a").start()
    one.index._unlike.add(wanted(1).source)
    assert one.index.gate.admits(wanted(1), Rank.MEMBER)
    one.index.gate.hurry(wanted(1))
    assert not one.index.gate.admits(wanted(2), Rank.MEMBER)
    assert [file for file, _ in one.head.desk.offers()] in ([wanted(2)], [])  # if not yet taken


async def test_a_head_that_has_nothing_to_do_hashes_what_it_claims(
    heads: Callable[..., One],
) -> None:
    gate = heads("a").index.gate

    async def keep(_file: SourceFile, _sums: Checksums) -> None:
        raise AssertionError("nothing runs")

    gate._hasher = hasher = Hasher(lambda path: path, keep, gate=gate)
    gate._take([(wanted(1), Rank.MEMBER)])
    assert len(hasher) == 1
    gate._know([(wanted(1).source, wanted(1).state)])
    assert not len(hasher)


async def test_what_is_claimed_again_while_it_is_saved_is_hashed_again(
    heads: Callable[..., One], library: Path
) -> None:
    """Others have forgotten it meanwhile, and want it."""
    (library / "file").write_bytes(b"content")
    index = heads("a").index
    source = Library(str(library)).file(b"", entry(library, "file"))
    index.gate._take([(source, Rank.MEMBER)])
    kept = 0

    async def keep(_file: SourceFile, _sums: Checksums) -> None:
        nonlocal kept
        kept += 1
        if kept == 1:
            index.gate._take([(source, Rank.MEMBER)])

    hasher = Hasher(lambda path: os.fsencode(library) + b"/" + path, keep, gate=index.gate)
    index.gate._hasher = hasher
    hasher.admit(source, Rank.MEMBER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hasher.run)
        await until(lambda: kept == 2)
        nursery.cancel_scope.cancel()


def test_a_database_of_an_hour_ago_takes_nothing_back(
    heads: Callable[..., One], shared: Shared
) -> None:
    """Such as a standby that hadn't got all: what was hashed since is told anew."""
    first = heads("a").start()
    state, sums = record(1)
    put(first, b"file", (state, sums))
    poll("it to be told", lambda: shared.count("files") == 1)
    changed = state._replace(ctime_ns=time.time_ns()), record(2)[1]
    first.index.close()
    # Here it has changed, and there it hasn't.
    with contextlib.closing(Index(first.index.file)) as index:
        index.put_files({b"file": changed})
    with contextlib.closing(Ledger(first.index.file)) as ledger:
        ledger.move(ledger.cursor._replace(database="another"))
    again, second = heads("a").start(), heads("b").start()
    assert again.has(b"file", changed)
    assert second.has(b"file", changed)


# ---------------------------------------------------------------- what may be done there


def test_tables_are_made_once(shared: Shared) -> None:
    assert migrate(shared.address) == (schema.VERSION, schema.VERSION)


def test_newer_tables_are_refused(heads: Callable[..., One], shared: Shared) -> None:
    shared.ask("UPDATE zipfs.about SET version = 99")
    with pytest.raises(IndexFileError, match=r"version 99.*upgrade zipfs") as caught:
        migrate(shared.address)
    assert "\n" not in str(caught.value)
    one = heads("a")
    one.head.start(one.told)
    one.wait(Mode.AWAY)
    assert "upgrade zipfs" in one.head.state.reason
    shared.ask("UPDATE zipfs.about SET version = %s", (schema.VERSION,))
    one.wait(Mode.SHARING)


def test_without_tables_one_is_told_how_to_make_them(
    heads: Callable[..., One], shared: Shared
) -> None:
    shared.ask("DROP SCHEMA zipfs CASCADE")
    one = heads("a")
    one.head.start(one.told)
    one.wait(Mode.AWAY)
    assert "--migrate" in one.head.state.reason
    assert migrate(shared.address) == (0, schema.VERSION)
    one.wait(Mode.SHARING)


class Roles:
    """The roles of the manual."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._names = ["zipfs_heads", "zipfs_readers"]
        for statement in block("scaling#roles").strip().split(";\n"):
            shared.ask(statement)

    def add(self, name: str, role: str) -> str:
        """A user of *role*; the address."""
        self._names.append(name)
        self._shared.ask(f"CREATE ROLE {name} LOGIN IN ROLE {role}")
        return self._shared.server.address(self._shared.name, name)

    def drop(self) -> None:
        for name in reversed(self._names):
            self._shared.ask(f"DROP OWNED BY {name} CASCADE")
            self._shared.ask(f"DROP ROLE {name}")


@pytest.fixture
def roles(shared: Shared) -> Iterator[Roles]:
    found = Roles(shared)
    yield found
    found.drop()


def test_a_head_needs_no_more_rights_than_the_manual_gives(
    roles: Roles, heads: Callable[..., One], shared: Shared
) -> None:
    address = roles.add("head", "zipfs_heads")
    first, second = heads("a", address=address).start(), heads("b", address=address).start()
    assert first.mode is Mode.SHARING
    put(first, b"file", record(1))
    poll("the other to have it", lambda: second.has(b"file", record(1)))
    assert first.issue(1, 5 * DAY) == 5 * DAY
    first.head.desk.offer(wanted(1), Rank.MEMBER)
    second.head.desk.want(10, 1000)
    poll("it to be claimed", lambda: second.told.mine)
    for one in (first, second):
        one.index.close()


def test_a_library_is_removed_as_the_manual_says(heads: Callable[..., One], shared: Shared) -> None:
    first = heads("a").start()
    put(first, b"file", record(1))
    first.issue(1, 5 * DAY)
    first.index.close()
    statements = block("scaling#remove-a-library")
    for name, left in (("arcade", 1), (NAME, 0)):  # another library first
        for statement in statements.replace("arcade", name).strip().split(";\n"):
            shared.ask(statement)
        assert [shared.count(table) for table in ("files", "issued", "libraries")] == [left] * 3


def test_who_may_only_read_reads(roles: Roles, heads: Callable[..., One], shared: Shared) -> None:
    writer = heads("a").start()
    put(writer, b"file", record(1))
    poll("it to be told", lambda: writer.index.head_facts().waiting == 0)
    writer.issue(1, 5 * DAY)
    address = roles.add("reader", "zipfs_readers")
    reader = heads("b", address=address).start()
    assert reader.mode is Mode.READING
    assert reader.has(b"file", record(1))
    assert reader.issue(1, 9 * DAY) == 5 * DAY
    assert not reader.head.state.hashes_all()  # there is one who does
    put(writer, b"later", record(2))
    poll("that to be here", lambda: reader.has(b"later", record(2)))
    writer.index.close()
    poll("it to be alone", reader.head.state.hashes_all)
    put(reader, b"own", record(3))
    assert reader.has(b"own", record(3))
    reader.index.close()


def test_a_database_that_does_not_answer_keeps_nobody_waiting(
    heads: Callable[..., One], shared: Shared
) -> None:
    one = heads("a").start()
    one.issue(1, 5 * DAY)
    with shared.server.frozen():
        one.index.put_files({b"file": record(1)})
        assert one.has(b"file", record(1))
        assert one.index.issue(GAME, 1, lambda taken: 1) == 5 * DAY
        poll("it to hash alone", one.head.state.hashes_all)
        assert one.index.head_facts().mode == "away"
        assert one.issue(2, 5 * DAY) == 4 * DAY
    poll("it to be in step", lambda: one.index.head_facts().waiting == 0)
    assert one.mode is Mode.SHARING


def test_an_end_waits_for_no_database(heads: Callable[..., One], shared: Shared) -> None:
    one = heads("a").start()
    with shared.server.frozen():
        put(one, b"file", record(1))
        one.index.close()
        assert not one.head._thread.is_alive()  # type: ignore[union-attr]
