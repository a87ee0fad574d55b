"""The disk of a library can be unmounted while zipfs runs, once nobody reads (R4)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.libraries import content, make_game
from tests.support.mounting import Mounts
from tests.support.users import needs_root
from tests.support.waiting import poll

pytestmark = needs_root

GAME = "roms/psx/Game"


@pytest.fixture
def disk(library: Path, fuse: None) -> Iterator[Path]:
    """The library as a file system of its own, mounted or not at the end."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", library], check=True)
    make_game(library, GAME, {"a.bin": content(3_000_000, 1), "b.bin": content(70_000, 2)})
    yield library
    if os.path.ismount(library):
        subprocess.run(["umount", library], check=True)


def test_nothing_of_ours_keeps_it_busy(
    disk: Path, mount: Mounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the files of the last reader, nor watches, nor hashing, nor the folder it began in."""
    monkeypatch.chdir(disk)  # the daemon's as well
    mounted = mount(disk)
    mounted.expect_log("the library is gone")
    archive = mounted.wait_archive(GAME)
    monkeypatch.undo()
    with archive.open("rb") as file:
        assert len(file.read()) > 3_000_000
        busy = subprocess.run(["umount", disk], check=False, capture_output=True)
        assert b"busy" in busy.stderr  # a reader's file is its own business
        os.listdir(mounted.path / "roms/psx")

    def unmounted() -> bool:
        return subprocess.run(["umount", disk], check=False, capture_output=True).returncode == 0

    poll("the library to be unmounted", unmounted)
    mounted.check_runs()
