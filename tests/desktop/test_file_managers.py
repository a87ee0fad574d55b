"""Thunar and PCManFM on a mount, used by mouse and keyboard."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.desktop import shelf
from tests.desktop.managers import MANAGERS, Manager, answer
from tests.desktop.session import Desktop
from tests.support.libraries import content, expected, make_file, make_game, sha256, tree
from tests.support.mounting import Mounted, temporary_folder
from tests.support.waiting import poll

EACH = pytest.mark.parametrize("manager", MANAGERS, ids=lambda manager: manager.program)
ARCHIVE = f"{shelf.GAME}.zip"
_GIB = 1 << 30


@pytest.fixture(scope="module")
def big() -> Iterator[Path]:
    """A library with thousands of games; in memory, as disks take long to make and remove it."""
    with temporary_folder(in_memory=True) as library:
        shelf.make_many(library)
        yield library


@EACH
def test_listing(manager: Manager, folder: Path, library: Path, desktop: Desktop) -> None:
    """Type, size, date and icon are right, and no dialog comes by itself."""
    title = manager.open(desktop, folder)
    rows = desktop.wait_rows(title, shelf.SHOWN)
    assert list(rows) == list(shelf.SHOWN)
    for name in (ARCHIVE, f"{shelf.SMALL}.zip"):
        assert manager.columns(rows[name]) == manager.expected(folder / name)
    assert manager.columns(rows[shelf.SINGLE]).kind in ("folder", "Folder")

    # The picture's thumbnail: then they have looked at all that they wanted to look at.
    icon = rows[shelf.PICTURE].icon
    poll("a thumbnail", lambda: shelf.COLOUR in desktop.pixels(icon))

    def icon_of(name: str) -> bytes:
        return desktop.pixels(rows[name].icon)

    # A line's background changes from one to the next, so these are two further down.
    archive = f"{shelf.SMALL}.zip"
    poll("the same icon", lambda: icon_of(archive) == icon_of(shelf.STORED))
    assert icon_of(archive) != icon_of(shelf.DISC)

    desktop.click(rows[ARCHIVE].name)
    desktop.wait_text(f'"{ARCHIVE}"')
    assert desktop.windows() == [title]
    desktop.picture("list")


@EACH
def test_free_space(manager: Manager, folder: Path, library: Path, desktop: Desktop) -> None:
    """It is that of the library's disk, as no archive takes any; 0 would look like a full one."""
    if manager.program == "pcmanfm" and "libgtk-3" in _libraries("pcmanfm"):
        pytest.skip("a status bar of GTK 3 doesn't tell screen readers what is at its end")
    before = os.statvfs(library)
    manager.open(desktop, folder)
    said = desktop.wait_text("Free space: ")
    after = os.statvfs(library)
    free = _gib(said, "Free space: ")
    bounds = sorted(each.f_bavail * each.f_frsize / _GIB for each in (before, after))
    assert bounds[0] - 0.1 <= free <= bounds[1] + 0.1
    if "Total" in said:
        total = after.f_blocks * after.f_frsize / _GIB
        assert _gib(said, "Total: ") == pytest.approx(total, abs=0.1)


def _libraries(program: str) -> str:
    path = shutil.which(program)
    assert path
    return subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout


def _gib(text: str, before: str) -> float:
    """The size behind a word."""
    match = re.search(re.escape(before) + r"([\d.]+) ([KMGT]iB)", text)
    assert match, text
    return float(match[1]) * 1024.0 ** ("KMGT".index(match[2][0]) - 2)


