"""Equal libraries have equal archives: after a restart, without an index, elsewhere (V2, S3)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.libraries import MTIME, content, make_file, make_game, sha256, tree
from tests.support.mounting import Mounted, Mounts

GAMES = {
    "roms/psx/One": {"a.bin": content(2_000_000, 1), "b.bin": content(100, 2)},
    "roms/psx/Two": {"a.bin": content(2_000_000, 1), "b.bin": content(100, 3)},
    "roms/gb/Deep": {"a/b/c": b"1", "a/b/d": b"", "ü": b"3"},
}


class Shown(NamedTuple):
    size: int
    mtime_ns: int
    inode: int
    sha256: str


def shown(mounted: Mounted) -> dict[str, Shown]:
    mounted.wait_sealed(len(GAMES))
    found = {}
    for game in GAMES:
        archive = mounted.archive(game)
        status = archive.stat()
        found[game] = Shown(status.st_size, status.st_mtime_ns, status.st_ino, sha256(archive))
    return found


@pytest.fixture
def filled(library: Path) -> Iterator[Path]:
    for number, (game, files) in enumerate(GAMES.items()):
        make_game(library, game, files, mtime=MTIME + number + 0.123456789)
    before = tree(library)
    yield library
    assert tree(library) == before


def test_after_a_restart(filled: Path, mount: Mounts) -> None:
    first = mount(filled)
    before = shown(first)
    first.stop()
    # An index is there, so nothing has to be hashed.
    second = mount(filled, "--log-level=debug", mountpoint=first.path)
    assert shown(second) == before
    assert "hash" not in second.notifications.status


def test_after_a_crash(filled: Path, mount: Mounts) -> None:
    first = mount(filled)
    before = shown(first)
    first.kill()
    assert shown(mount(filled, mountpoint=first.path)) == before


@pytest.mark.parametrize("damage", ["deleted", "cut", "overwritten", "empty", "a text"])
def test_without_the_index(filled: Path, mount: Mounts, damage: str) -> None:
    """Losing it costs time; a damaged one is set aside, in one line of the log."""
    first = mount(filled)
    before = shown(first)
    first.stop()
    data = first.index.read_bytes()
    for name in os.listdir(first.index.parent):
        (first.index.parent / name).unlink()
    if damage == "cut":
        first.index.write_bytes(data[: len(data) // 2])
    elif damage == "overwritten":
        middle = len(data) // 3
        first.index.write_bytes(data[:middle] + content(middle) + data[2 * middle :])
    elif damage == "empty":
        first.index.write_bytes(b"")
    elif damage == "a text":
        first.index.write_bytes(b"This is not a database, and it is longer than a header is.\n" * 9)
    second = mount(filled)
    second.expect_log("WARNING: .*index")
    assert shown(second) == before
    assert len([line for line in second.log_text().splitlines() if "WARNING" in line]) <= 1
    if damage in ("cut", "a text"):
        assert "set aside" in second.log_text()
        second.stop()
        aside = set(os.listdir(second.index.parent)) - {second.index.name}
        assert aside, "the damaged one is kept"


def test_on_a_copy_elsewhere(filled: Path, mount: Mounts, place: Path) -> None:
    here = shown(mount(filled))
    copy = place / "a copy of it"
    subprocess.run(["cp", "-a", filled, copy], check=True)
    assert shown(mount(copy)) == here


def test_on_a_copy_made_in_another_order(filled: Path, mount: Mounts, place: Path) -> None:
    """Other inodes, another order of folders, other modes, another time zone and locale."""
    here = shown(mount(filled))
    copy = place / "copy"
    for game in reversed(GAMES):
        for name, data in reversed(GAMES[game].items()):
            make_file(copy / game / name, data)
            status = (filled / game / name).stat()
            os.utime(copy / game / name, ns=(0, status.st_mtime_ns))
            (copy / game / name).chmod(0o440)
    there = mount(copy, env={"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "7"})
    assert shown(there) == here


def test_on_file_systems_with_coarser_times(filled: Path, mount: Mounts, place: Path) -> None:
    """An archive states whole seconds; what a copy loses below them doesn't count."""
    here = shown(mount(filled))
    copy = place / "copy"
    subprocess.run(["cp", "-a", filled, copy], check=True)
    for parent, _, names in os.walk(copy):
        for name in names:
            path = os.path.join(parent, name)
            seconds = int(os.stat(path).st_mtime_ns // 10**9)
            os.utime(path, (seconds, seconds))
    assert shown(mount(copy)) == here


def test_two_mounts_of_one_library_and_index(filled: Path, mount: Mounts) -> None:
    first = mount(filled)
    second = mount(filled)
    assert first.index == second.index
    assert shown(first) == shown(second)
