"""Whether the library's place is there: by what it is told, and what follows (DESIGN H6)."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.fs.conftest import Tree
from tests.fs.lab import root_only, unprivileged, until
from tests.support.libraries import make_file, make_game
from zipfs.catalog.presence import Keeper
from zipfs.errors import GoneError
from zipfs.library.library import Library
from zipfs.library.presence import EMPTY, STILL_EMPTY, Presence
from zipfs.system import syscalls
from zipfs.system.syscalls import identity
from zipfs.system.threads.lanes import Threads


@pytest.fixture
def presence(library: Path) -> Presence:
    make_file(library / "roms/file", b"1")
    return Presence(bytes(library))


def reason(presence: Presence) -> str:
    (gone,) = presence.gone
    return gone.reason


def exchange(library: Path) -> None:
    library.rename(f"{library}-away")
    library.mkdir()


def put_back(library: Path) -> None:
    shutil.rmtree(library, ignore_errors=True)
    Path(f"{library}-away").rename(library)


def accept(presence: Presence, source: bytes = b"") -> bool:
    seen = presence.look(source)
    return seen is not None and presence.is_news(source) and presence.accept(source, seen)


def test_nothing_is_told_of_a_place_that_was_exchanged(presence: Presence, library: Path) -> None:
    with presence.asking(b"roms") as asking:
        asking.confirm()
    with presence.asking(b"roms") as asking:
        exchange(library)
        with pytest.raises(GoneError) as caught:
            asking.confirm()
    assert caught.value.errno == errno.EIO
    assert presence.is_gone
    with pytest.raises(GoneError):
        presence.check(b"any")
    put_back(library)
    with pytest.raises(GoneError), presence.asking(b"roms"):
        pass  # it has to be accepted first
    assert accept(presence)
    with presence.asking(b"roms") as asking:
        asking.confirm()


def test_an_error_is_that_of_the_place(presence: Presence, library: Path) -> None:
    with pytest.raises(FileNotFoundError), presence.asking(b"roms"):
        os.stat(library / "roms/nothing")
    asking = presence.asking(b"roms")
    library.rename(f"{library}-away")
    with pytest.raises(GoneError), asking:
        os.stat(library / "roms/file")
    assert reason(presence) == os.strerror(errno.ENOENT)


def test_an_answer_from_before_isnt_given_afterwards(presence: Presence, library: Path) -> None:
    """What was seen of an empty folder, while the library was away and came back."""
    asking = presence.asking(b"roms")
    exchange(library)
    assert presence.look(b"") is None
    put_back(library)
    assert accept(presence)
    with asking, pytest.raises(GoneError):
        asking.confirm()


def test_empty_is_empty_only_in_the_same_folder(presence: Presence, library: Path) -> None:
    shutil.rmtree(library / "roms")
    assert presence.look(b"")
    assert not presence.gone
    exchange(library)
    (library / "lost+found").mkdir()
    (library / ".DS_Store").touch()
    assert presence.look(b"") is None
    assert reason(presence) == EMPTY
    (library / "anything").touch()
    assert accept(presence)


def test_an_empty_library_that_is_known_is_waited_for(presence: Presence, library: Path) -> None:
    presence.expect()
    assert not presence.gone
    shutil.rmtree(library / "roms")
    presence = Presence(bytes(library))
    presence.expect()
    assert reason(presence) == STILL_EMPTY
    assert presence.look(b"") is None
    make_file(library / "roms/file", b"1")
    assert accept(presence)


def test_what_changes_while_it_is_accepted_isnt(presence: Presence, library: Path) -> None:
    exchange(library)
    (library / "other").touch()
    seen = presence.look(b"")
    assert seen
    put_back(library)
    assert not presence.accept(b"", seen)
    assert presence.is_gone


@root_only
def test_a_folder_that_is_closed_to_us_isnt_gone(presence: Presence, library: Path) -> None:
    library.chmod(0o700)
    with unprivileged():
        with pytest.raises(PermissionError), presence.asking(b"roms"):
            os.listdir(library)
        assert presence.look(b"")
    assert not presence.gone


def test_without_statx_device_and_inode_are_the_identity(
    presence: Presence, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "_statx", None)
    descriptor = os.open(library, os.O_RDONLY)
    try:
        status = os.fstat(descriptor)
        assert identity(descriptor) == (status.st_dev, status.st_ino, 0)
    finally:
        os.close(descriptor)
    presence = Presence(bytes(library))
    exchange(library)
    assert presence.look(b"") is None


@root_only
def test_two_mounts_of_one_folder_are_two(library: Path, tmp_path: Path) -> None:
    found = set()
    for _ in range(2):
        subprocess.run(["mount", "--bind", library, tmp_path], check=True)
        try:
            descriptor = os.open(tmp_path, os.O_RDONLY)
            found.add(identity(descriptor))
            os.close(descriptor)
        finally:
            subprocess.run(["umount", tmp_path], check=True)
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 8):
        assert len(found) == 2
    assert len({(device, inode) for device, inode, _ in found}) == 1


@root_only
def test_a_place_of_another_name_is_not_gone(library: Path) -> None:
    """However often the table is read before anybody looks at it."""
    folder = library / "roms/psx/more/disk"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    try:
        make_file(folder / "file", b"1")
        presence = Presence(bytes(library))
        source = b"roms/psx/more/disk"
        assert source in presence.read_mounts()
        seen = presence.look(source)
        assert seen
        assert presence.accept(source, seen)
        (library / "roms/psx").rename(library / "roms/other")
        folder = library / "roms/other/more/disk"
        for _ in range(3):
            presence.read_mounts()
        assert presence.look(source) is None
        assert not presence.gone
        assert source not in presence.places
        assert b"roms/other/more/disk" in presence.places
    finally:
        subprocess.run(["umount", folder], check=True)


MOUNT_AND_WAIT = """
import subprocess, sys
import trio
import trio.testing
from zipfs.system.mounts import MountEvents

