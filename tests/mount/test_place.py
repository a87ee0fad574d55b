"""While the library's own place is gone, the mount says so, and is back by itself (DESIGN H6).

What must never happen is seen by who does it: ``rsync -a --delete`` to a mirror.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.disks import Disk, bound, disk
from tests.support.libraries import content, make_file, make_game
from tests.support.mounting import Mounted, Mounts, run_zipfs
from tests.support.users import needs_root
from tests.support.waiting import SECONDS, poll

pytestmark = needs_root  # to mount a disk

GAME: Final = "roms/psx/Game"
SELECTIONS: Final = ("general", "romm")
_GONE: Final = r"WARNING: .* is gone: "


@pytest.fixture(params=["a disk", "a bind mount"])
def stick(request: pytest.FixtureRequest, place: Path) -> Iterator[Disk]:
    """Something that is mounted, with a library on it, and can be unmounted."""
    with (disk if request.param == "a disk" else bound)(place) as made:
        fill(made.folder)
        yield made


@pytest.fixture
def one_stick(place: Path) -> Iterator[Disk]:
    """The same for tests that any kind will do for."""
    with bound(place) as made:
        fill(made.folder)
        yield made


@pytest.fixture(params=SELECTIONS)
def selection(request: pytest.FixtureRequest) -> str:
    return f"--selection={request.param}"


def fill(folder: Path) -> None:
    make_game(folder, GAME, {"1.bin": content(200_000, 1), "2.bin": content(100, 2)})
    make_game(folder, "roms/snes/Other", {"1": b"one", "2": b"two"})
    make_file(folder / "roms/snes/single.sfc", b"single")


def status(mounted: Mounted) -> dict[str, Any]:
    env = {"RUNTIME_DIRECTORY": str(mounted.runtime)}
    done = run_zipfs("status", mounted.path, "--json", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def hashed(mounted: Mounted) -> int:
    return int(status(mounted)["pending"]["hashed_bytes"])


class Mirror:
    """A copy of the mount, which is not to lose a file."""

    def __init__(self, mounted: Mounted, place: Path) -> None:
        self._source = mounted.path
        self.folder = place / "mirror"
        assert self.update() == 0
        self._files = self._found()
        assert self._files

    def update(self) -> int:
        """Mirror what the mount has now: rsync's exit status."""
        command = ["rsync", "-a", "--delete", f"{self._source}/", f"{self.folder}/"]
        return subprocess.run(command, capture_output=True, check=False, timeout=SECONDS).returncode

    def fails(self) -> None:
        """Mirror a mount whose library isn't there."""
        assert self.update() != 0
        self.check()

    def check(self) -> None:
        assert self._found() == self._files

    def _found(self) -> dict[str, bytes]:
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


def unmount(stick: Disk, *, lazily: bool = False) -> None:
    """As soon as nothing of it is open: zipfs keeps files open for a few seconds."""

    def unmounted() -> bool:
        try:
            stick.unmount(lazily=lazily)
        except subprocess.CalledProcessError:
            return False
        return True

    poll("the disk to be free", unmounted)


def errno_of(call: Callable[..., object], *arguments: object) -> int | None:
    try:
        call(*arguments)
    except OSError as error:
        return error.errno
    return None


def all_fails(mounted: Mounted) -> None:
    """Every question ends in EIO, from the root on."""
    # What the kernel has cached is good for a second.
    for name in ("", "roms", "roms/psx", f"{GAME}.zip", "nothing"):
        path = mounted.path / name
        poll(f"{path} to fail", lambda path=path: errno_of(os.stat, path) == errno.EIO)
        assert errno_of(os.listdir, path) in (errno.EIO, errno.ENOTDIR)
        assert errno_of(os.open, path, os.O_RDONLY) == errno.EIO


def wait_back(mounted: Mounted, game: str = GAME) -> None:
    """Wait for the archive of *game*; until then there may be errors."""

    def is_there() -> bool:
        mounted.check_runs()
        return errno_of(os.stat, mounted.archive(game)) is None

    poll(f"{game} to be back", is_there)


