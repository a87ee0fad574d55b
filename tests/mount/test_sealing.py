"""An archive is there once it is sealed, and asking for it never waits (DESIGN S1, S2)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.libraries import expected, expected_archive, make_file, make_game
from tests.support.mounting import Mounts
from tests.support.waiting import poll

GIB = 1 << 30
HUGE = 1 << 40
"""Sparse, and more than any machine hashes in the time of a test."""
TWO = {"a.bin": b"a", "b.bin": b"b"}


def sealed_games(folder: Path) -> set[str]:
    return {name.removesuffix(".zip") for name in os.listdir(folder)}


def test_not_there_while_it_is_hashed(library: Path, mount: Mounts) -> None:
    """Asking answers at once; the answer is that it isn't there."""
    make_game(library, "roms/ps3/Big", {"a": HUGE, "b": b"b"})
    mounted = mount(library)
    archive = mounted.archive("roms/ps3/Big")
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            archive.stat()
        with pytest.raises(FileNotFoundError):
            archive.open("rb")
        assert os.listdir(mounted.path / "roms/ps3") == []
    # All that was answered, and the hashing isn't done.
    poll("a status line", lambda: "to hash" in mounted.notifications.status)
    assert mounted.notifications.status.startswith("0 archives sealed, 1 to go, ")
    assert "everything is sealed" not in mounted.log_text()
    # Nor is its end waited for.
    mounted.stop()


def test_others_are_there_meanwhile(library: Path, mount: Mounts) -> None:
    make_game(library, "roms/ps3/Big", {"a": HUGE, "b": b"b"})
    small = make_game(library, "roms/psx/Small", TWO)
    make_file(library / "roms/gb/Single.gb", b"single")
    mounted = mount(library)
    assert mounted.wait_archive("roms/psx/Small").read_bytes() == expected_archive(small)
    assert (mounted.path / "roms/gb/Single.gb").read_bytes() == b"single"
    # One that comes while the big one is in work.
    later = make_game(library, "roms/psx/Later", {"a": b"1" * 5000, "b": b"2"})
    assert mounted.wait_archive("roms/psx/Later").read_bytes() == expected_archive(later)
    assert "everything is sealed" not in mounted.log_text()
    mounted.stop()


def test_asked_for_comes_first(library: Path, mount: Mounts) -> None:
    """The largest of many would be the last; asked for, it isn't."""
    for number in range(60):
        make_game(library, f"roms/ps2/{number}", {"a": GIB + number, "b": b"b"})
    make_game(library, "roms/ps2/Wanted", {"a": GIB + (100 << 20), "b": b"b"})
    mounted = mount(library)
    mounted.wait_archive("roms/ps2/Wanted")
    sealed = sealed_games(mounted.path / "roms/ps2")
    assert "Wanted" in sealed
    assert len(sealed) < 61
    mounted.stop()


def test_smallest_come_first(library: Path, mount: Mounts) -> None:
    for number in range(4):
        make_game(library, f"roms/ps2/Big {number}", {"a": HUGE, "b": b"b"})
    for number in range(20):
        make_game(library, f"roms/psx/Small {number}", TWO)
    mounted = mount(library)
    poll("all small ones", lambda: len(sealed_games(mounted.path / "roms/psx")) == 20)
    assert len(sealed_games(mounted.path / "roms/ps2")) < 4
    mounted.stop()


def test_growing_file(library: Path, mount: Mounts) -> None:
    """An upload in progress: not there until it has been still for the settle time."""
    settle = 0.5
    folder = make_game(library, "roms/psx/Game", {"a": b"complete"})
    growing = folder / "b"
    last = time.monotonic()
    growing.write_bytes(b"")
    mounted = mount(library, settle=settle)
    archive = mounted.archive("roms/psx/Game")
    checked = 0
    excused = False
    began = time.monotonic()
    with growing.open("ab", buffering=0) as file:
        while (now := time.monotonic()) - began < 4 * settle:
            file.write(b"more")
            there = archive.exists()
            # On a machine that is so slow that a pause is as long (mounting is the first one), it
            # may be there, and stay until it is seen that there is more of it.
            excused = there and (excused or time.monotonic() - last >= settle)
            assert excused or not there
            checked += not there
            last = now
    assert checked
    assert mounted.wait_archive("roms/psx/Game").read_bytes() == expected_archive(folder)


def test_new_files_while_it_settles(library: Path, mount: Mounts) -> None:
    """A game that is being copied file by file appears whole."""
    folder = library / "roms/psx/Game"
    folder.parent.mkdir(parents=True)
    mounted = mount(library, settle=1)
    # Over in a moment, each within the settle time of the one before.
    for number in range(50):
        make_file(folder / f"{number}.bin", b"x" * number)
    wanted = expected(folder)
    archive = mounted.wait_archive("roms/psx/Game")
    assert archive.stat().st_ino == wanted.inode("roms/psx/Game.zip")


def test_dates_far_away(library: Path, mount: Mounts) -> None:
    """Dates in the future, or from ``cp -p`` long ago, hold nothing up."""
    dates = [4_000_000_000, 2_145_916_800, 86400, -1000.5]
    for number, mtime in enumerate(dates):
        make_game(library, f"roms/psx/{number}", TWO, mtime=mtime)
    mounted = mount(library)
    for number, mtime in enumerate(dates):
        wanted = expected(library / f"roms/psx/{number}")
        archive = mounted.wait_archive(f"roms/psx/{number}")
        assert archive.read_bytes() == wanted.read(0, wanted.size), mtime
        assert archive.stat().st_mtime_ns == wanted.mtime_ns, mtime


def test_a_library_without_games_is_told(library: Path, mount: Mounts) -> None:
    """Or an operator whose library has another structure waits for ever."""
    make_game(library, "a/b/c/d/Game", TWO)
    (library / "roms").mkdir()
    mounted = mount(library)
    mounted.wait_log(r"everything is sealed: 0 archives")
    mounted.wait_log(r"no folder is a game; `--games` says which are")
    make_game(library, "roms/x/Game", TWO)
    mounted.wait_archive("roms/x/Game")
    mounted.wait_sealed(1)
    assert mounted.log_text().count("no folder is a game") == 1
