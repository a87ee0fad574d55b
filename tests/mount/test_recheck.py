"""What no date tells of, and nobody reads, is found by slow re-reading (DESIGN R2).

The library is on :mod:`tests.support.faultfs`, whose `stat` says what it once said.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.test_proving import read, rewrite
from tests.mount.test_status import status
from tests.support.faultfs import Faults
from tests.support.libraries import content, expected, make_file, make_game
from tests.support.mounting import Mounts
from tests.support.waiting import poll
from zipfs.library.filestate import BLOCK

GAME = "roms/psx/A"
SINGLE = "roms/psx/Single.chd"
SIZE = 2 * BLOCK + 1000
FAST = ("--recheck-rate", "1000")
Source = tuple[Path, Faults]


@pytest.fixture(autouse=True)
def _files(library: Path) -> None:
    make_game(library, GAME, {"1.bin": content(SIZE, 1), "2.bin": b"second"})
    make_file(library / SINGLE, content(SIZE, "single"))


@pytest.fixture
def mount(faulty: Source, mount: Mounts) -> Iterator[Mounts]:
    """Mounts that end before the file system does that they show."""
    yield mount
    faulty[1].clear()


def test_a_change_that_nobody_reads(library: Path, faulty: Source, mount: Mounts) -> None:
    shown, faults = faulty
    mounted = mount(shown, *FAST)
    mounted.expect_log(
        "is withdrawn, and hashed again: .* has other bytes of the same size and date"
    )
    archive = mounted.wait_archive(GAME)
    single = mounted.path / SINGLE
    poll("it to be hashed", lambda: status(mounted)["singles"] == {"waiting": 0, "hashed": 1})
    before = {path: int(path.stat().st_mtime) for path in (archive, single)}
    for name in (f"{GAME}/1.bin", SINGLE):
        faults.freeze(name)
        rewrite(library / name, b"other bytes", 2 * BLOCK + 17)

    def are_others() -> bool:
        return all(path.exists() and int(path.stat().st_mtime) != before[path] for path in before)

    poll("other dates", are_others)
    wanted = expected(library / GAME)
    poll("the new archive", lambda: read(archive) == wanted.read(0, wanted.size))
    poll("the new file", lambda: read(single) == (library / SINGLE).read_bytes())


def test_a_change_in_one_of_many_small_files(library: Path, faulty: Source, mount: Mounts) -> None:
    """They are read many at a time."""
    shown, faults = faulty
    many = "roms/psx/Many"
    make_game(library, many, {f"{n:02}.bin": content(1000, n) for n in range(40)})
    mounted = mount(shown, *FAST)
    mounted.expect_log(f"{many} is withdrawn, and hashed again: {many}/29.bin has other bytes")
    archive = mounted.wait_archive(many)
    before = archive.stat().st_mtime
    faults.freeze(f"{many}/29.bin")
    rewrite(library / many / "29.bin", b"other bytes", 500)
    poll("another date", lambda: archive.exists() and archive.stat().st_mtime != before)
    wanted = expected(library / many)
    poll("the new archive", lambda: read(archive) == wanted.read(0, wanted.size))


@pytest.mark.parametrize("options", [("--recheck-rate", "0"), ("--prove", "never", *FAST)])
def test_nothing_is_read_unasked(faulty: Source, mount: Mounts, options: tuple[str, ...]) -> None:
    shown, faults = faulty
    mounted = mount(shown, *options)
    archive = mounted.wait_archive(GAME)
    single = mounted.path / SINGLE
    poll("nothing to hash", lambda: status(mounted)["singles"]["waiting"] == 0)
    before, scans = faults.count("*", "read"), faults.count("roms/psx", "open")
    poll("another scan", lambda: faults.count("roms/psx", "open") > scans + 1)
    assert archive.exists()
    assert single.exists()
    assert faults.count("*", "read") == before
