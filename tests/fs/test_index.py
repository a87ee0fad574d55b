"""The index (DESIGN S3, V3): what it keeps is right or not there, whatever happens to its file."""

from __future__ import annotations

import errno
import gzip
import logging
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fs.lab import FakeTime, in_memory, root_only, small_disk, unprivileged
from tests.support.users import NOBODY, OTHER, needs_root
from tests.support.waiting import SECONDS
from zipfs.archive import validators
from zipfs.errors import IndexFileError
from zipfs.index import indexfile as file_module
from zipfs.index import tables as tables_module
from zipfs.index.index import Index
from zipfs.index.rows import NONE, Published, Record
from zipfs.index.tables import Store
from zipfs.library.filestate import Checksums, FileState

quick = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
STATES = st.builds(
    FileState, st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 63) - 1), INT64, INT64
)
CHECKSUMS = st.builds(
    Checksums,
    st.integers(0, (1 << 32) - 1),
    st.binary(min_size=16, max_size=16),
    st.sampled_from([b"", bytes(16), bytes(range(80))]),
)
PATHS = st.binary(min_size=1, max_size=40).filter(lambda path: b"\0" not in path)
RECORDS = st.dictionaries(PATHS, st.tuples(STATES, CHECKSUMS), max_size=30)


def record(number: int, *, blocks: bytes = b"") -> Record:
    return (
        FileState((1 << 64) - 1 - number, number * 7, 10**18 + number, 10**18 - number),
        Checksums(number * 0x1000193 % (1 << 32), bytes([number % 256, number // 256] * 8), blocks),
    )


def records(count: int) -> dict[bytes, Record]:
    return {b"roms/game/%05d.bin" % number: record(number) for number in range(count)}


def plain(found: Record) -> Record:
    """As :meth:`Index.files` gives it: without the blocks."""
    return found[0], found[1]._replace(blocks=b"")


@pytest.fixture
def file() -> Iterator[str]:
    with in_memory() as folder:
        yield f"{folder}/index.sqlite3"


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the log has said since the last time it was asked."""
    caplog.set_level(logging.INFO, logger="zipfs")

    def said() -> list[str]:
        lines = [
            found.getMessage() for found in caplog.records if found.name == "zipfs.index.indexfile"
        ]
        caplog.clear()
        return lines

    return said


# -- What is kept ------------------------------------------------------------------


@quick
@given(RECORDS)
def test_what_is_put_is_found_again_by_the_next_start(kept: dict[bytes, Record]) -> None:
    with in_memory() as folder:
        for _ in range(2):
            with closing(Index(f"{folder}/i")) as index:
                index.put_files(kept)
                assert index.files(list(kept)) == {path: plain(kept[path]) for path in kept}
        with closing(Index(f"{folder}/i")) as index:
            assert index.files(list(kept)) == {path: plain(kept[path]) for path in kept}
            assert index.files([b"unheard of"]) == {}
            for _, checksums in kept.values():
                if checksums.blocks:
                    found = index.blocks(checksums.digest)
                    assert found in {
                        c.blocks for _, c in kept.values() if c.digest == checksums.digest
                    }


def test_who_asks_for_very_many_files_lets_others_ask_meanwhile(file: str) -> None:
    """As the look at a list of half a million files does, and others have only so much time."""
    kept = records(3)
    wanted = {path: plain(kept[path]) for path in kept}
    with closing(Index(file)) as index:
        index.put_files(kept)
        answers: list[dict[bytes, Record]] = []
        other = threading.Thread(target=lambda: answers.append(index.files(list(kept))))

        def many() -> Iterator[bytes]:
            yield from (b"other/%d" % number for number in range(20_000))
            other.start()
            other.join(SECONDS)
            yield from kept

        assert index.files(many()) == wanted
        assert answers == [wanted]
        other.join()


def test_more_paths_than_a_query_takes(file: str) -> None:
    kept = records(2345)
    with closing(Index(file)) as index:
        index.put_files(kept)
        assert index.files([*kept, b"no", b"such"]) == kept


def test_a_later_record_replaces_an_earlier_one(file: str) -> None:
    with closing(Index(file)) as index:
        index.put_files({b"a": record(1)})
        index.put_files({b"a": record(2)})
        assert index.files([b"a"]) == {b"a": record(2)}


@pytest.mark.parametrize("inode", [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_inodes_have_64_bits_and_no_sign(file: str, inode: int) -> None:
    kept = {b"a": (FileState(inode, 1, 2, 3), Checksums(0xFFFFFFFF, bytes(16)))}
    with closing(Index(file)) as index:
        index.put_files(kept)
    with closing(Index(file)) as index:
        assert index.files([b"a"]) == kept


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    file = tmp_path / "made" / "for it" / "index"
    Index(str(file)).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


# -- V3: issued times --------------------------------------------------------------

NEWEST = 1_600_000_000


def issue(index: Index, content: int, path: bytes = b"roms/a.zip") -> int:
    return index.issue(
        path, content, lambda taken: validators.resolve_clash(NEWEST, content, taken)
    )


def test_two_contents_of_a_path_never_have_the_same_time(file: str) -> None:
    """V1: 1 in 86400 pairs asks for the same second; the later one moves by whole days."""
    contents = [5 + validators.DAY * number for number in range(4)]
    with closing(Index(file)) as index:
        times = [issue(index, content) for content in contents]
        assert times == [NEWEST - 5 - validators.DAY * number for number in range(4)]
        assert issue(index, contents[3], b"roms/b.zip") == NEWEST - 5
    with closing(Index(file)) as index:
        # V2: A -> B -> A gives A's time again, also after a restart.
        assert [issue(index, content) for content in reversed(contents)] == times[::-1]


@quick
@given(st.lists(st.integers(0, (1 << 128) - 1), max_size=20), st.integers(1, 4))
def test_times_are_distinct_for_distinct_contents(contents: list[int], range_of: int) -> None:
    # Few remainders, so that most clash.
    contents = [content * validators.DAY + content % range_of for content in contents]
    contents = [content % (1 << 128) for content in contents]
    with in_memory() as folder, closing(Index(f"{folder}/i")) as index:
        first = {content: issue(index, content) for content in contents}
        assert len(set(first.values())) == len(first)
        assert {content: issue(index, content) for content in contents} == first


def test_another_process_may_issue_in_between(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Index(file)) as mine, closing(Index(file)) as other:
        write = mine._writing

        def late(action: Callable[..., None]) -> None:
            assert issue(other, 5) == NEWEST - 5
            write(action)

        monkeypatch.setattr(mine, "_writing", late)
        assert issue(mine, 5 + validators.DAY) == NEWEST - 5 - validators.DAY
        monkeypatch.undo()
        assert issue(other, 5 + validators.DAY) == NEWEST - 5 - validators.DAY


# -- Damage ------------------------------------------------------------------------

SINCE = [Published((1 << 63) - 1, 10**18), Published(2, 10**18 + 1)]
KEPT = records(60) | {b"large": record(200, blocks=bytes(range(88)))}
CLASHING = validators.DAY + 5


def damaged(folder: str, *, clean: bool) -> str:
    """A sound index with :data:`KEPT`; if not *clean*, half of it is still in the journal."""
    with closing(Index(f"{folder}/sound")) as index:
        index.put_files(KEPT)
        issue(index, 5)
        issue(index, CLASHING)
        if clean:
            index.close()
        for suffix in ("", "-wal"):
            if os.path.exists(f"{folder}/sound{suffix}"):
                shutil.copy(f"{folder}/sound{suffix}", f"{folder}/i{suffix}")
    return f"{folder}/i"


def exercise(file: str) -> None:
    """All that an index does: right answers or none, and what is put is there from then on."""
    with closing(Index(file)) as index:
        for path, found in index.files(list(KEPT)).items():
            assert found == plain(KEPT[path])
        assert index.blocks(KEPT[b"large"][1].digest) in (None, bytes(range(88)))
        first, second = issue(index, 5), issue(index, CLASHING)
        assert index.archive(b"roms/a.zip") in (None, *SINCE)
        assert set(index.folders().items()) <= {(b"roms", 7), (b"", 9)}
        index.put_dates({b"roms/a.zip": SINCE[1]}, {b"": 9})
        assert first != second
        assert {first, second} <= {NEWEST - 5, NEWEST - 5 - validators.DAY}
        index.put_files(KEPT)
        assert index.files(list(KEPT)) == {path: plain(KEPT[path]) for path in KEPT}
    with closing(Index(file)) as index:
        assert index.files(list(KEPT)) == {path: plain(KEPT[path]) for path in KEPT}
        assert (issue(index, 5), issue(index, CLASHING)) == (first, second)
        # A damaged table of dates can take a row and not find it: a date is lost, and none wrong.
        assert index.archive(b"roms/a.zip") in (None, *SINCE)
        assert index.folders().get(b"", 9) == 9


def flip(file: str, changes: dict[int, int]) -> None:
    with open(file, "r+b") as stream:
        size = os.fstat(stream.fileno()).st_size
        for place, mask in changes.items():
            stream.seek(place % size)
            old = stream.read(1)[0]
            stream.seek(place % size)
            stream.write(bytes([old ^ mask]))


@settings(quick, max_examples=250)
@given(
    st.dictionaries(st.integers(0, 16383), st.integers(1, 255), min_size=1, max_size=3),
    st.booleans(),
)
def test_a_flipped_byte_never_gives_a_wrong_checksum(changes: dict[int, int], clean: bool) -> None:
    with in_memory() as folder:
        file = damaged(folder, clean=clean)
        flip(file if clean else f"{file}-wal", changes)
        exercise(file)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_each_byte_of_the_header(mask: int) -> None:
    """100 bytes on which SQLite decides whether, and how, it reads the rest."""
    with in_memory() as folder:
        sound = damaged(folder, clean=True)
        for place in range(100):
            file = f"{folder}/{place}"
            shutil.copy(sound, file)
            flip(file, {place: mask})
            exercise(file)


def test_damage_in_a_statement_that_sqlite_quotes(file: str) -> None:
    """Its message then isn't text; sqlite3 raises another exception in place of its own."""
    Index(file).close()
    with open(file, "r+b") as stream:
        page = stream.read(4096)
        stream.seek(page.index(b"CREATE TABLE files"))
        stream.write(b"CREATE \xff\xfe\xfd \xff\xfe")
    exercise(file)


OTHERS: dict[str, Callable[[str], object]] = {
    "text": lambda file: Path(file).write_text("no database\n" * 1000),
    "noise": lambda file: Path(file).write_bytes(bytes(range(256)) * 64),
    "zeros": lambda file: Path(file).write_bytes(bytes(8192)),
    "half": lambda file: os.truncate(file, os.path.getsize(file) // 2),
    "some of a page": lambda file: os.truncate(file, 5000),
    "another version": lambda file: alter(file, "PRAGMA user_version = 99"),
    "another program's": lambda file: alter(file, "PRAGMA application_id = 99"),
    "no tables": lambda file: alter(file, "DROP TABLE files"),
    "another schema": lambda file: alter(
        file, "DROP TABLE files", "CREATE TABLE files (path TEXT, state TEXT)"
    ),
    "a view that never ends": lambda file: alter(
        file,
        "DROP TABLE files",
        "CREATE VIEW files AS WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i FROM n) SELECT"
        " i path, i inode, i size, i mtime_ns, i ctime_ns, i crc32, i digest, i seal FROM n",
    ),
    "a trigger": lambda file: alter(
        file, "CREATE TRIGGER t AFTER INSERT ON files BEGIN DELETE FROM issued; END"
    ),
    "a virtual table": lambda file: alter(
        file, "DROP TABLE blocks", "CREATE VIRTUAL TABLE blocks USING fts5(digest, hashes, seal)"
    ),
    "one table more": lambda file: alter(file, "CREATE TABLE more (x)"),
    "text for numbers": lambda file: alter(
        file,
        "UPDATE files SET inode = 'one', crc32 = NULL WHERE 1",
        "UPDATE issued SET seconds=''",
        "UPDATE archives SET inode = 'one'",
        "UPDATE folders SET changed_ns = 7.5",
    ),
}


def alter(file: str, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database:
        # Otherwise the schema defends itself.
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '')")
        database.commit()
    with closing(sqlite3.connect(file)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


@pytest.mark.parametrize("what", OTHERS)
def test_what_isnt_ours_is_made_anew(
    what: str, file: str, warnings: Callable[[], list[str]]
) -> None:
    with closing(Index(file)) as index:
        index.put_files(KEPT)
        issue(index, 5)
        index.put_dates({b"roms/a.zip": SINCE[0]}, {b"roms": 7})
    OTHERS[what](file)
    exercise(file)
    said = warnings()
    if what == "text for numbers":
        assert said == []  # rows that don't verify aren't there; the file is sound
    else:
        assert len(said) == 1
        assert file in said[0]
        assert "hashing anew" in said[0]
        assert os.path.exists(file + ".bad")


def test_what_is_in_it_stays_on_one_line(file: str, warnings: Callable[[], list[str]]) -> None:
    """SQLite quotes the file, and whoever reads the log has a terminal."""
    Index(file).close()
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA writable_schema = ON")
        name = "x\n2026-01-01 INFO: all is well \x1b[2J\u202e"
        database.execute(
            "UPDATE sqlite_schema SET name = ?, sql = 'CREATE TABLE nonsense'", (name,)
        )
        database.commit()
    Index(file).close()
    [said] = warnings()
    assert "all is well" in said
    assert said.isprintable()


def test_the_old_file_is_set_aside_with_all_that_belongs_to_it(
    file: str, warnings: Callable[[], list[str]]
) -> None:
    """A stale journal beside a new file would be played into it."""
    index = Index(file)
    index.close()
    suffixes = ("", "-wal", "-shm", "-journal")
    wanted = {}
    for generation, aside, there in (
        (b"first", ".bad", suffixes),
        (b"second", ".bad-2", suffixes[:2]),
    ):
        for suffix in there:
            Path(file + suffix).write_bytes(generation)
        index._set_aside(sqlite3.DatabaseError("malformed"))
        assert len(warnings()) == 1
        wanted |= {f"index.sqlite3{aside}{suffix}": generation for suffix in there}
        found = {path.name: path.read_bytes() for path in Path(file).parent.iterdir()}
        assert found == wanted


def test_nothing_that_was_set_aside_is_overwritten(file: str) -> None:
    """One of them may be somebody's own, named as the index by mistake."""
    for content in (b"precious", b"the second", b"the third"):
        with open(file, "wb") as stream:
            stream.write(content)
        Index(file).close()
    for aside, content in (
        (".bad", b"precious"),
        (".bad-2", b"the second"),
        (".bad-3", b"the third"),
    ):
        with open(file + aside, "rb") as stream:
            assert stream.read() == content


def test_a_device_is_no_index() -> None:
    with pytest.raises(IndexFileError, match="isn't a file"):
        Index(os.devnull)
    assert not os.path.exists(os.devnull + "-journal")


@pytest.mark.parametrize("reading", [True, False])
def test_damage_that_shows_while_running(
    file: str, reading: bool, warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Index(file)) as index:
        index.put_files(KEPT)

        def malformed(*_: object) -> None:
            raise sqlite3.DatabaseError("database disk image is malformed")

        monkeypatch.setattr(index._disk, "files" if reading else "put_files", malformed)
        if reading:
            assert index.files(list(KEPT)) == {}
        index.put_files({b"a": record(1)})
        assert index.files([b"a"]) == {b"a": record(1)}
        assert len(warnings()) == 1
    with closing(Index(file)) as index:
        assert index.files([b"a"]) == {b"a": record(1)}
    assert warnings() == []


def test_a_damaged_file_that_cant_be_moved_away(
    file: str, warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def malformed(*_: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    with closing(Index(file)) as index:
        monkeypatch.setattr(index._disk, "files", malformed)
        monkeypatch.setattr(os, "replace", refused)
        assert index.files([b"a"]) == {}
        index.put_files({b"a": record(1)})
        assert index.files([b"a"]) == {b"a": record(1)}
        assert len(warnings()) == 1


def test_a_disk_that_fails_to_read(
    file: str, warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is hashed meanwhile has to be found again, or it is hashed for ever."""

    def broken(*_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
        raise error

    with closing(Index(file)) as index:
        index.put_files({b"a": record(1)})
        with monkeypatch.context() as broken_disk:
            broken_disk.setattr(index._disk, "files", broken)
            for number in range(3):
                assert index.files([b"a"]) == {}
                index.put_files({b"b": record(number)})
                assert index.files([b"b"]) == {b"b": record(number)}
        assert len(warnings()) == 1
        assert not os.path.exists(file + ".bad")
        monkeypatch.setattr(file_module, "_RETRY_SAVING", 0)
        index._retry_at = 0
        index.put_files({})
        assert index.files([b"a", b"b"]) == {b"a": record(1), b"b": record(2)}


def test_threads_that_were_left_behind_find_it_closed(
    file: str, warnings: Callable[[], list[str]]
) -> None:
    """A closed file is no damaged one: it must not be set aside at the end of the mount."""
    index = Index(file)
    index.put_files(KEPT)
    index.close()
    assert index.files(list(KEPT)) == {}
    assert index.blocks(bytes(16)) is None
    assert issue(index, 5) == NEWEST - 5
    index.put_files({b"a": record(1)})
    index.close()
    assert warnings() == []
    assert os.listdir(os.path.dirname(file)) == ["index.sqlite3"]
    with closing(Index(file)) as index:
        assert index.files([*KEPT, b"a"]) == {path: plain(KEPT[path]) for path in KEPT}


# -- Dates (F1) --------------------------------------------------------------------


def test_dates_are_found_again_by_the_next_start(file: str) -> None:
    archives = {
        b"roms/%05d.zip" % number: Published(number * 0x1000193, 10**18 + number)
        for number in range(1234)
    }
    for _ in range(2):
        with closing(Index(file)) as index:
            index.put_dates(archives, {b"": 5, b"roms": -(1 << 63)})
            index.put_dates({b"roms/00007.zip": Published(NONE, 10**18)}, {b"": 6})
            archives[b"roms/00007.zip"] = Published(NONE, 10**18)
            assert index.archive(b"roms/00009.zip") == archives[b"roms/00009.zip"]
            assert index.archive(b"roms/none.zip") is None
    with closing(Index(file)) as index:
        assert index.folders() == {b"": 6, b"roms": -(1 << 63)}
        found = []
        after: bytes | None = b""
        while after is not None:
            some, after = index.archives_after(after)
            found += some
        assert found == sorted(archives.items())


def test_dates_on_a_full_disk(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What couldn't be saved is known, and saved later."""
    with closing(Index(file)) as index:
        index.put_dates({b"a": SINCE[0], b"b": SINCE[0]}, {b"": 5, b"roms": 5})
        index._use_memory(OSError(errno.ENOSPC, "no space left"))
        index.put_dates({b"a": SINCE[1]}, {b"": 6})
        assert index.archive(b"a") == SINCE[1]
        assert index.archive(b"b") == SINCE[0]
        assert index.folders() == {b"": 6, b"roms": 5}
        monkeypatch.setattr(file_module, "_RETRY_SAVING", 0)
        index._retry_at = 0
        index.put_files({})
        assert index.is_saving
        assert (index.archive(b"a"), index.archive(b"b")) == (SINCE[1], SINCE[0])


def test_only_checksums_of_the_content_in_doubt_are_forgotten(file: str) -> None:
    known = {b"a": record(1), b"b": record(2), b"c": record(3)}
    doubted = {b"a": record(1)[1].digest, b"b": record(9)[1].digest, b"d": record(3)[1].digest}
    with closing(Index(file)) as index:
        index.put_files(known)
        index.forget_files(doubted)
        assert set(index.files(list(known))) == {b"b", b"c"}
    with closing(Index(file)) as index:
        assert set(index.files(list(known))) == {b"b", b"c"}


def test_checksums_in_doubt_on_a_full_disk(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the file and can't be deleted isn't believed."""
    known = {b"a": record(1), b"b": record(2)}
    with closing(Index(file)) as index:
        index.put_files(known)
        index._use_memory(OSError(errno.ENOSPC, "no space left"))
        index.put_files({b"c": record(3)})
        index.forget_files({path: record(n)[1].digest for n, path in enumerate((b"a", b"b"), 1)})
        index.forget_files({b"c": record(3)[1].digest})
        for path in (b"a", b"b", b"c"):
            assert index.files([path]).get(path) not in (record(1), record(2), record(3))
        index.put_files({b"a": record(1)})
        assert index.files([b"a"]) == {b"a": record(1)}
        monkeypatch.setattr(file_module, "_RETRY_SAVING", 0)
        index._retry_at = 0
        index.put_files({})
        assert index.is_saving
    with closing(Index(file)) as index:
        assert index.files([b"a"]) == {b"a": record(1)}
        assert index.files([b"b"]).get(b"b") != record(2)


# -- An index of version 1 ---------------------------------------------------------


@pytest.fixture
def first(file: str) -> str:
    """A file that zipfs 0.1.0 made."""
    data = (Path(__file__).parent / "index-1.sqlite3.gz").read_bytes()
    Path(file).write_bytes(gzip.decompress(data))
    return file


def check_first(index: Index) -> None:
    paths = [b"roms/a/%d" % number for number in range(1, 41)]
    found = index.files(paths)
    assert len(found) == 39
    assert found[b"roms/a/1"] == (
        FileState((1 << 64) - 2, 5, 1_600_000_000_123_456_789, 1_600_000_001_000_000_000),
        Checksums(0xDEADBEEF, bytes(range(16)), b""),
    )
    assert found[b"roms/a/39"] == (FileState(39, 3900, 39, 39), Checksums(39, bytes(15) + b"\x27"))
    assert index.blocks(bytes(range(16))) == b"blocks-8"

    def choose(_: object) -> int:
        raise AssertionError("it was issued before")

    assert index.issue(b"roms/a.zip", 77, choose) == 1_600_000_000
    assert index.issue(b"roms/a.zip", 78, choose) == 1_599_913_600


def test_an_index_of_version_1_is_migrated(first: str, warnings: Callable[[], list[str]]) -> None:
    """In place, and nothing is hashed again."""
    for archives in ({}, {b"a.zip": SINCE[0]}):
        with closing(Index(first)) as index:
            check_first(index)
            assert dict(index.archives_after(b"")[0]) == archives
            index.put_dates({b"a.zip": SINCE[0]}, {b"": 7})
            assert index.archive(b"a.zip") == SINCE[0]
    with closing(sqlite3.connect(first)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (3,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert warnings() == []
    assert os.listdir(os.path.dirname(first)) == ["index.sqlite3"]


def test_the_migration_is_all_or_nothing(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of it, the next start does it anew."""
    with monkeypatch.context() as broken:
        added = tables_module.ADDED[2] + "CREATE TABLE nonsense;"
        broken.setitem(tables_module.ADDED, 2, added)
        with pytest.raises(sqlite3.OperationalError):
            Store(first)
    with closing(sqlite3.connect(first)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        assert database.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (3,)
    with closing(Index(first)) as index:
        check_first(index)


def test_version_1_with_other_tables_is_set_aside(
    first: str, warnings: Callable[[], list[str]]
) -> None:
    alter(first, "CREATE TABLE archives (x)")
    Index(first).close()
    assert len(warnings()) == 1
    assert os.path.exists(first + ".bad")


def test_version_1_is_read_as_it_is(first: str) -> None:
    """By ``zipfs verify``, which writes nothing."""
    before = Path(first).read_bytes()
    with closing(Store(first, reading=True)) as store:
        assert len(store.files_after(b"")[0]) == 39
    assert Path(first).read_bytes() == before


# -- No room, no right -------------------------------------------------------------


def test_a_folder_that_cant_be_written(place: Path) -> None:
    folder = place / "closed"
    folder.mkdir(mode=0o555)
    with unprivileged():
        for file in (folder / "index", folder / "sub" / "index"):
            with pytest.raises(IndexFileError, match="--index FILE") as caught:
                Index(str(file))
            assert str(file) in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_file_that_cant_be_written(place: Path) -> None:
    file = place / "index"
    Index(str(file)).close()
    file.chmod(0o444)
    with unprivileged(), pytest.raises(IndexFileError, match="--index FILE"):
        Index(str(file))


def test_a_file_in_a_folder_where_nothing_can_be_made(place: Path) -> None:
    """It may be written, but neither its journal made nor, if damaged, it be set aside."""
    folder = place / "closed"
    folder.mkdir()
    file = folder / "index"
    Index(str(file)).close()
    file.chmod(0o666)
    folder.chmod(0o555)
    with unprivileged(), pytest.raises(IndexFileError, match="--index FILE"):
        Index(str(file))
    file.write_bytes(b"garbage" * 1000)
    with unprivileged(), pytest.raises(IndexFileError, match="--index FILE"):
        Index(str(file))


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match="--index FILE"):
        Index(str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(IndexFileError, match="--index FILE"):
        Index(str(tmp_path / "file" / "index"))


@root_only
@pytest.mark.parametrize("size", ["4k", "8k", "16k", "32k", "64k", "256k"])
def test_a_full_disk(
    place: Path,
    size: str,
    warnings: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It runs on in memory, says so once, and saves everything when there is room again."""
    clock = FakeTime()
    monkeypatch.setattr(file_module, "time", clock)
    folder = place / "disk"
    folder.mkdir()
    file = str(folder / "index")
    kept = records(6000)
    with small_disk(folder, size) as resize:
        with closing(Index(file)) as index:
            paths = list(kept)
            for start in range(0, len(kept), 500):
                index.put_files({path: kept[path] for path in paths[start : start + 500]})
            assert issue(index, 5) == NEWEST - 5
            assert index.files(paths) == kept
            said = warnings()
            assert len(said) == 1
            assert file in said[0]
            assert "going on without saving" in said[0]

            resize("64m")
            index.put_files({b"too soon": record(1)})
            assert warnings() == []
            clock.ahead = 61
            index.put_files({b"later": record(2)})
            assert warnings() == [f"the index {file} is being saved again"]
            kept |= {b"too soon": record(1), b"later": record(2)}
            assert index.files(list(kept)) == kept
        with closing(Index(file)) as index:
            assert index.files(list(kept)) == kept
            assert issue(index, validators.DAY + 5) == NEWEST - 5 - validators.DAY
            assert warnings() == []


@root_only
def test_what_is_in_memory_at_the_end_is_saved_if_there_is_room(
    place: Path, warnings: Callable[[], list[str]]
) -> None:
    folder = place / "disk"
    folder.mkdir()
    file = str(folder / "index")
    kept = records(2000)
    with small_disk(folder, "64k") as resize:
        with closing(Index(file)) as index:
            index.put_files(kept)
            assert not index.is_saving
            resize("64m")
        with closing(Index(file)) as index:
            assert index.files(list(kept)) == kept
            assert index.is_saving
    assert [line.rpartition(" ")[2] for line in warnings()] == ["saving", "again"]


@root_only
def test_a_disk_without_room_for_one_more_file(
    place: Path, warnings: Callable[[], list[str]]
) -> None:
    folder = place / "disk"
    folder.mkdir()
    with small_disk(folder, "1m,nr_inodes=1"), closing(Index(str(folder / "index"))) as index:
        index.put_files(KEPT)
        assert index.files(list(KEPT)) == {path: plain(KEPT[path]) for path in KEPT}
        assert len(warnings()) == 1


# -- Others at the same file -------------------------------------------------------


def test_two_connections_and_many_threads(file: str, warnings: Callable[[], list[str]]) -> None:
    failures: list[BaseException] = []
    with closing(Index(file)) as one, closing(Index(file)) as other:

        def work(index: Index, first: int) -> None:
            try:
                for number in range(first, first + 25):
                    index.put_files({b"%d" % number: record(number)})
                    assert index.files([b"%d" % number]) == {b"%d" % number: record(number)}
                    issue(index, number * validators.DAY, b"%d.zip" % (number % 5))
            except BaseException as error:  # noqa: BLE001 - told to the test
                failures.append(error)

        threads = [
            threading.Thread(target=work, args=(index, 100 * number))
            for number, index in enumerate([one, other] * 3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        numbers = [100 * first + number for first in range(6) for number in range(25)]
        everything = {b"%d" % number: record(number) for number in numbers}
        assert one.files(list(everything)) == everything
        assert other.files(list(everything)) == everything
    assert warnings() == []


_WRITER = """
import sys
from zipfs.index.index import Index
from zipfs.library.filestate import Checksums, FileState
file, first = sys.argv[1], int(sys.argv[2])
sys.stdin.readline()
index = Index(file)
for number in range(first, first + 30):
    index.put_files({b"%d" % number: (FileState(number, 1, 2, 3), Checksums(number, bytes(16)))})
index.close()
"""


def test_processes_that_start_on_the_same_new_file(file: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, file, str(first)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for first in (0, 100, 200)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in processes:
        _, said = process.communicate()
        assert (said, process.returncode) == (b"", 0)
    with closing(Index(file)) as index:
        for number in [first + n for first in (0, 100, 200) for n in range(30)]:
            state = FileState(number, 1, 2, 3)
            assert index.files([b"%d" % number]) == {
                b"%d" % number: (state, Checksums(number, bytes(16)))
            }


@needs_root
def test_what_root_makes_in_the_daemon_s_folder_is_the_daemon_s(tmp_path: Path) -> None:
    """Else `zipfs index` by an administrator would lock out the service."""
    os.chown(tmp_path, NOBODY, OTHER)
    file = tmp_path / "index.sqlite3"
    Index(str(file)).close()
    assert (file.stat().st_uid, file.stat().st_gid) == (NOBODY, OTHER)
    file.unlink()
    os.chown(tmp_path, 0, 0)
    Index(str(file)).close()
    assert file.stat().st_uid == 0


@needs_root
def test_also_in_place_of_one_that_was_set_aside(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, OTHER)
    tmp_path.chmod(0o755)
    file = tmp_path / "index.sqlite3"
    file.write_text("junk")
    umask = os.umask(0o022)
    try:
        with closing(Index(str(file))) as index:
            index.put_files({})
            made = {path.name: path.stat() for path in tmp_path.iterdir()}
    finally:
        os.umask(umask)
    assert "index.sqlite3.bad" in made
    for name, status in made.items():
        if not name.endswith(".bad"):
            assert (status.st_uid, status.st_mode & 0o777) == (NOBODY, 0o600), name


@needs_root
def test_a_link_of_somebody_else_s_is_not_followed(tmp_path: Path) -> None:
    """A daemon's user could have root make or change a file of his choice."""
    precious = tmp_path / "precious"
    precious.write_text("")
    for target in (precious, tmp_path / "new"):
        file = tmp_path / "index.sqlite3"
        file.symlink_to(target)
        os.chown(file, NOBODY, NOBODY, follow_symlinks=False)
        with pytest.raises(IndexFileError, match="a link of another user's"):
            Index(str(file))
        file.unlink()
    assert precious.read_text() == ""
    assert not (tmp_path / "new").exists()
