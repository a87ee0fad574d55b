"""Disks of our own, in files, to be mounted and unmounted.

What is written into such a file beneath the mounted file system is written by nobody, as far as
the file system knows. No time moves, as with a disk that rots.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from bench.mount import is_mounted
from tests.support.waiting import poll

_PATH: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


class Disk:
    """An ext4 file system on *folder*, in the file *image*."""

    def __init__(self, image: Path, folder: Path) -> None:
        self._image = image
        self.folder = folder

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self._image, self.folder], check=True)

    def unmount(self, *, lazily: bool = False) -> None:
        """Raises :exc:`subprocess.CalledProcessError` if it is in use, and not *lazily*."""
        subprocess.run(
            ["umount", *(["-l"] if lazily else []), self.folder], check=True, capture_output=True
        )

    def flip(self, pattern: bytes, at: int = 0) -> None:
        """Flip a bit of the byte *at* of the only *pattern* that is on the disk."""
        os.sync()
        data = self._image.read_bytes()
        found = data.find(pattern)
        assert found >= 0, "it isn't on the disk"
        assert data.find(pattern, found + 1) < 0, "it is there twice"
        with open(self._image, "r+b") as file:
            file.seek(found + at)
            file.write(bytes([data[found + at] ^ 0x10]))


@contextmanager
def disk(place: Path, megabytes: int = 64) -> Iterator[Disk]:
    """A new one, mounted; *place* is for its file and its folder. Skips where there is none."""
    image, folder = place / "disk.img", place / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    mkfs = shutil.which("mkfs.ext4", path=_PATH)
    missing = "no mkfs.ext4" if mkfs is None else ""
    if mkfs:
        subprocess.run([mkfs, "-q", "-F", image], check=True)
        made = Disk(image, folder)
        try:
            made.mount()
        except subprocess.CalledProcessError:
            missing = "no loop device can be mounted"
    if missing:
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)  # a laptop, or not root
    made = Disk(image, folder)
    try:
        yield made
    finally:
        if is_mounted(made.folder):
            made.unmount(lazily=True)


class Bound(Disk):
    """The folder *image*, as a disk: a bind mount of it on *folder*."""

    def mount(self) -> None:
        subprocess.run(["mount", "--bind", self._image, self.folder], check=True)


@contextmanager
def bound(place: Path) -> Iterator[Bound]:
    """A new one, mounted. Skips who isn't root."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    image, folder = place / "behind", place / "disk"
    image.mkdir()
    folder.mkdir()
    made = Bound(image, folder)
    made.mount()
    try:
        yield made
    finally:
        if is_mounted(made.folder):
            made.unmount(lazily=True)


@contextmanager
def case_blind(place: Path, megabytes: int = 40) -> Iterator[Path]:
    """The folder of a new exFAT disk, which finds names by any case. Skips where there is none."""
    image, folder = place / "exfat.img", place / "exfat"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    needed = ("mkfs.exfat", "mount.exfat-fuse", "losetup")
    mkfs, mount, losetup = (shutil.which(name, path=_PATH) or "" for name in needed)
    missing = "" if mkfs and mount and losetup else "no mkfs.exfat or no mount.exfat-fuse"
    device = ""
    if not missing:
        subprocess.run([mkfs, image], check=True, capture_output=True)
        done = subprocess.run(
            [losetup, "--find", "--show", image], capture_output=True, text=True, check=False
        )
        device = done.stdout.strip()
        missing = "" if device else "no loop device"
    if missing:
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    try:
        subprocess.run([mount, device, folder], check=True, capture_output=True)
    finally:
        subprocess.run([losetup, "-d", device], check=True)  # once it is unmounted
    try:
        yield folder
    finally:
        poll("the disk to be free", lambda: not subprocess.call(["umount", folder]))
