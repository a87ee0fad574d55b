"""Nothing of the library is written (DESIGN H1): its access times neither, where that is allowed.

On file systems that keep them strictly, as hardly any does today (``relatime``, mount(8)), so that
each reading shows.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.libraries import content, make_file, make_game
from tests.support.mounting import Mounts, run_zipfs
from tests.support.users import NOBODY, OTHER, needs_root, run_as

pytestmark = needs_root

GAME = "roms/psx/Game"


@pytest.fixture
def library(library: Path, fuse: None) -> Iterator[Path]:
    """The library on a file system that notes each access."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "strictatime", "tmpfs", library], check=True)
    make_game(library, GAME, {"a.bin": content(3_000_000, 1), "sub/b.bin": content(70_000, 2)})
    make_file(library / "roms/gb/single.gb", b"single")
    make_file(library / "config.yml", b"filesystem: {}\n")
    make_file(library.parent / "lists/x.list", b"")
    yield library
    subprocess.run(["umount", library], check=True)


def access_times(library: Path) -> dict[str, int]:
    """Of all that is in *library*, which lstat(2) doesn't move."""
    found = {}
    folders = [str(library)]
    while folders:
        folder = folders.pop()
        found[folder] = os.lstat(folder).st_atime_ns
        # Looked for by a name at a time: to list a folder would move its own.
        for name in ("roms", "psx", "gb", "Game", "sub", "a.bin", "b.bin", "single.gb",
                     "config.yml"):  # fmt: skip
            path = os.path.join(folder, name)
            if os.path.isdir(path):
                folders.append(path)
            elif os.path.exists(path):
                found[path] = os.lstat(path).st_atime_ns
    assert len(found) == 10
    return found


def own(library: Path, user: int) -> None:
    for folder, _, files in os.walk(library):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.chown(path, user, user)


def test_as_root(library: Path, mount: Mounts) -> None:
    """Whoever owns them: root may leave all access times as they are (``CAP_FOWNER``)."""
    own(library, OTHER)
    before = access_times(library)
    mounted = mount(library, "--selection", "romm", "--romm-config", library / "config.yml")
    archive = mounted.wait_archive(GAME)
    assert len(archive.read_bytes()) > 3_000_000
    assert mounted.wait_for("roms/gb/single.gb").read_bytes() == b"single"
    subprocess.run(["ls", "-lR", mounted.path], check=True, stdout=subprocess.DEVNULL)
    for command in ("verify", "doctor"):
        done = run_zipfs(command, "--index", mounted.index, library)
        assert done.returncode == 0, done.stdout + done.stderr
    assert access_times(library) == before


def test_as_their_owner(
    library: Path, mount: Mounts, public_program: str, public_device: None
) -> None:
    own(library, NOBODY)
    before = access_times(library)
    mounted = mount(library, user=NOBODY, program=[public_program])
    mounted.wait_sealed(1)
    assert len(run_as(NOBODY, "cat", mounted.archive(GAME)).stdout) > 3_000_000
    assert access_times(library) == before


def test_as_anybody_else(
    library: Path, mount: Mounts, public_program: str, public_device: None
) -> None:
    """The kernel grants it to nobody else: all is served, and the access times move."""
    own(library, OTHER)
    before = access_times(library)
    mounted = mount(library, user=NOBODY, program=[public_program])
    mounted.wait_sealed(1)
    assert len(run_as(NOBODY, "cat", mounted.archive(GAME)).stdout) > 3_000_000
    after = access_times(library)
    file = str(library / GAME / "a.bin")
    assert after[file] > before[file]


def doctor(library: Path, user: int | None, program: str) -> dict[str, str]:
    done = run_zipfs("doctor", "--json", library, user=user, program=[program])
    findings = json.loads(done.stdout)["findings"]
    return next(finding for finding in findings if finding["name"] == "access times")


def test_doctor_tells_them_apart(library: Path, public_program: str, public_device: None) -> None:
    own(library, NOBODY)
    for user in (None, NOBODY):
        assert doctor(library, user, public_program)["level"] == "ok"
    others = doctor(library, OTHER, public_program)
    assert others["level"] == "note"
    assert "remount,relatime" in others["remedy"]
    subprocess.run(["mount", "-o", "remount,relatime", library], check=True)
    relatively = doctor(library, OTHER, public_program)
    assert relatively["level"] == "ok"
    assert "once a day" in relatively["what"]
