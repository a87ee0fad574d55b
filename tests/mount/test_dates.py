"""Programs that go by dates (DESIGN F1): find, GNU tar's incremental backups, rsync."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.support.libraries import content, expected, make_file, make_game
from tests.support.lists import text_of, write_list
from tests.support.mounting import Mounted, Mounts
from tests.support.waiting import SECONDS, poll

OLD: Final = {"1": content(3000, 1), "2": content(500, 2)}
NEW: Final = {"1": content(3000, 3), "2": content(500, 2)}
LATE, EARLY = 1_600_000_000, 1_500_000_000
GAME: Final = "roms/psx/Game"


def run(*command: str | Path) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return done.stdout


def put(library: Path, files: Mapping[str, bytes], mtime: int, game: str = GAME) -> None:
    """The game with *files*, there from one moment to the next."""
    aside = make_game(library.parent, "aside", files, mtime=mtime)
    shutil.rmtree(library / game, ignore_errors=True)
    (library / game).parent.mkdir(parents=True, exist_ok=True)
    aside.rename(library / game)


def wait_is(mounted: Mounted, game: str = GAME) -> os.stat_result:
    """Wait until the archive of *game* is that of the library as it is."""
    inode = expected(mounted.library / game).inode(f"{game}.zip")
    archive = mounted.archive(game)
    poll(f"{game} as it is", lambda: archive.exists() and archive.stat().st_ino == inode)
    return archive.stat()


@pytest.fixture
def mounted(library: Path, mount: Mounts) -> Mounted:
    put(library, OLD, EARLY)
    put(library, OLD, EARLY, "roms/snes/Other")
    make_file(library / "roms/psx/single.iso", b"single")
    mounted = mount(library)
    mounted.wait_sealed(2)
    return mounted


# -- find ------------------------------------------------------------------------------------


def newer(mounted: Mounted, than: Path, *tests: str) -> list[str]:
    found = run("find", mounted.path, *tests, "-newer", than, "-printf", "%P\n")
    return sorted(found.splitlines())


def test_find_sees_that_archives_came_and_went(mounted: Mounted, place: Path) -> None:
    """And no other folder; the folder of the library has an old date all the time."""
    library = mounted.library
    then = place / "then"

    def sees(*folders: str) -> None:
        poll(
            f"{folders} to be newer",
            lambda: newer(mounted, then, "-type", "d") == [*folders],
        )

    def mark() -> None:
        # Behind the date of whatever has happened so far.
        then.touch()
        poll("a later date", lambda: not newer(mounted, then, "-type", "d") or then.touch())

    mark()
    put(library, OLD, EARLY, "roms/psx/Second")
    os.utime(library / "roms/psx", (0, 0))
    wait_is(mounted, "roms/psx/Second")
    sees("roms/psx")
    mark()
    put(library, NEW, EARLY)
    os.utime(library / "roms/psx", (0, 0))
    wait_is(mounted)
    sees("roms/psx")
    mark()
    shutil.rmtree(library / "roms/snes/Other")
    os.utime(library / "roms/snes", (0, 0))
    mounted.wait_gone("roms/snes/Other.zip")
    sees("roms/snes")


def test_find_sees_lists(library: Path, place: Path, mount: Mounts) -> None:
    lists = place / "lists"
    lists.mkdir()
    put(library, OLD, EARLY)
    mounted = mount(library, "--lists", lists)
    mounted.wait_sealed(1)
    before = (mounted.path / ".lists").stat()
    write_list(lists / "a.list", text_of(library, [("x", f"{GAME}/1")]))
    os.utime(lists, (0, 0))
    archive = mounted.wait_archive(".lists/a")
    poll("a later date", lambda: (mounted.path / ".lists").stat().st_mtime_ns > before.st_mtime_ns)
    assert archive.stat().st_ctime_ns > before.st_mtime_ns


def test_the_dates_last(mounted: Mounted, mount: Mounts) -> None:
    """Over a restart, with the index; and ctime is no date of the library's."""

    def dates(mounted: Mounted) -> list[tuple[int, int, int]]:
        paths = [mounted.path, *mounted.path.rglob("*")]
        status = [path.stat() for path in sorted(paths)]
        return [(s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for s in status]

    before = dates(mounted)
    assert mounted.archive(GAME).stat().st_ctime > (mounted.library / GAME / "1").stat().st_ctime
    assert mounted.unmount() == 0
    again = mount(mounted.library)
    again.wait_sealed(2)
    assert dates(again) == before
    assert all(inode < 1 << 63 for inode, _, _ in before)


# -- tar -------------------------------------------------------------------------------------


def test_incremental_backups(mounted: Mounted, place: Path, mount: Mounts) -> None:
    """``tar -g``: what changed, what didn't, and what changed back, whose date is an old one."""

    def backup(mounted: Mounted, *options: str) -> set[str]:
        archive = place / "backup.tar"
        run(
            *("tar", "--create", f"--listed-incremental={place / 'snapshot'}", *options),
            *(f"--file={archive}", f"--directory={mounted.path}", "."),
        )
        listed = run("tar", "--list", f"--file={archive}").splitlines()
        return {name for name in listed if not name.endswith("/")}

    archive = f"./{GAME}.zip"
    everything = {archive, "./roms/snes/Other.zip", "./roms/psx/single.iso"}
    assert backup(mounted) == everything
    assert backup(mounted) == set()
    put(mounted.library, NEW, LATE)
    late = wait_is(mounted)
    assert backup(mounted) == {archive}
    assert backup(mounted) == set()
    put(mounted.library, OLD, EARLY)
    early = wait_is(mounted)
    assert early.st_mtime < late.st_mtime
    assert backup(mounted) == {archive}
    assert backup(mounted) == set()
    # A mount that is made anew has another device number.
    assert mounted.unmount() == 0
    again = mount(mounted.library)
    again.wait_sealed(2)
    assert backup(again, "--no-check-device") == set()


# -- rsync -----------------------------------------------------------------------------------


def test_rsync(mounted: Mounted, place: Path) -> None:
    """With ``-u`` it leaves alone what is newer than the archive: one that went back is one."""
    copy = place / "copy"
    copied = copy / f"{GAME}.zip"
    put(mounted.library, NEW, LATE)
    wait_is(mounted)
    run("rsync", "-a", f"{mounted.path}/", copy)
    late = copied.read_bytes()
    put(mounted.library, OLD, EARLY)
    wait_is(mounted)
    run("rsync", "-au", f"{mounted.path}/", copy)
    assert copied.read_bytes() == late
    run("rsync", "-a", f"{mounted.path}/", copy)
    assert copied.read_bytes() == mounted.archive(GAME).read_bytes() != late
    put(mounted.library, NEW, LATE)
    wait_is(mounted)
    run("rsync", "-au", f"{mounted.path}/", copy)
    assert copied.read_bytes() == late
