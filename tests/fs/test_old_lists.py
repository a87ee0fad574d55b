"""Lists that nobody asks for are removed, and no other."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.fs.lab import root_only, unprivileged, until
from tests.support.lists import write_list
from zipfs.catalog.background import old_lists as module
from zipfs.catalog.background.old_lists import OldLists
from zipfs.config import Settings

KEEP = 1000.0


class Clock:
    """Stands for the module ``time``; files can't be made old, so it goes ahead of them."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def lists(tmp_path: Path) -> OldLists:
    return OldLists(str(tmp_path), ".lists", KEEP)


def nobody(_: bytes) -> bool:
    return False


async def swept(lists: OldLists, is_open: Callable[[bytes], bool] = nobody) -> None:
    await lists._sweep(is_open)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


async def test_what_is_old(tmp_path: Path, lists: OldLists, clock: Clock) -> None:
    digest = "0123456789abcdef" * 4
    old = ["a.list", f"{digest}.list", f".{digest}.x7", ".b.list.zipfs-old"]
    others = [".list", "notes.txt", ".swp", ".a.list", "c.list~", f"{digest}.x7"]
    for name in (*old, *others):
        (tmp_path / name).write_bytes(b"")
    others.remove(".a.list")  # a list, if one that is called oddly
    (tmp_path / "folder.list").mkdir()
    (tmp_path / "link.list").symlink_to("notes.txt")
    everything = names(tmp_path)
    await swept(lists)
    assert names(tmp_path) == everything
    clock.ahead = KEEP + 10
    (tmp_path / "kept.list").write_bytes(b"")
    os.utime(tmp_path / "kept.list", (clock.time(), clock.time()))
    await swept(lists)
    assert names(tmp_path) == sorted([*others, "folder.list", "link.list", "kept.list"])


async def test_old_dates_of_a_new_list(tmp_path: Path, lists: OldLists) -> None:
    """`cp -p` has brought it just now."""
    write_list(tmp_path / "a.list", b"")
    os.utime(tmp_path / "a.list", (1e9, 1e9))
    await swept(lists)
    assert names(tmp_path) == ["a.list"]


async def test_open(tmp_path: Path, lists: OldLists, clock: Clock) -> None:
    for name in ("a", "b"):
        write_list(tmp_path / f"{name}.list", b"")
    clock.ahead = KEEP + 10
    await swept(lists, lambda game: game == b".lists/a")
    assert names(tmp_path) == ["a.list"]
    await swept(lists)
    assert names(tmp_path) == []


async def test_opened_is_dated(
    tmp_path: Path, lists: OldLists, clock: Clock, nursery: trio.Nursery
) -> None:
    """By the real clock, which is behind here: what counts is that it was."""
    for name in ("a", "b"):
        write_list(tmp_path / f"{name}.list", b"")
        os.utime(tmp_path / f"{name}.list", (1e9, 1e9))
    before = (tmp_path / "b.list").stat()
    clock.ahead = KEEP / 2
    nursery.start_soon(lists._date)
    for game in (b".lists/a", b".lists/none", b"roms/b", b".lists/sub/x", b".lists"):
        lists.opened(game)
    await until(lambda: (tmp_path / "a.list").stat().st_mtime > 1e9)
    assert (tmp_path / "b.list").stat() == before
    # In memory, it holds also where no list can be dated.
    clock.ahead = 1.4 * KEEP
    await swept(lists)
    assert names(tmp_path) == ["a.list"]
    clock.ahead = 1.6 * KEEP
    await swept(lists)
    assert names(tmp_path) == []


