"""Files that are passed through alone have checksums where dates can't be relied on (DESIGN R2).

The library is on :mod:`tests.support.faultfs`, as in :mod:`tests.mount.test_proving`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.test_proving import read, rewrite
from tests.mount.test_status import status
from tests.support.faultfs import Faults
from tests.support.libraries import content, make_file, make_game
from tests.support.mounting import Mounted, Mounts
from tests.support.waiting import poll
from zipfs.library.filestate import BLOCK

SINGLE = "roms/psx/Single.chd"
ALONE = "roms/psx/Alone/game.chd"
"""In a game of one file, which is shown as a folder."""
DEEP = "bios/psx/bios.bin"
"""Where there are no games, so that no scan finds it."""
SIZE = 3 * BLOCK + 1000
ENDED = r"reading .* ended in an error: .* has other bytes"
Source = tuple[Path, Faults]


@pytest.fixture(autouse=True)
def _files(library: Path) -> None:
    for name in (SINGLE, ALONE, DEEP):
        make_file(library / name, content(SIZE, name))
    make_game(library, "roms/psx/A", {"1.bin": b"first", "2.bin": b"second"})


@pytest.fixture
def mount(faulty: Source, mount: Mounts) -> Iterator[Mounts]:
    """Mounts that end before the file system does that they show."""
    yield mount
    faulty[1].clear()


def wait_hashed(mounted: Mounted, count: int) -> None:
    poll(
        f"{count} single files to be hashed",
        lambda: status(mounted)["singles"] == {"waiting": 0, "hashed": count},
    )


@pytest.mark.parametrize("name", [SINGLE, ALONE, DEEP])
def test_an_open_file_that_is_rewritten(
    library: Path, faulty: Source, mount: Mounts, name: str
) -> None:
    """In place, with its date put back, and `stat` says nothing of it."""
    shown, faults = faulty
    mounted = mount(shown)
    mounted.expect_log(ENDED)
    file = mounted.path / name
    old, new = content(SIZE, name), content(SIZE, "new")
    file.stat()  # which is how one is found that no scan finds
    wait_hashed(mounted, 3 if name == DEEP else 2)
    before = file.stat()
    with file.open("rb", buffering=0) as stream:
        assert os.pread(stream.fileno(), 1000, 0) == old[:1000]
        faults.freeze(name)
        rewrite(library / name, new)
        for start in range(0, SIZE, 1 << 16):  # the kernel may have read ahead
            try:
                found = os.pread(stream.fileno(), 1 << 16, start)
            except OSError:
                break
            assert found == old[start : start + len(found)]
        else:
            pytest.fail("all of it was read")

    def is_new() -> bool:
        data = read(file)
        assert data in (None, new)  # what was read before is the kernel's, of another inode
        return data == new

    poll("the new bytes", is_new)
    after = file.stat()
    assert after.st_ino != before.st_ino
    assert int(after.st_mtime) != int(before.st_mtime)


def test_it_cant_be_opened_until_it_was_hashed_again(
    library: Path, faulty: Source, mount: Mounts
) -> None:
    shown, faults = faulty
    mounted = mount(shown, "--read-timeout", "0")
    mounted.expect_log(ENDED)
    wait_hashed(mounted, 2)
    file = mounted.path / SINGLE
    faults.freeze(SINGLE)
    rewrite(library / SINGLE, b"other bytes", 2 * BLOCK)
    wanted = (library / SINGLE).read_bytes()
    with file.open("rb", buffering=0) as stream:
        faults.hang(SINGLE, "open")  # by who hashes it; the reader has it open
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(stream.fileno(), 10, 2 * BLOCK)
        poll("it to be hashed", lambda: faults.waiting(SINGLE, "open"))
        with pytest.raises(OSError, match="Input/output error") as caught:
            file.open("rb")
        assert caught.value.errno == errno.EIO
    faults.release()
    poll("the new bytes", lambda: read(file) == wanted)


def test_dates_are_as_they_were_after_a_restart(
    library: Path, faulty: Source, mount: Mounts
) -> None:
    """The index knows that the date was another content's."""
    shown, faults = faulty
    mounted = mount(shown)
    mounted.expect_log(ENDED)
    wait_hashed(mounted, 2)
    file = mounted.path / SINGLE
    faults.freeze(SINGLE)
    old, new = content(SIZE, SINGLE), content(SIZE, "new")
    rewrite(library / SINGLE, new)
    poll("the new bytes", lambda: read(file) == new)
    before = file.stat()
    assert mounted.unmount() == 0
    mounted = mount(shown)
    mounted.expect_log(ENDED)
    file = mounted.path / SINGLE
    poll("the file", file.exists)
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert status(mounted)["singles"] == {"waiting": 0, "hashed": 0}
    rewrite(library / SINGLE, old)  # which nobody has read since, so it isn't in memory
    poll("the old bytes", lambda: read(file) == old)
    assert file.stat().st_mtime_ns == (library / SINGLE).stat().st_mtime_ns


def test_a_file_that_is_read_before_it_is_hashed(
    library: Path, faulty: Source, mount: Mounts
) -> None:
    """It is there at once, and nobody who has it open is disturbed when it is proven."""
    shown, faults = faulty
    faults.hang(ALONE, "open")
    mounted = mount(shown)
    file = mounted.path / SINGLE
    wanted = content(SIZE, SINGLE)
    with file.open("rb", buffering=0) as stream:
        assert os.pread(stream.fileno(), 1000, 0) == wanted[:1000]
        before = file.stat()
        faults.release()
        wait_hashed(mounted, 2)
        assert os.pread(stream.fileno(), 1000, 5000) == wanted[5000:6000]
        poll("another inode", lambda: file.stat().st_ino != before.st_ino)
        assert file.read_bytes() == wanted
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_what_is_rewritten_honestly(library: Path, faulty: Source, mount: Mounts) -> None:
    """A file whose date says so is another one at once, as it always was."""
    shown, _ = faulty
    mounted = mount(shown)
    wait_hashed(mounted, 2)
    file = mounted.path / SINGLE
    new = content(SIZE, "new")
    make_file(library / SINGLE, new)
    poll("the new bytes", lambda: read(file) == new)
    wait_hashed(mounted, 3)
    assert file.stat().st_mtime_ns == (library / SINGLE).stat().st_mtime_ns


@pytest.mark.parametrize(
    ("options", "hashed"),
    [(["--hash-singles", "never"], 0), (["--prove", "never"], 0), ([], 2)],
)
def test_which_are_hashed(faulty: Source, mount: Mounts, options: list[str], hashed: int) -> None:
    mounted = mount(faulty[0], *options)
    mounted.wait_sealed(1)
    wait_hashed(mounted, hashed)


@pytest.mark.parametrize(("option", "hashed"), [("auto", 0), ("always", 2)])
def test_on_a_local_disk(library: Path, mount: Mounts, option: str, hashed: int) -> None:
    mounted = mount(library, "--hash-singles", option)
    mounted.wait_sealed(1)
    wait_hashed(mounted, hashed)
    assert (mounted.path / SINGLE).read_bytes() == content(SIZE, SINGLE)