@EACH
def test_open_archive(manager: Manager, folder: Path, desktop: Desktop) -> None:
    """A double click shows the members in the archive manager, which unpacks them."""
    title = manager.open(desktop, folder)
    rows = desktop.wait_rows(title, shelf.SHOWN)
    desktop.click(rows[ARCHIVE].name, times=2)
    poll("an archive manager", lambda: len(desktop.windows()) == 2)
    poll("its title", lambda: any(ARCHIVE in window for window in desktop.windows()))
    opened = next(window for window in desktop.windows() if ARCHIVE in window)
    playlist = "".join(f"{name}\n" for name in shelf.DISCS).encode()
    members = {**shelf.DISCS, f"{shelf.GAME}.m3u": playlist}
    rows = desktop.wait_rows(opened, members)
    assert {name: row.texts[1] for name, row in rows.items()} == {
        name: f"{len(data)}" for name, data in members.items()
    }
    desktop.picture("members")

    unpacked = desktop.home / "unpacked"
    desktop.keys("ctrl+e")
    desktop.wait_text("Extract to:")
    desktop.keys("ctrl+a")
    desktop.type(str(unpacked))
    desktop.keys("Return")
    whole = {name: len(data) for name, data in members.items()}
    poll("all members", lambda: _sizes(unpacked) == whole)
    desktop.wait_windows(title, opened)
    for path in unpacked.rglob("*.*"):
        assert path.read_bytes() == members[path.name]


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.rglob("*.*") if path.is_file()}


@EACH
def test_copy_out(manager: Manager, folder: Path, platform: Path, desktop: Desktop) -> None:
    """Copied and pasted, an archive is the same file, with the same date."""
    target = desktop.home / "copied"
    target.mkdir()
    desktop.give(target)
    title = manager.open(desktop, folder)
    rows = desktop.wait_rows(title, shelf.SHOWN)
    desktop.click(rows[ARCHIVE].name)
    desktop.wait_text(f'"{ARCHIVE}"')
    desktop.keys("ctrl+c")
    title = manager.go(desktop, target)
    desktop.keys("ctrl+v")
    desktop.wait_rows(title, [ARCHIVE])
    desktop.wait_windows(title)  # no progress any more
    wanted = expected(platform / shelf.GAME, playlist=(f"{shelf.GAME}.m3u", _playlist()))
    assert sha256(target / ARCHIVE) == wanted.sha256()
    copy, source = (target / ARCHIVE).stat(), (folder / ARCHIVE).stat()
    assert int(copy.st_mtime) == int(source.st_mtime)
    desktop.keys("F5")
    rows = desktop.wait_rows(title, [ARCHIVE])
    assert manager.columns(rows[ARCHIVE]) == manager.expected(folder / ARCHIVE)
    desktop.picture("copied")


def _playlist() -> bytes:
    return "".join(f"{name}\n" for name in shelf.DISCS).encode()


@EACH
def test_changes_are_refused(
    manager: Manager, folder: Path, library: Path, desktop: Desktop
) -> None:
    """Who deletes, renames or makes something is told that the file system is read-only."""
    before = tree(library)
    title = manager.open(desktop, folder)
    rows = desktop.wait_rows(title, shelf.SHOWN)
    desktop.click(rows[ARCHIVE].name)
    desktop.wait_text(f'"{ARCHIVE}"')

    desktop.keys("Delete")
    if manager.program == "pcmanfm":
        answer(desktop, "to trash can?", "Return")
        answer(desktop, "don't support this operation", "Return")
    else:
        answer(desktop, "permanently delete", "Return")
    desktop.wait_text("Read-only file system")
    desktop.picture("delete")
    answer(desktop, "Read-only file system", "Escape")
    desktop.wait_windows(title)

    desktop.keys("F2")
    desktop.wait_text("new name:")
    desktop.type("Other")
    desktop.keys("Return")
    answer(desktop, "Read-only file system", "Escape")
    desktop.wait_windows(title)

    desktop.keys("ctrl+shift+n")
    desktop.wait_text("Enter ")
    desktop.type("Folder")
    desktop.keys("Return")
    answer(desktop, "Read-only file system", "Escape")
    desktop.wait_windows(title)

    desktop.wait_rows(title, shelf.SHOWN)
    assert tree(library) == before


