"""The pool of open files (DESIGN R4): which are closed, when, and how many there may be."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fs.lab import open_below, source_file, wait_for
from tests.support.waiting import SECONDS
from zipfs.errors import ChangedError
from zipfs.library.files import Key, key_of, open_file, open_files
from zipfs.mount import fd_pool as pool_module
from zipfs.mount.fd_pool import FdPool, OpenFile
from zipfs.system.process import Limits


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[Key]]:
    for number in range(40):
        (tmp_path / f"{number:02}").write_bytes(b"%d" % number)
    yield [key_of(source_file(tmp_path, f"{number:02}")) for number in range(40)]
    wait_for(lambda: not open_below(tmp_path))


@pytest.fixture
def pool(files: list[Key]) -> Iterator[FdPool]:
    pool = FdPool(16)
    yield pool
    for file in pool._files.values():
        file.users = file.pins = 0
    pool.close_idle(0)
    wait_for(lambda: not pool._closing)
    assert len(pool) == 0


def opened(tmp_path: Path, key: Key) -> int:
    return os.open(tmp_path / os.fsdecode(key[0]), os.O_RDONLY)


def put(pool: FdPool, tmp_path: Path, key: Key) -> OpenFile | None:
    """What a read does with a file that it had to open: into the pool, if there is room."""
    granted = pool.reserve(1)
    assert len(pool) + pool._reserved + pool._closing <= pool.limit
    pool.release(granted)
    return pool.adopt(key, opened(tmp_path, key)) if granted else None


def names(pool: FdPool) -> list[int]:
    return [int(source) for source, _ in pool._files]


# -- How many ------------------------------------------------------------------------------


@given(st.integers(0, 1 << 21))
def test_the_limits_fit_into_the_process(descriptors: int) -> None:
    limits = Limits.within(descriptors)
    assert limits.files >= 4
    assert min(limits.threads, limits.looking) >= 2
    assert limits.files <= 8192
    assert limits.threads <= 64
    # Each thread that reads may have one open beyond the pool, each that looks at the library
    # two folders; so may those that make up for stuck ones. The daemon itself needs some.
    if descriptors >= 64:
        reading = limits.threads + limits.spare
        looking = 2 * (limits.looking + limits.spare)
        assert limits.files + reading + looking <= descriptors - 30


@pytest.mark.parametrize("limit", range(1, 70))
def test_the_share_of_one_archive(limit: int) -> None:
    pool = FdPool(limit)
    assert 0 <= pool.share <= max(1, limit // 2)
    assert pool.reserve(pool.share) == pool.share
    assert pool.reserve(limit) == limit - pool.share
    assert pool.reserve(1) == 0
    pool.release(limit)
    assert pool.reserve(1) == 1


# -- Which ---------------------------------------------------------------------------------


def test_the_one_not_used_for_longest_goes_first(
    pool: FdPool, files: list[Key], tmp_path: Path
) -> None:
    for key in files[:10]:
        assert put(pool, tmp_path, key)
    pool._files[files[0]].used_at -= 1  # within a moment it isn't noted again
    pool.touch(pool._files[files[0]])
    wanted = [*range(1, 10), 0, *range(10, 40)]
    for last, key in enumerate(files[10:], 10):
        put(pool, tmp_path, key)
        wait_for(lambda: not pool._closing)
        assert 10 <= len(pool) <= 16
        assert names(pool) == wanted[last + 1 - len(pool) : last + 1]


def test_pinned_files_are_the_last_and_used_ones_never_closed(
    pool: FdPool, files: list[Key], tmp_path: Path
) -> None:
    for number, key in enumerate(files[:9]):
        file = put(pool, tmp_path, key)
        assert file
        file.users = number % 3 == 1
        file.pins = number % 3 == 2
    for key in files[9:]:
        put(pool, tmp_path, key)
        wait_for(lambda: not pool._closing)
    assert {1, 4, 7} | {2, 5, 8} <= set(names(pool))
    assert not {0, 3, 6} & set(names(pool))
    assert pool.reserve(16) < 16  # makes room for the next time, with all but those in use
    wait_for(lambda: not pool._closing)
    assert {1, 4, 7} <= set(names(pool))
    pool.release(pool._reserved)


def test_the_same_file_twice_is_kept_once(pool: FdPool, files: list[Key], tmp_path: Path) -> None:
    first = pool.adopt(files[0], opened(tmp_path, files[0]))
    assert pool.adopt(files[0], opened(tmp_path, files[0])) is first
    wait_for(lambda: len(open_below(tmp_path)) == 1)
    assert len(pool) == 1


def test_a_loan_keeps_files_open_and_room_free(
    pool: FdPool, files: list[Key], tmp_path: Path
) -> None:
    for key in files[:3]:
        assert put(pool, tmp_path, key)
    loan = pool.lend([files[0], files[10], files[1], *files[11:14]], 100)
    assert loan.files == [pool.get(files[0]), None, pool.get(files[1]), None, None, None]
    assert loan.room == pool._reserved == 4
    pool.close_idle(0)
    assert names(pool) == [0, 1]
    wait_for(lambda: not pool._closing)
    assert pool.reserve(16) == 10
    pool.release(10)
    loan.end()
    assert pool._reserved == 0
    assert not any(file.users for file in pool._files.values())


def test_a_loan_has_no_more_room_than_there_is(
    pool: FdPool, files: list[Key], tmp_path: Path
) -> None:
    for key in files[:2]:
        assert put(pool, tmp_path, key)
    assert pool.lend(files[:2], 1).room == 0  # none is wanted
    assert pool.lend(files, 1).room == 1
    rest = pool.lend(files, 100)
    assert rest.room == 16 - 2 - 1
    assert pool.lend(files, 100).room == 0
    pool.release(pool._reserved)


def test_idle_files_are_closed(pool: FdPool, files: list[Key], tmp_path: Path) -> None:
    for number, key in enumerate(files[:6]):
        file = pool.adopt(key, opened(tmp_path, key))
        file.used_at -= 100
        file.users = number == 1
        file.pins = number == 2
    pool.touch(pool._files[files[3]])
    pool.close_idle(50)
    assert sorted(names(pool)) == [1, 2, 3]
    wait_for(lambda: len(open_below(tmp_path)) == 3)


def test_closing_is_not_waited_for_and_counts_until_it_is_done(
    pool: FdPool, files: list[Key], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close
    go_on = threading.Event()

    def slow(descriptor: int) -> None:
        assert go_on.wait(SECONDS)
        close(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", slow)
        given = [key for key in files if put(pool, tmp_path, key)]
        # The pool has emptied itself of what is being closed, and takes no more than it may.
        assert len(given) == 16
        assert len(open_below(tmp_path)) == 16
        go_on.set()
        wait_for(lambda: not pool._closing)
    assert len(open_below(tmp_path)) == len(pool) < 16


def test_closing_when_no_thread_can_be_had(
    pool: FdPool, files: list[Key], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service has a limit on them (TasksMax); what was to be closed must not be lost."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    pool.adopt(files[0], opened(tmp_path, files[0]))
    with monkeypatch.context() as patch:
        patch.setattr(trio.lowlevel, "start_thread_soon", refuse)
        pool.close_idle(0)
    assert (open_below(tmp_path), len(pool), pool._closing) == ([], 0, 0)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 20),
    st.lists(
        st.tuples(
            st.sampled_from(["put", "use", "unuse", "pin", "unpin", "idle", "reserve", "release"]),
            st.integers(0, 39),
        ),
        max_size=80,
    ),
)
def test_it_never_holds_more_than_it_may(
    files: list[Key], tmp_path: Path, limit: int, steps: list[tuple[str, int]]
) -> None:
    pool = FdPool(limit)
    reserved: list[int] = []
    for step, number in steps:
        key = files[number]
        file = pool.get(key)
        if step == "put":
            put(pool, tmp_path, key)
        elif step == "use" and file:
            file.users += 1
        elif step == "unuse" and file and file.users:
            file.users -= 1
        elif step == "pin" and file:
            file.pins += 1
        elif step == "unpin" and file and file.pins:
            file.pins -= 1
        elif step == "idle":
            used = {key for key, file in pool._files.items() if file.users or file.pins}
            pool.close_idle(0)
            assert set(pool._files) == used
        elif step == "reserve":
            reserved.append(pool.reserve(number % 5))
        elif step == "release" and reserved:
            pool.release(reserved.pop())
        assert 0 <= len(pool) + pool._reserved + pool._closing <= limit
        assert pool._reserved == sum(reserved)
    for key in list(pool._files):
        pool.close([pool._files.pop(key).descriptor])
    wait_for(lambda: not pool._closing)


# -- Opening -------------------------------------------------------------------------------


def test_all_or_none(files: list[Key], tmp_path: Path) -> None:
    sources = [source_file(tmp_path, f"{number:02}") for number in range(5)]
    absolute = (os.fsencode(tmp_path) + b"/").__add__
    found = open_files(absolute, [*sources, sources[0]])
    assert len(found) == 5
    pool_module.close_all(found.values())
    (tmp_path / "03").unlink()
    with pytest.raises(ChangedError):
        open_files(absolute, sources)
    assert open_below(tmp_path) == []


def test_only_what_can_be_proven_may_have_another_ctime(files: list[Key], tmp_path: Path) -> None:
    source = source_file(tmp_path, "00")
    absolute = (os.fsencode(tmp_path) + b"/").__add__
    os.close(open_file(absolute, source, provable=False))
    (tmp_path / "00").chmod(0o600)
    os.close(open_file(absolute, source))
    with pytest.raises(ChangedError):
        open_file(absolute, source, provable=False)
    os.utime(tmp_path / "00", ns=(0, 0))
    with pytest.raises(ChangedError):
        open_file(absolute, source)