async def main(place, when):
    events = MountEvents()
    for command in [["mount", "-t", "tmpfs", "tmpfs", place], ["umount", place]] * 3:
        events.clear()
        if when == "before":
            subprocess.run(command, check=True)
            await trio.lowlevel.wait_readable(events.fileno())
            continue
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, events.fileno())
            await trio.testing.wait_all_tasks_blocked()
            subprocess.run(command, check=True)
    events.clear()
    with trio.move_on_after(0.2) as scope:
        await trio.lowlevel.wait_readable(events.fileno())
    assert scope.cancelled_caught, "told of a change that there wasn't"
    events.close()

trio.run(main, *sys.argv[1:])
"""


@root_only
@pytest.mark.parametrize("when", ["before", "during"])
def test_mounts_are_events(when: str, tmp_path: Path) -> None:
    """Also those that come before anybody waits for them."""
    # In a table of its own, which nothing else on the machine changes.
    subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", MOUNT_AND_WAIT, tmp_path, when],
        check=True,
        timeout=60,
    )


async def test_the_structure_comes_before_the_first_answer(
    presence: Presence, library: Path, nursery: trio.Nursery
) -> None:
    seen: list[str] = []

    def detect() -> None:
        seen.append("gone" if presence.is_gone else "there")

    keeper = Keeper(presence, Threads(4), detect, lambda: seen.append("changed"), lambda: None)
    nursery.start_soon(keeper.run)
    exchange(library)
    keeper.doubt()
    await until(lambda: presence.is_gone)
    put_back(library)
    await until(lambda: not presence.is_gone)
    await until(lambda: "changed" in seen)
    assert seen == ["gone", "changed"]


async def test_games_stay_known(library: Path, running: Tree, stale: None) -> None:
    make_game(library, "roms/1", {"1": b"1", "2": b"2"})
    make_game(library, "roms/2", {"1": b"1", "2": b"2"})
    for number in (1, 2):
        await running.sealed(f"roms/{number}.zip")
    node = await running.archive("roms/1.zip")
    exchange(library)
    running.catalog.rescan()
    for path in ("roms/1.zip", "roms/nothing"):
        with pytest.raises(GoneError):
            await running.find(path)
    with pytest.raises(GoneError):
        await running.names("")
    with pytest.raises(GoneError):
        await running.catalog.open(node)
    with pytest.raises(GoneError):
        await running.catalog.statvfs()
    running.catalog.rescan()
    await until(lambda: running.catalog.presence.is_gone)
    assert running.catalog.totals().archives == 2
    put_back(library)
    await until(lambda: not running.catalog.presence.gone)
    assert (await running.archive("roms/1.zip")).attributes == node.attributes
    assert await running.names("roms") == ["1.zip", "2.zip"]


def test_a_name_is_gone_with_its_place_alone(presence: Presence, library: Path) -> None:
    """What isn't there, in a library that is, isn't there."""
    found = Library(str(library)).entry(b"nothing")
    assert found is None
    with presence.asking(b"nothing") as asking:
        asking.confirm()
