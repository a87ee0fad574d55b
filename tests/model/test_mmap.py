"""Memory maps of archives: a mapping is of one version, too (DESIGN R1, V4)."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.model.mapped import Mapped
from tests.model.shelf import writes_back
from tests.support.libraries import MTIME, content, expected_archive, make_file, make_game
from tests.support.mounting import Mounted, Mounts
from tests.support.waiting import poll

GAME = "roms/psx/Game"
SIZE = 3 << 20
FILES = {"a.bin": content(SIZE, "a"), "b.bin": content(SIZE, "b"), "c.txt": b"c"}
NEW = content(SIZE, "new")
STEP = 1 << 18


@pytest.fixture
def mounted(library: Path, mount: Mounts) -> Mounted:
    make_game(library, GAME, FILES)
    mounted = mount(library)
    mounted.expect_log("reading .* ended in an error: a file of it has changed")
    mounted.wait_archive(GAME)
    return mounted


def replace(path: Path) -> None:
    make_file(path.parent.parent / "new", NEW, mtime=MTIME)
    (path.parent.parent / "new").rename(path)


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(NEW)


def rewrite_with_old_mtime(path: Path) -> None:
    rewrite(path)
    os.utime(path, (MTIME, MTIME))


def rewrite_mapped(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:] = NEW
    os.utime(path, (MTIME, MTIME))


def truncate(path: Path) -> None:
    os.truncate(path, 1000)


CHANGES: dict[str, tuple[Callable[[Path], None], bool]] = {
    "replace by rename": (replace, True),
    "delete": (Path.unlink, True),
    "chmod": (lambda path: path.chmod(0o600), True),
    "rewrite": (rewrite, False),
    "rewrite with old mtime": (rewrite_with_old_mtime, False),
    "rewrite by mmap with old mtime": (rewrite_mapped, False),
    "truncate": (truncate, False),
}
"""What is done to a member, and whether an old mapping survives all of it."""


@pytest.mark.parametrize("change", CHANGES)
def test_old_mapping(mounted: Mounted, change: str) -> None:
    """It gives the old bytes, or SIGBUS if a file was changed in place; a new one, the new."""
    archive = mounted.archive(GAME)
    folder = mounted.library / GAME
    old = expected_archive(folder)
    function, survives = CHANGES[change]
    with closing(Mapped(archive)) as mapped:
        inode = mapped.inode
        assert mapped.read(0, STEP) == old[:STEP]
        function(folder / "b.bin")
        found = list(_steps(mapped, old))
        assert found[0] == old[:STEP]  # the kernel has them
        assert all(part in (None, old[n * STEP :][:STEP]) for n, part in enumerate(found))
        assert survives == (None not in found)

        new = expected_archive(folder)
        with closing(_mapped_again(archive, inode, unchanged=old == new)) as again:
            assert b"".join(filter(None, _steps(again, new))) == new
        if survives:
            assert b"".join(filter(None, _steps(mapped, old))) == old


def _mapped_again(archive: Path, inode: int, *, unchanged: bool) -> Mapped:
    """The archive once it has that inode, or another one; it may be gone for a while before."""
    found: list[Mapped] = []

    def is_there() -> bool:
        try:
            mapped = Mapped(archive)
        except FileNotFoundError:
            return False
        if (mapped.inode == inode) == unchanged:
            found.append(mapped)
            return True
        mapped.close()
        return False

    poll("the new version", is_there)
    return found[0]


def _steps(mapped: Mapped, wanted: bytes) -> Iterator[bytes | None]:
    """All of it in steps; it ends where SIGBUS does."""
    for offset in range(0, len(wanted), STEP):
        part = mapped.read(offset, STEP)
        yield part
        if part is None:
            return


def _is(path: Path, inode: int) -> bool:
    return path.stat().st_ino == inode


def test_member_that_is_kept_mapped_by_its_writer(library: Path, mount: Mounts) -> None:
    """A store into a page that is dirty already moves no time, whenever it happens.

    Torrent programs write like this. Before a file is hashed its dirty pages are written back,
    so that the next store has to ask the kernel, which then moves mtime and ctime.
    """
    if not writes_back(library):
        pytest.skip("here a page is never written back, so nothing tells of the second store")
    folder = make_game(library, GAME, {"a.bin": content(50_000, "a"), "b.bin": b"b"})
    with (folder / "a.bin").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:4] = b"\0\1\2\3"
        mounted = mount(library)
        mounted.expect_log("reading .* ended in an error: a file of it has changed")
        archive = mounted.wait_archive(GAME)
        old = expected_archive(folder)
        with archive.open("rb", buffering=0) as handle:
            assert os.pread(handle.fileno(), len(old), 0) == old
            for number in range(2):
                before = archive.stat().st_ino
                mapped[:4] = bytes([number] * 4)
                time.sleep(0.01)
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                with pytest.raises(OSError, match="Input/output error"):
                    os.pread(handle.fileno(), len(old), 0)
                poll("a new version", lambda b=before: archive.exists() and not _is(archive, b))  # type: ignore[misc]
                assert archive.read_bytes() == expected_archive(folder)
