"""``--uid``, ``--gid`` and ``--umask``: what is said, and what the kernel makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.libraries import make_game
from tests.support.mounting import Mounts
from tests.support.users import NOBODY, OTHER, needs_root, run_as

GAME = "roms/psx/Game"


@pytest.fixture
def game(library: Path) -> Path:
    made = make_game(library, GAME, {"a": b"one", "b": b"two"})
    (made / "a").chmod(0o600)
    return made


def seen(path: Path) -> tuple[int, int, str]:
    status = path.stat()
    return status.st_uid, status.st_gid, f"{status.st_mode & 0o7777:o}"


@needs_root
def test_what_is_said(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library, f"--uid={NOBODY}", "--gid=daemon", "--umask=027", "--allow-other")
    archive = mounted.wait_archive(GAME)
    assert seen(archive) == (NOBODY, OTHER, "640")
    assert seen(mounted.path / "roms") == (NOBODY, OTHER, "750")
    assert seen(mounted.path) == (NOBODY, OTHER, "750")


@needs_root
def test_who_may_read_is_what_is_said(
    game: Path, library: Path, mount: Mounts, public_device: None
) -> None:
    """Also whom the sources wouldn't let: it is the operator's wish."""
    mounted = mount(library, f"--uid={NOBODY}", "--umask=077", "--allow-other")
    archive = mounted.wait_archive(GAME)
    assert run_as(NOBODY, "cat", archive).stdout == archive.read_bytes()
    assert run_as(OTHER, "cat", archive).returncode == 1
    assert run_as(OTHER, "ls", mounted.path).returncode != 0


def test_without_them_it_is_as_at_the_source(game: Path, library: Path, mount: Mounts) -> None:
    mounted = mount(library)
    archive = mounted.wait_archive(GAME)
    assert seen(archive) == (os.getuid(), game.stat().st_gid, "400")
