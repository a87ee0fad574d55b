"""A disk of our own, in a file: what is written into that file beneath the mounted file system is
written by nobody, as far as the file system knows. No time moves, as with a disk that rots."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

_PATH: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


class Disk:
    """An ext4 file system on *folder*, in the file *image*."""

    def __init__(self, image: Path, folder: Path) -> None:
        self._image = image
        self.folder = folder

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self._image, self.folder], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", self.folder], check=True)

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
        made.unmount()