async def test_opened_young_is_left_alone(
    tmp_path: Path, lists: OldLists, clock: Clock, nursery: trio.Nursery
) -> None:
    """A download of a thousand ranges moves no date a thousand times."""
    for name in ("young", "old"):
        write_list(tmp_path / f"{name}.list", b"")
    os.utime(tmp_path / "young.list", (time.time() + KEEP / 2, time.time() + KEEP / 2))
    before = (tmp_path / "young.list").stat()
    before_old = (tmp_path / "old.list").stat()
    clock.ahead = KEEP / 2
    nursery.start_soon(lists._date)
    lists.opened(b".lists/young")
    lists.opened(b".lists/old")
    await until(lambda: (tmp_path / "old.list").stat().st_mtime_ns > before_old.st_mtime_ns)
    assert (tmp_path / "young.list").stat() == before


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_asked_for_as_it_is_removed(
    tmp_path: Path, lists: OldLists, clock: Clock, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Dated by a front end just before it goes: it stays. After that it isn't to be found."""
    path = tmp_path / "a.list"
    write_list(path, b"text")
    clock.ahead = KEEP + 10
    rename = os.rename
    found: list[bool] = []

    def slow(old: bytes, new: bytes) -> None:
        if moment == "after":
            rename(old, new)
        try:
            os.utime(path, (clock.time(), clock.time()))
            found.append(True)
        except FileNotFoundError:
            found.append(False)
            path.write_bytes(b"again")
        if moment == "before":
            rename(old, new)

    monkeypatch.setattr(os, "rename", slow)
    await swept(lists)
    assert found == [moment == "before"]
    assert names(tmp_path) == ["a.list"]
    assert path.read_bytes() == (b"text" if moment == "before" else b"again")


async def test_opened_as_it_is_removed(
    tmp_path: Path, lists: OldLists, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has it open by the time that it is put aside."""
    write_list(tmp_path / "a.list", b"text")
    clock.ahead = KEEP + 10
    opened = iter([False, True])
    await swept(lists, lambda _: next(opened))
    assert names(tmp_path) == ["a.list"]
    assert (tmp_path / "a.list").read_bytes() == b"text"

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    # Where there are no links.
    monkeypatch.setattr(os, "link", fail)
    opened = iter([False, True])
    await swept(lists, lambda _: next(opened))
    assert names(tmp_path) == ["a.list"]
    # A front end has written it again meanwhile.
    opened = iter([False, True])

    def is_open(_: bytes) -> bool:
        if is_it := next(opened):
            (tmp_path / "a.list").write_bytes(b"again")
        return is_it

    await swept(lists, is_open)
    assert names(tmp_path) == ["a.list"]
    assert (tmp_path / "a.list").read_bytes() == b"again"


async def test_gone_meanwhile(tmp_path: Path, lists: OldLists, clock: Clock) -> None:
    write_list(tmp_path / "a.list", b"")
    clock.ahead = KEEP + 10

    def is_open(_: bytes) -> bool:
        (tmp_path / "a.list").unlink()
        return False

    await swept(lists, is_open)
    assert names(tmp_path) == []


@root_only
async def test_a_folder_that_is_read_only(
    tmp_path: Path, clock: Clock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """A line in the log, and the rest goes on."""
    write_list(tmp_path / "a.list", b"")
    os.chmod(tmp_path, 0o500)
    lists = OldLists(str(tmp_path), ".lists", KEEP)
    clock.ahead = KEEP + 10
    with unprivileged(), caplog.at_level(logging.DEBUG):
        nursery.start_soon(lists.run, nobody)
        await until(lambda: "can't remove old lists in" in caplog.text)
        lists.opened(b".lists/a")
        await until(lambda: "can't date lists in" in caplog.text)
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG"]
    assert names(tmp_path) == ["a.list"]
    nursery.cancel_scope.cancel()


async def test_all_are_kept() -> None:
    """Without the option it ends at once, and remembers nothing."""
    lists = OldLists.of(Settings.load(None, {"library": "/x"}))
    lists.opened(b".lists/a")
    await lists.run(nobody)
    assert not lists._asked
    lists = OldLists.of(Settings.load(None, {"library": "/x", "lists": "/y", "lists-keep": 2}))
    assert lists._keep == 2 * 86400
