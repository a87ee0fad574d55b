"""A mount as the lower layer of an overlayfs: what that remembers, and what helps."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.libraries import make_game
from tests.support.mounting import Mounted, Mounts, run_zipfs
from tests.support.users import needs_root
from tests.support.waiting import poll

pytestmark = needs_root


@contextmanager
def laid_over(lower: Path, place: Path) -> Iterator[Path]:
    """An overlayfs over *lower* and an empty folder."""
    merged, other = place / "merged", place / "other"
    merged.mkdir()
    other.mkdir()
    options = f"lowerdir={lower}:{other}"
    done = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, merged],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no overlayfs here: {done.stderr}")  # in a container on one
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)


@pytest.fixture
def mounted(library: Path, mount: Mounts) -> Mounted:
    make_game(library, "roms/psx/Old", {"a": b"a", "b": b"b"})
    mounted = mount(library, "--allow-other")
    mounted.wait_archive("roms/psx/Old")
    return mounted


def doctor(mounted: Mounted) -> list[dict[str, str]]:
    done = run_zipfs("doctor", "--json", "--index", mounted.index, mounted.library, mounted.path)
    findings: list[dict[str, str]] = json.loads(done.stdout)["findings"]
    return [finding for finding in findings if finding["name"] == "overlayfs"]


def error_of(path: Path) -> int | None:
    try:
        path.stat()
    except OSError as error:
        return error.errno
    return None


def test_what_an_overlay_remembers(mounted: Mounted, library: Path, place: Path) -> None:
    """Not ours to mend: the kernel asks its lower layer once. doctor names it, with a remedy."""
    assert doctor(mounted) == []
    with laid_over(mounted.path, place) as merged:
        old = merged / "roms/psx/Old.zip"
        before = mounted.archive("roms/psx/Old").stat().st_ino
        held = os.open(old, os.O_PATH)  # so that the kernel keeps what it knows of it
        try:
            (library / "roms/psx/Old/a").write_bytes(b"another")
            poll(
                "the new version",
                lambda: _inode(mounted.archive("roms/psx/Old")) not in (before, None),
            )
            assert error_of(old) == errno.ESTALE
        finally:
            os.close(held)
        # What isn't there the kernel may forget at any time, if others want the memory.
        new = next(filter(None, (_remembered(mounted, merged, n) for n in range(20))))
        (finding,) = doctor(mounted)
        assert finding["level"] == "warning"
        command = f"LIBMOUNT_FORCE_MOUNT2=always mount -o remount {merged}"
        assert command in finding["remedy"]
        subprocess.run(["sh", "-c", command], check=True)
        for archive in (old, new):
            assert archive.read_bytes() == (mounted.path / "roms/psx" / archive.name).read_bytes()


def _inode(path: Path) -> int | None:
    """None as long as there is nothing."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _remembered(mounted: Mounted, merged: Path, number: int) -> Path | None:
    """An archive that was asked for before it was there, if the overlay hasn't got it now."""
    name = f"New {number}"
    archive = merged / f"roms/psx/{name}.zip"
    assert error_of(archive) == errno.ENOENT
    make_game(mounted.library, f"roms/psx/{name}", {"a": b"a", "b": b"b"})
    mounted.wait_archive(f"roms/psx/{name}")
    return archive if error_of(archive) == errno.ENOENT else None


def test_a_bind_mount_remembers_nothing(mounted: Mounted, library: Path, place: Path) -> None:
    bound = place / "bound"
    bound.mkdir()
    subprocess.run(["mount", "--bind", mounted.path, bound], check=True)
    try:
        archive = bound / "roms/psx/New.zip"
        assert error_of(archive) == errno.ENOENT
        make_game(library, "roms/psx/New", {"a": b"a", "b": b"b"})
        inner = mounted.wait_archive("roms/psx/New")
        assert archive.read_bytes() == inner.read_bytes()
        assert doctor(mounted) == []
    finally:
        subprocess.run(["umount", bound], check=True)
