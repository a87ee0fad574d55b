"""Files that are gone for long are forgotten, and no others."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from tests.fs.lab import FakeTime
from tests.support.libraries import make_game
from zipfs.catalog.background import forgetter as module
from zipfs.catalog.background.forgetter import LONG, Forgetter
from zipfs.index.index import Index
from zipfs.library.view import find_games
from zipfs.sealing.offline import seal_all
from zipfs.sealing.sealer import Sealer
from zipfs.system.threads.lanes import Threads

NAMES = [b"roms/a/1", b"roms/a/2", b"roms/b/1", b"roms/b/2"]


class Clock(FakeTime):
    def time(self) -> float:
        return self.time_ns() / 1e9


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    now = Clock()
    monkeypatch.setattr(module, "time", now)
    return now


@pytest.fixture
def forgetter(library: Path, sealer: Sealer, now: Clock) -> Forgetter:
    for name in "ab":
        make_game(library, f"roms/{name}", {"1": b"1", "2": name.encode()})
    seal_all(sealer, list(find_games(sealer.library, sealer.policy)))
    return Forgetter(sealer, Threads(2))


async def test_gone_for_long(library: Path, index: Index, forgetter: Forgetter, now: Clock) -> None:
    shutil.rmtree(library / "roms/a")
    await forgetter.some()
    assert set(index.missing(NAMES)) == {b"roms/a/1", b"roms/a/2"}
    now.ahead_ns += (LONG - 100) * 10**9
    await forgetter.some()
    assert set(index.files(NAMES)) == set(NAMES)
    now.ahead_ns += 200 * 10**9
    await forgetter.some()
    assert set(index.files(NAMES)) == {b"roms/b/1", b"roms/b/2"}
    assert index.missing(NAMES) == {}


async def test_what_comes_back_is_missing_no_more(
    library: Path, index: Index, forgetter: Forgetter, now: Clock
) -> None:
    (library / "roms/a").rename(library / "away")
    await forgetter.some()
    (library / "away").rename(library / "roms/a")
    now.ahead_ns += 2 * LONG * 10**9
    await forgetter.some()
    assert index.missing(NAMES) == {}
    (library / "roms/a").rename(library / "away")
    await forgetter.some()
    assert set(index.files(NAMES)) == set(NAMES)


async def test_a_library_that_is_gone(
    library: Path, index: Index, forgetter: Forgetter, now: Clock
) -> None:
    """H6."""
    os.rename(library, library.with_name("away"))
    os.mkdir(library)
    await forgetter.some()
    now.ahead_ns += 2 * LONG * 10**9
    await forgetter.some()
    assert set(index.files(NAMES)) == set(NAMES)
    assert index.missing(NAMES) == {}


async def test_what_cannot_be_looked_at(
    index: Index, forgetter: Forgetter, sealer: Sealer, now: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(source: bytes, *rest: object) -> object:
        raise OSError(errno.EIO, "x")

    monkeypatch.setattr(sealer.library, "entry", failing)
    for _ in range(2):
        await forgetter.some()
        now.ahead_ns += 2 * LONG * 10**9
    assert set(index.files(NAMES)) == set(NAMES)


async def test_some_at_a_time(
    library: Path, index: Index, forgetter: Forgetter, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(library / "roms")
    (library / "other").mkdir()
    (library / "other/file").touch()
    files_after = index.files_after

    def one(after: bytes) -> object:
        found, _ = files_after(after)
        return found[:1], found[0][0] if len(found) > 1 else None

    monkeypatch.setattr(index, "files_after", one)
    for count in (1, 2, 3, 4):
        await forgetter.some()
        assert len(index.missing(NAMES)) == count
    await forgetter.some()  # from the beginning
    assert len(index.missing(NAMES)) == 4