@EACH
def test_change_is_seen_after_reload(
    manager: Manager, folder: Path, platform: Path, mounted: Mounted, desktop: Desktop
) -> None:
    """A mount can't tell a window that something has changed; F5 does."""
    title = manager.open(desktop, folder)
    desktop.wait_rows(title, shelf.SHOWN)
    archive = folder / f"{shelf.SMALL}.zip"
    shutil.rmtree(platform / shelf.GAME)
    make_file(platform / shelf.SMALL / "ape.bin", content(900_000))
    make_game(platform, "Zelda", {"a": b"1", "b": b"2"})
    mounted.wait_archive("roms/psx/Zelda")
    mounted.wait_gone(f"roms/psx/{ARCHIVE}")
    poll("the new version", lambda: archive.exists() and archive.stat().st_size > 900_000)
    desktop.keys("F5")
    shown = [name for name in shelf.SHOWN if name != ARCHIVE]
    rows = desktop.wait_rows(title, [*shown, "Zelda.zip"])
    assert manager.columns(rows[archive.name]) == manager.expected(archive)
    assert desktop.windows() == [title]


@EACH
def test_odd_names(
    manager: Manager, library: Path, show: Callable[[Path], Mounted], desktop: Desktop
) -> None:
    """They are shown, and copied under their own names."""
    shelf.make_odd(library)
    folder = show(library).path / "roms/odd"
    title = manager.open(desktop, folder)
    poll("all rows", lambda: len(desktop.rows(title)) == len(shelf.ODD) + 1)
    rows = desktop.rows(title)
    for name in shelf.ODD:
        shown = manager.expected(folder / f"{name}.zip")
        assert manager.columns(rows[f"{name}.zip"]) == shown
    (strange,) = (name for name in rows if name.startswith("bad"))
    assert "\N{REPLACEMENT CHARACTER}" in strange
    assert manager.columns(rows[strange]).kind == "Zip archive"
    assert desktop.windows() == [title]
    desktop.picture("names")

    target = desktop.home / "copied"
    target.mkdir()
    desktop.give(target)
    desktop.keys("ctrl+a", "ctrl+c")
    title = manager.go(desktop, target)
    desktop.keys("ctrl+v")
    poll("all copies", lambda: len(desktop.rows(title)) == len(rows))
    desktop.wait_windows(title)
    for name in os.listdir(os.fsencode(folder)):
        copy = os.path.join(os.fsencode(target), name)
        assert sha256(copy) == sha256(os.path.join(os.fsencode(folder), name))


@EACH
def test_big_folder(
    manager: Manager, big: Path, show: Callable[[Path], Mounted], desktop: Desktop
) -> None:
    """Thousands of archives are listed and sorted in seconds."""
    title = manager.open(desktop, show(big).path / "roms/many")

    def all_selected() -> bool:
        desktop.keys("ctrl+a")
        said = desktop.tree().texts()
        return any(re.search(rf"\b{shelf.MANY} (files|items)", text) for text in said)

    poll("all archives", all_selected)
    window = desktop.window(title)
    assert window is not None
    headers = {header.name: header for header in window.all("table column header")}
    left, top, _, height = headers["Name"].box

    def begins_with(name: str) -> bool:
        # Of a long list the interface tells stale things, but the status bar says what was
        # clicked on. Up to the top, elsewhere, as two clicks would open it, and on the first line.
        desktop.click_at(left + 60, top + 5 * height, times=100, button=4)
        desktop.click_at(left + 60, top + 5 * height)
        desktop.click_at(left + 60, top + 3 * height // 2)
        return any(f'"{name}"' in said for said in desktop.tree().texts())

    poll("the first one", lambda: begins_with("Game 0000.zip"))
    (by_date,) = (header for name, header in headers.items() if "Modified" in name)
    desktop.click(by_date)
    poll("the oldest first", lambda: begins_with(f"Game {shelf.MANY - 1}.zip"))
    assert desktop.windows() == [title]
    desktop.picture("many")
