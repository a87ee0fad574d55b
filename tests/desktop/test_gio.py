"""What the library that most desktops are made with (GLib's GIO, with gvfs) knows of a mount.

Nautilus, Nemo, Caja and the file choosers of all programs ask it, too.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.desktop import shelf
from tests.desktop.session import Desktop
from tests.support.libraries import tree
from tests.support.waiting import poll

ARCHIVE = f"{shelf.GAME}.zip"


def told(said: str) -> dict[str, str]:
    """What ``gio info`` says, attribute by attribute."""
    pairs = (line.strip().partition(": ") for line in said.splitlines() if "::" in line)
    return {name: value.strip() for name, _, value in pairs}


def test_file(folder: Path, desktop: Desktop) -> None:
    status = os.stat(folder / ARCHIVE)
    found = told(desktop.run("gio", "info", folder / ARCHIVE))
    wanted = {
        "standard::type": "1",  # G_FILE_TYPE_REGULAR
        "standard::display-name": ARCHIVE,
        "standard::content-type": "application/zip",
        "standard::size": f"{status.st_size}",
        "time::modified": f"{int(status.st_mtime)}",
        "access::can-read": "TRUE",
        "access::can-write": "FALSE",
        "access::can-execute": "FALSE",
        "access::can-rename": "FALSE",
        "access::can-delete": "FALSE",
        "access::can-trash": "FALSE",
    }
    assert {name: found.get(name) for name in wanted} == wanted
    assert found["standard::icon"].split(", ")[:2] == ["application-zip", "package-x-generic"]


def test_file_system(folder: Path, library: Path, desktop: Desktop) -> None:
    found = told(desktop.run("gio", "info", "--filesystem", folder))
    disk = os.statvfs(library)
    assert found["filesystem::readonly"] == "TRUE"
    assert int(found["filesystem::size"]) == disk.f_blocks * disk.f_frsize
    free = disk.f_bavail * disk.f_frsize
    assert int(found["filesystem::free"]) == pytest.approx(free, abs=1 << 30)  # others write, too
    assert found["filesystem::remote"] == "FALSE"


def test_trash(folder: Path, library: Path, desktop: Desktop) -> None:
    """Nothing is trashed, not even by a copy; and that there is a mount is no trouble for it."""
    before = tree(library)
    said = desktop.refused("gio", "trash", folder / ARCHIVE)
    assert "Unable to find or create trash directory" in said
    assert tree(library) == before
    mine = desktop.home / "mine"
    mine.write_bytes(b"mine")
    desktop.give(mine)
    desktop.run("gio", "trash", mine)
    poll("my own in the trash", lambda: desktop.run("gio", "list", "trash:///") == "mine\n")


def test_removing_is_refused(folder: Path, library: Path, desktop: Desktop) -> None:
    before = tree(library)
    assert "Read-only file system" in desktop.refused("gio", "remove", folder / ARCHIVE)
    assert "Read-only file system" in desktop.refused("gio", "mkdir", folder / "new")
    assert "Read-only file system" in desktop.refused(
        "gio", "rename", folder / ARCHIVE, "other.zip"
    )
    assert tree(library) == before


def test_mount_is_a_volume(folder: Path, desktop: Desktop) -> None:
    """In the home folder, it stands in the side pane, as a stick does."""
    assert "Mount(0): ROMs-as-zip -> file://" in desktop.run("gio", "mount", "--list")
    assert shutil.disk_usage(folder).total > 0
