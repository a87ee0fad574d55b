"""Midnight Commander on a mount: in a tmux that says what is on its screen, in an xterm."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.desktop import shelf
from tests.desktop.session import ZONE, Desktop
from tests.support.libraries import sha256, tree
from tests.support.waiting import poll

ARCHIVE = f"{shelf.GAME}.zip"
_BETWEEN = "\N{BOX DRAWINGS LIGHT VERTICAL}"
_BELOW = "\N{BOX DRAWINGS LIGHT VERTICAL AND RIGHT}"
_GIB = 1 << 30


class Commander:
    """mc with two panels: the left one, where the cursor is, and the right one."""

    def __init__(self, desktop: Desktop, left: Path, right: Path) -> None:
        self._desktop = desktop
        self._socket = desktop.home / "tmux"
        command = ["mc", "--nosubshell", str(left), str(right)]
        tmux = ["tmux", "-S", str(self._socket), "-f", "/dev/null", "new-session"]
        desktop.start("xterm", "-e", *tmux, *command)
        poll("mc", self._there)

    def _there(self) -> bool:
        try:
            return "10Quit" in self.screen()
        except AssertionError:  # not even tmux is there
            return False

    def screen(self) -> str:
        return self._desktop.run("tmux", "-S", self._socket, "capture-pane", "-p")

    def keys(self, *keys: str) -> None:
        self._desktop.run("tmux", "-S", self._socket, "send-keys", *keys)

    def wait(self, text: str) -> str:
        """Wait until *text* is on the screen; all of it."""
        poll(f"{text!r} in mc", lambda: text in self.screen())
        return self.screen()

    def rows(self) -> dict[str, tuple[str, str]]:
        """Size and date of what is in the left panel."""
        found = {}
        for line in self.screen().splitlines():
            cells = [cell.strip() for cell in line.split(_BETWEEN)]
            if len(cells) > 6 and cells[2] != "Size" and cells[1]:
                found[cells[1]] = cells[2], cells[3]
        return found

    def _current(self) -> str:
        """The name under the cursor: it stands below the list."""
        lines = self.screen().splitlines()
        below = next(number for number, line in enumerate(lines) if line.startswith(_BELOW))
        return lines[below + 1].split(_BETWEEN)[1].strip()

    def go_to(self, name: str) -> None:
        """Put the cursor of the left panel on a file."""
        self.keys("Home")
        poll("the top of the list", lambda: self._current() == "UP--DIR")
        for _ in self.rows():
            before = self._current()
            if before == name:
                return
            self.keys("Down")
            poll("the next line", lambda b=before: self._current() != b)  # type: ignore[misc]
        assert self._current() == name, self.screen()


@pytest.fixture
def target(desktop: Desktop) -> Path:
    folder = desktop.home / "copied"
    folder.mkdir()
    desktop.give(folder)
    return folder


@pytest.fixture
def commander(folder: Path, target: Path, desktop: Desktop) -> Commander:
    return Commander(desktop, folder, target)


def test_listing(commander: Commander, folder: Path, library: Path, desktop: Desktop) -> None:
    rows = commander.rows()
    assert sorted(rows) == sorted(["/..", f"/{shelf.SINGLE}", *shelf.SHOWN[1:]])
    for name in shelf.SHOWN[1:]:
        status = os.stat(folder / name)
        date = datetime.fromtimestamp(status.st_mtime, timezone(timedelta(hours=ZONE)))
        recent = abs(date.timestamp() - datetime.now(UTC).timestamp()) < 86_400
        # It says the year of what is old, and the time of what isn't.
        said = f"{date:%b %e %H:%M}" if recent else f"{date:%b %e  %Y}"
        assert rows[name] == (f"{status.st_size}", said)

    match = re.search(r"(\d+)G / (\d+)G \((\d+)%\)", commander.screen())
    assert match
    disk = os.statvfs(library)
    for text, blocks in zip(match.groups(), (disk.f_bavail, disk.f_blocks), strict=False):
        assert int(text) == pytest.approx(blocks * disk.f_frsize / _GIB, abs=1.5)
    desktop.picture("list")


def test_copy_out(commander: Commander, folder: Path, target: Path) -> None:
    commander.go_to(ARCHIVE)
    commander.keys("F5")
    commander.wait("[< OK >]")
    commander.keys("Enter")
    size = (folder / ARCHIVE).stat().st_size
    copy = target / ARCHIVE
    poll("the copy", lambda: copy.exists() and copy.stat().st_size == size)
    poll("the end of copying", lambda: "Copy" not in commander.screen().replace("5Copy", ""))
    assert sha256(copy) == sha256(folder / ARCHIVE)
    assert int(copy.stat().st_mtime) == int((folder / ARCHIVE).stat().st_mtime)


def test_open_archive(commander: Commander, target: Path, desktop: Desktop) -> None:
    """Enter shows what is in an archive, and it is copied out of there."""
    commander.go_to(ARCHIVE)
    commander.keys("Enter")
    commander.wait("uzip://")
    rows = commander.rows()
    for name, data in shelf.DISCS.items():
        assert rows[name][0] == f"{len(data)}"
    desktop.picture("members")
    commander.go_to("Disc 2.chd")
    commander.keys("F5")
    commander.wait("[< OK >]")
    commander.keys("Enter")
    copy = target / "Disc 2.chd"
    wanted = shelf.DISCS[copy.name]
    poll("the copy", lambda: copy.exists() and copy.stat().st_size == len(wanted))
    assert copy.read_bytes() == wanted


def test_changes_are_refused(commander: Commander, library: Path, desktop: Desktop) -> None:
    before = tree(library)
    commander.go_to(ARCHIVE)
    commander.keys("F8")
    commander.wait("Delete file")
    commander.keys("Enter")
    commander.wait("Read-only file system")
    desktop.picture("delete")
    commander.keys("a")  # abort
    poll("the list", lambda: "Read-only file system" not in commander.screen())
    commander.keys("F7")
    commander.wait("Enter directory name")
    commander.keys("neu", "Enter")
    commander.wait("Read-only file system")
    commander.keys("Enter")
    poll("the list", lambda: "Read-only file system" not in commander.screen())
    assert ARCHIVE in commander.rows()
    assert tree(library) == before
