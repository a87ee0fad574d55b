"""The journal of a mount: whatever was written whole is there, wherever a kill comes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipfs.mount.restart import state as module
from zipfs.mount.restart.state import Known, News, Shown, State, StateError, create


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = create()
    yield descriptor
    os.close(descriptor)


def test_an_empty_file_is_a_new_state() -> None:
    """The service manager stores one before there is a daemon."""
    memory = os.memfd_create("empty")
    try:
        State(memory).set_init(b"init")
        assert State(memory).init == b"init"
    finally:
        os.close(memory)


def test_what_was_told_is_known(memory: int) -> None:
    first = State(memory)
    first.set_init(b"\x01init")
    first.set_answer(b"answer")
    first.set_options({"ro", "allow_other"})
    first.start()
    first.tell(7, Shown.FOLDER, b"roms")
    first.tell(8, Shown.ARCHIVE, b"roms/\xff.zip")
    first.tell(9, Shown.FILE, b"roms/file")
    first.commit()
    first.forget(9, b"roms/file")
    first.hand_over(7)
    second = State(memory)
    assert (second.init, second.answer) == (b"\x01init", b"answer")
    assert second.options == ["allow_other", "ro"]
    assert second.daemons == 1
    assert second.handed_over
    assert second.known == {
        7: Known(Shown.FOLDER, b"roms"),
        8: Known(Shown.ARCHIVE, b"roms/\xff.zip"),
    }
    second.start()
    assert State(memory).handed_over is None
    assert State(memory).daemons == 2


def test_what_wasn_t_committed_isn_t_known(memory: int) -> None:
    first = State(memory)
    first.tell(7, Shown.FOLDER, b"roms")
    assert State(memory).known == {}


def test_the_last_told_of_is_last(memory: int) -> None:
    first = State(memory)
    for inode in (1, 2, 1):
        first.tell(inode, Shown.ARCHIVE, b"a.zip")
    first.commit()
    assert list(State(memory).known) == [2, 1]


def test_a_torn_end_is_cut_off(memory: int) -> None:
    first = State(memory)
    first.tell(7, Shown.FOLDER, b"roms")
    first.commit()
    whole = os.fstat(memory).st_size
    first.tell(8, Shown.FOLDER, b"a longer path of a folder")
    first.commit()
    end = os.fstat(memory).st_size
    for size in range(whole, end):
        os.ftruncate(memory, size)
        second = State(memory)
        assert list(second.known) == [7]
        second.start()  # which cuts it off, and goes on behind it
        second.tell(9, Shown.FILE, b"x")
        second.commit()
        assert list(State(memory).known) == [7, 9]
        assert State(memory).daemons == 1
        os.ftruncate(memory, whole)


@given(st.binary(max_size=200))
def test_junk_at_the_end_is_no_record(junk: bytes) -> None:
    memory = create()
    try:
        first = State(memory)
        first.tell(7, Shown.FOLDER, b"roms")
        first.commit()
        os.pwrite(memory, junk, os.fstat(memory).st_size)
        assert list(State(memory).known) == [7]
    finally:
        os.close(memory)


@given(st.integers(0, 60), st.integers(1, 255))
def test_a_changed_byte_is_no_record(at: int, flip: int) -> None:
    memory = create()
    try:
        first = State(memory)
        first.tell(7, Shown.FOLDER, b"roms")
        first.commit()
        at = 16 + at % (os.fstat(memory).st_size - 16)
        if 16 + 5 <= at < 16 + 8:
            return  # padding
        (byte,) = os.pread(memory, 1, at)
        os.pwrite(memory, bytes([byte ^ flip]), at)
        assert State(memory).known == {}
    finally:
        os.close(memory)


def test_another_layout_is_refused(memory: int) -> None:
    os.pwrite(memory, b"zipfs\0\0\2", 0)
    with pytest.raises(StateError):
        State(memory)


def test_a_failed_write_leaves_no_gap(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    first = State(memory)
    first.tell(7, Shown.FOLDER, b"a path")

    def fails(descriptor: int, data: bytes, at: int) -> int:
        os.lseek(descriptor, at, os.SEEK_SET)
        os.write(descriptor, bytes(data)[:5])
        raise OSError(28, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "pwrite", fails)
        with pytest.raises(OSError, match="no space"):
            first.commit()
    first.tell(8, Shown.FOLDER, b"another")
    first.commit()
    assert list(State(memory).known) == [8]


def test_it_is_written_anew_when_most_of_it_is_forgotten(memory: int) -> None:
    first = State(memory)
    first.set_init(b"init")
    first.set_answer(b"answer")
    first.set_options(["ro"])
    first.start()
    first.tell(1, Shown.FOLDER, b"stays")
    number = 2
    while not first.is_mostly_garbage:
        first.tell(number, Shown.FILE, b"x" * 200)
        first.forget(number, b"x" * 200)
        first.commit()
        number += 1
    size = os.fstat(memory).st_blocks
    stale = State(memory)
    first.rewrite([(1, Shown.FOLDER, b"stays")])
    assert not first.is_mostly_garbage
    assert os.fstat(memory).st_blocks < size / 4
    first.tell(5, Shown.FILE, b"new")
    first.commit()
    second = State(memory)
    assert (second.init, second.answer, second.options) == (b"init", b"answer", ["ro"])
    assert second.daemons == 1
    assert list(second.known) == [1, 5]
    # Who had read the old one, and stands by.
    assert stale.refresh() is None
    assert list(stale.known) == [1, 5]
    assert stale.init == b"init"


def test_a_successor_reads_on(memory: int) -> None:
    first = State(memory)
    first.tell(7, Shown.FOLDER, b"roms")
    first.commit()
    second = State(memory)
    first.tell(8, Shown.FOLDER, b"more")
    first.forget(7, b"roms")
    first.hand_over(12)
    assert second.refresh() == [
        News(8, Known(Shown.FOLDER, b"more"), forgotten=False),
        News(7, Known(Shown.FOLDER, b"roms"), forgotten=True),
    ]
    assert list(second.known) == [8]
    assert second.handed_over == 12
    assert second.refresh() == []


def test_the_library_is_known(memory: int) -> None:
    first = State(memory)
    assert first.library is None
    first.set_library(b"/srv/link", b"/mnt/games")
    size = os.fstat(memory).st_size
    first.set_library(b"/srv/link", b"/mnt/games")
    assert os.fstat(memory).st_size == size
    assert State(memory).library == (b"/srv/link", b"/mnt/games")
    first.rewrite([])
    assert State(memory).library == (b"/srv/link", b"/mnt/games")
