"""Another file system where the library was, and no number tells it from the old one (DESIGN F2).

What outlives a daemon, the journal of the mount and the index, has no device numbers in it, which
are given away again: a version is known by path and state. So the next daemon is given a file
system of the same device number, with files of the same names, inodes, sizes and dates, all but the
one that nobody can set, ctime. Whoever has the old version open gets an error, and never the new
one's bytes. (While a daemon has files open, the number isn't free: so that one is killed.)
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.test_restart import can_read, mounted_for, nobody, opened
from tests.support.libraries import content, expected_archive, make_game
from tests.support.mounting import Mounts
from tests.support.users import needs_root
from tests.support.waiting import poll

pytestmark = needs_root  # to mount

GAME = "roms/psx/Game"
SINGLE = "roms/psx/Single.bin"
MIB = 1 << 20
_DATE = 1_000_000_000


def _unmount(library: Path) -> None:
    """Once nobody has a file open there."""

    def unmounted() -> bool:
        done = subprocess.run(["umount", library], capture_output=True, check=False)
        return done.returncode == 0

    poll("the library to be unmounted", unmounted)


def _fill(library: Path, version: int) -> Path:
    """The same files, but for what is in them."""
    files = {"1.bin": content(3 * MIB, f"{version} 1"), "2.bin": content(MIB, f"{version} 2")}
    game = make_game(library, GAME, files)
    (library / SINGLE).write_bytes(content(2 * MIB, f"{version} single"))
    for path in (*game.iterdir(), library / SINGLE):
        os.utime(path, (_DATE, _DATE))
    return game


def _states(library: Path) -> list[tuple[int, ...]]:
    found = []
    for name in (f"{GAME}/1.bin", f"{GAME}/2.bin", SINGLE):
        status = (library / name).stat()
        found.append((status.st_dev, status.st_size, status.st_mtime_ns, status.st_ino))
    return found


class Disks:
    """File systems at *library*, one after the other."""

    def __init__(self, library: Path) -> None:
        self._library = library
        self.game = self._mount(1)

    def _mount(self, number: int) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self._library], check=True)
        return _fill(self._library, number)

    def exchange(self) -> None:
        """Another one of the same device number, unless somebody else has got that."""
        before = _states(self._library)
        for number in range(2, 12):
            _unmount(self._library)
            self.game = self._mount(number)
            after = _states(self._library)
            if after[0][0] == before[0][0]:
                break
        else:
            pytest.skip("the device number is somebody else's by now")
        assert after == before


@pytest.fixture
def disks(library: Path, fuse: None) -> Iterator[Disks]:
    yield Disks(library)
    subprocess.run(["umount", "-l", library], check=False)


def test_another_file_system_of_the_same_number(disks: Disks, library: Path, mount: Mounts) -> None:
    mounted = mounted_for(mount, library)
    mounted.expect_log("is gone|ended in an error|isn't there any more")
    single = mounted.path / SINGLE
    poll("the single file", lambda: can_read(single))
    poll("its checksums", lambda: mounted.status()["singles"]["waiting"] == 0)
    before = expected_archive(disks.game)
    with opened(mounted.archive(GAME)) as archive, opened(single) as file:
        assert os.pread(archive, 100, 0) == before[:100]
        assert os.pread(file, 100, 0) == content(2 * MIB, "1 single")[:100]
        with nobody(mounted):
            disks.exchange()
        mounted.wait_restarts(1)
        for descriptor, wanted in ((archive, before), (file, content(2 * MIB, "1 single"))):
            for at in (MIB + 12345, 0, len(wanted) - 5000):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                try:
                    got = os.pread(descriptor, 5000, at)
                except OSError as error:
                    assert error.errno in (errno.EIO, errno.ESTALE)  # noqa: PT017 - or the bytes
                else:  # headers are in no file
                    assert got == wanted[at : at + 5000]
            with pytest.raises(OSError, match=r".") as caught:
                os.pread(descriptor, 5000, MIB + 12345)
            assert caught.value.errno in (errno.EIO, errno.ESTALE)
    after = expected_archive(disks.game)
    assert after != before
    poll("the new archive", lambda: mounted.archive(GAME).read_bytes() == after)
    poll("the new file", lambda: can_read(single) and single.read_bytes()[:9] != before[:9])
    assert single.read_bytes() == (library / SINGLE).read_bytes()