def identity(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize("lazily", [False, True], ids=["", "lazily"])
def test_unmounted_and_mounted_again(
    lazily: bool, stick: Disk, selection: str, mount: Mounts, place: Path
) -> None:
    mounted = mount(stick.folder, selection)
    mounted.expect_log(_GONE)
    mounted.wait_sealed(2)
    archive = mounted.archive(GAME)
    mirror = Mirror(mounted, place)
    before = identity(archive), hashed(mounted)
    for number in (1, 2):
        unmount(stick, lazily=lazily)
        mirror.fails()
        all_fails(mounted)
        poll("the log", lambda n=number: mounted.log_text().count("the library is gone") == n)
        assert [gone["path"] for gone in status(mounted)["gone"]] == [""]
        mirror.fails()
        stick.mount()
        wait_back(mounted)
        assert status(mounted)["gone"] == []
        assert mirror.update() == 0
        mirror.check()
        assert mounted.log_text().count("the library is back") == number
    assert (identity(archive), hashed(mounted)) == before
    assert archive.read_bytes() == (mirror.folder / f"{GAME}.zip").read_bytes()
    # Its events arrive again: the next scan would be minutes away.
    assert status(mounted)["options"]["watching"] == "events"
    make_game(stick.folder, "roms/gb/New", {"1": b"1", "2": b"2"})
    mounted.wait_sealed(3)


def test_a_mirror_at_every_moment(one_stick: Disk, mount: Mounts, place: Path) -> None:
    mounted = mount(one_stick.folder)
    mounted.expect_log(_GONE)
    mounted.expect_log("ended in an error")  # what was being read at that moment
    mounted.wait_sealed(2)
    mirror = Mirror(mounted, place)
    over = threading.Event()
    updates: list[int] = []
    lost: list[str] = []

    def mirror_on() -> None:
        while not over.is_set():
            updates.append(mirror.update())
            try:
                mirror.check()
            except AssertionError as error:
                lost.append(str(error))
                return

    def update_with(is_wanted: Callable[[int], bool]) -> None:
        begun = len(updates)
        poll("the mirror", lambda: lost or any(map(is_wanted, updates[begun:])))

    thread = threading.Thread(target=mirror_on)
    thread.start()
    try:
        for _ in range(6):
            one_stick.unmount(lazily=True)
            update_with(lambda status: status != 0)
            one_stick.mount()
            update_with(lambda status: status == 0)
    finally:
        over.set()
        thread.join()
    assert not lost


def test_mounted_late(stick: Disk, selection: str, mount: Mounts, place: Path) -> None:
    """The index knows the library: an empty folder isn't it."""
    first = mount(stick.folder, selection)
    first.wait_sealed(2)
    mirror = Mirror(first, place)
    first.unmount()
    unmount(stick)
    mounted = mount(stick.folder, selection, index=first.index, mountpoint=first.path)
    mounted.expect_log(_GONE)
    mounted.wait_log("the library is gone: it is empty, and the index knows files of it")
    all_fails(mounted)
    mirror.fails()
    stick.mount()
    wait_back(mounted)
    assert not mounted.archive("roms/psx").exists()
    mounted.wait_sealed(2)
    assert hashed(mounted) == 0
    assert mirror.update() == 0
    mirror.check()


def test_mounted_late_for_the_first_time(stick: Disk, selection: str, mount: Mounts) -> None:
    """The empty folder is a new library then, and decides nothing."""
    unmount(stick)
    mounted = mount(stick.folder, selection)
    assert os.listdir(mounted.path) == []
    seen: set[str] = set()
    stick.mount()

    def is_there() -> bool:
        with contextlib.suppress(OSError):
            seen.update(os.listdir(mounted.path / "roms"))
        return errno_of(os.stat, mounted.archive(GAME)) is None

    poll("the game", is_there)
    assert seen <= {"psx", "snes"}
    mounted.wait_sealed(2)
    assert "another folder or disk" in mounted.log_text()


def test_a_library_that_is_emptied_is_empty(library: Path, mount: Mounts) -> None:
    fill(library)
    mounted = mount(library)
    mounted.wait_sealed(2)
    shutil.rmtree(library / "roms")
    mounted.wait_gone("roms")
    assert os.listdir(mounted.path) == []
    assert status(mounted)["gone"] == []
    make_game(library, "roms/gb/New", {"1": b"1", "2": b"2"})
    mounted.wait_archive("roms/gb/New")


@pytest.mark.parametrize("empty", [True, False], ids=["another folder", "no folder"])
def test_exchanged_by_rename(
    empty: bool, selection: str, library: Path, mount: Mounts, place: Path
) -> None:
    fill(library)
    mounted = mount(library, selection)
    mounted.expect_log(_GONE)
    mounted.wait_sealed(2)
    mirror = Mirror(mounted, place)
    before = hashed(mounted)
    library.rename(place / "away")
    if empty:
        library.mkdir()
        (library / "lost+found").mkdir()
    mirror.fails()
    all_fails(mounted)
    if empty:
        shutil.rmtree(library)
    (place / "away").rename(library)
    wait_back(mounted)
    assert mirror.update() == 0
    mirror.check()
    assert hashed(mounted) == before


def test_another_library_in_its_place(library: Path, mount: Mounts, place: Path) -> None:
    """Its structure is found out before anything of it is shown, and it is shown at once."""
    fill(library)
    other = place / "other"
    make_game(other, "psx/roms/New", {"1": b"1", "2": b"2"})
    mounted = mount(library)
    mounted.wait_sealed(2)
    library.rename(place / "away")
    other.rename(library)
    mounted.expect_log(_GONE)  # for the moment between
    wait_back(mounted, "psx/roms/New")
    mounted.wait_gone("roms")
    assert not mounted.archive("psx/roms").exists()


@pytest.mark.parametrize("removed", [False, True], ids=["", "and its folder too"])
def test_a_disk_in_the_library(
    removed: bool, library: Path, selection: str, mount: Mounts, place: Path
) -> None:
    fill(library)
    with bound(place) as stick:
        make_game(stick.folder, "Big", {"1": b"one", "2": b"two"})
        make_file(stick.folder / "small.gba", b"small")
        unmount(stick)
        stick.folder = library / "roms/gba"
        stick.folder.mkdir()
        stick.mount()
        mounted = mount(library, selection)
        mounted.expect_log(_GONE)
        mounted.wait_sealed(3)
        mirror = Mirror(mounted, place)
        before = hashed(mounted)
        unmount(stick)
        if removed:
            stick.folder.rmdir()
        mirror.fails()
        poll("its error", lambda: errno_of(os.stat, mounted.path / "roms/gba") == errno.EIO)
        assert errno_of(os.listdir, mounted.path / "roms/gba") == errno.EIO
        assert errno_of(os.stat, mounted.archive("roms/gba/Big")) == errno.EIO
        assert sorted(os.listdir(mounted.path / "roms")) == ["gba", "psx", "snes"]
        assert mounted.archive(GAME).exists()
        mounted.wait_log("the disk on roms/gba is gone")
        assert [gone["path"] for gone in status(mounted)["gone"]] == ["roms/gba"]
        mirror.fails()
        stick.folder.mkdir(exist_ok=True)
        stick.mount()
        wait_back(mounted, "roms/gba/Big")
        mounted.wait_log("the disk on roms/gba is back")
        assert mirror.update() == 0
        mirror.check()
        assert hashed(mounted) == before
        mounted.unmount()
        unmount(stick)


def test_a_disk_that_comes_into_the_library(library: Path, mount: Mounts, place: Path) -> None:
    """No event tells of what it holds, and the next scan is five minutes away."""
    fill(library)
    with bound(place) as stick:
        make_game(stick.folder, "Big", {"1": b"one", "2": b"two"})
        unmount(stick)
        stick.folder = library / "roms/gba"
        stick.folder.mkdir()
        mounted = mount(library)
        mounted.wait_sealed(2)
        stick.mount()
        mounted.wait_sealed(3)
        mounted.expect_log(_GONE)
        mounted.unmount()
        unmount(stick)


def test_a_game_that_is_a_disk(library: Path, mount: Mounts, place: Path) -> None:
    fill(library)
    with bound(place) as stick:
        make_game(stick.folder, ".", {"1": b"one", "2": b"two"})
        unmount(stick)
        stick.folder = library / "roms/psx/Disk"
        stick.folder.mkdir()
        stick.mount()
        mounted = mount(library)
        mounted.expect_log(_GONE)
        mounted.wait_sealed(3)
        mirror = Mirror(mounted, place)
        unmount(stick)
        mounted.wait_log("the disk on roms/psx/Disk is gone")
        poll("its error", lambda: errno_of(os.stat, mounted.archive("roms/psx/Disk")) == errno.EIO)
        assert sorted(os.listdir(mounted.path / "roms/psx")) == ["Disk.zip", "Game.zip"]
        mirror.update()  # what it has needn't be read again
        mirror.check()
        stick.mount()
        wait_back(mounted, "roms/psx/Disk")
        assert mirror.update() == 0
        mirror.check()
        mounted.unmount()
        unmount(stick)


def test_a_part_of_a_game_is_a_disk(library: Path, mount: Mounts, place: Path) -> None:
    """Without it the game would be another archive: it is none meanwhile."""
    fill(library)
    with bound(place) as stick:
        make_file(stick.folder / "patch", b"patch")
        unmount(stick)
        stick.folder = library / GAME / "dlc"
        stick.folder.mkdir()
        stick.mount()
        mounted = mount(library)
        mounted.expect_log(_GONE)
        mounted.expect_log("ended in an error")
        mounted.wait_sealed(2)
        archive = mounted.archive(GAME)
        before = identity(archive)
        seen = set()

        def look() -> int | None:
            try:
                seen.add(identity(archive))
            except OSError as error:
                return error.errno
            return None

        for _ in range(3):
            unmount(stick, lazily=True)
            poll("its error", lambda: look() == errno.EIO)
            stick.mount()
            poll("its return", lambda: look() is None)
        assert seen == {before}
        mounted.unmount()
        unmount(stick)


def test_what_is_open_goes_on(one_stick: Disk, mount: Mounts) -> None:
    mounted = mount(one_stick.folder)
    mounted.expect_log(_GONE)
    mounted.wait_sealed(2)
    archive = mounted.archive(GAME)
    wanted = archive.read_bytes()
    with archive.open("rb", buffering=0) as file:
        assert file.read(100) == wanted[:100]
        unmount(one_stick, lazily=True)
        mounted.wait_log("the library is gone")
        found = bytearray(wanted[:100])
        while chunk := file.read(10_000):
            found += chunk
        assert bytes(found) == wanted
    one_stick.mount()
    wait_back(mounted)


def test_a_folder_that_is_hidden_meanwhile(one_stick: Disk, mount: Mounts, place: Path) -> None:
    """Something else is mounted over it, or over a folder above."""
    mounted = mount(one_stick.folder)
    mounted.expect_log(_GONE)
    mounted.wait_sealed(2)
    mirror = Mirror(mounted, place)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", one_stick.folder], check=True)
    try:
        mirror.fails()
        all_fails(mounted)
    finally:
        subprocess.run(["umount", one_stick.folder], check=True)
    wait_back(mounted)
    assert mirror.update() == 0


def test_a_dead_file_system(library: Path, mount: Mounts, place: Path) -> None:
    """Its daemon has died: ENOTCONN, and no mount comes or goes."""
    fill(library)
    source = place / "source"
    source.mkdir()
    command = ["bindfs", "-f", library, source]
    daemon = subprocess.Popen(command)
    try:
        poll("bindfs", lambda: os.path.ismount(source))
        mounted = mount(source)
        mounted.expect_log(_GONE)
        mounted.expect_log("ended in an error")
        mounted.wait_sealed(2)
        mirror = Mirror(mounted, place)
        daemon.kill()
        daemon.wait()
        mirror.update()  # the kernel has cached attributes of it, for a second
        mirror.check()
        all_fails(mounted)
        mirror.fails()
        mounted.wait_log("the library is gone: Transport endpoint is not connected")
        subprocess.run(["umount", "-l", source], check=True)
        daemon = subprocess.Popen(command)
        wait_back(mounted)
        assert mirror.update() == 0
        mirror.check()
        mounted.unmount()
    finally:
        subprocess.run(["umount", "-l", source], check=False)
        daemon.wait(SECONDS)


def test_no_library_is_no_start(place: Path) -> None:
    (place / "mountpoint").mkdir()
    done = run_zipfs("mount", place / "nothing", place / "mountpoint")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1


def test_a_folder_above_a_disk_has_another_name(library: Path, mount: Mounts, place: Path) -> None:
    """The disk is there, at another path: nothing is gone."""
    fill(library)
    with bound(place) as stick:
        make_game(stick.folder, "Big", {"1": b"one", "2": b"two"})
        unmount(stick)
        stick.folder = library / "roms/psx/more/disk"
        stick.folder.mkdir(parents=True)
        stick.mount()
        mounted = mount(library, "--games=roms/*/more/*/*")
        mounted.wait_sealed(1)
        (library / "roms/psx").rename(library / "roms/other")
        stick.folder = library / "roms/other/more/disk"
        mounted.wait_archive("roms/other/more/disk/Big")
        mounted.wait_gone("roms/psx")
        assert status(mounted)["gone"] == []
        mounted.unmount()
        unmount(stick)
