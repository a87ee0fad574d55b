"""What is read ahead is never another version's (DESIGN R1, R2), and asks a source no more often.

The library is shown by :mod:`tests.support.faultfs`, which counts what it is asked for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.mount.test_open_handles import (
    append,
    chmod,
    opened,
    read_range,
    rename,
    rename_game,
    replace,
    rewrite,
    rewrite_anew,
    rewrite_unnoticed,
    truncate,
    unlink,
    wait_version,
)
from tests.support.faultfs import Faults
from tests.support.libraries import Expected, content, expected, make_game
from tests.support.mounting import Mounts
from tests.support.waiting import SECONDS, poll

GAME: Final = "roms/psx/Game"
OTHER: Final = "roms/psx/Other"
FILES: Final = 200
SIZE: Final = 30_000
PIECE: Final = 256 << 10
AT_A_TIME: Final = 8

Source = tuple[Path, Faults]


@pytest.fixture
def wanted(library: Path) -> Expected:
    files = {f"{number:03}.bin": content(SIZE, number) for number in range(FILES)}
    make_game(library, OTHER, {"a": content(SIZE, "a"), "b": content(SIZE, "b")})
    return expected(make_game(library, GAME, files))


@pytest.fixture
def mount(faulty: Source, mount: Mounts) -> Iterator[Mounts]:
    """Mounts that end before the file system does that they show, with nothing hanging."""
    yield mount
    faulty[1].clear()


def reads(faults: Faults) -> int:
    return faults.count(f"{GAME}/*", "read")


def read_from(descriptor: int, data: bytes, start: int) -> int:
    """Read from *start* to the end, piece by piece; how often it was ``EIO``."""
    refused = 0
    for offset in range(start, len(data), PIECE):
        got = read_range(descriptor, offset, PIECE)
        refused += got is None
        assert got in (None, data[offset : offset + PIECE]), f"other bytes at {offset}"
    return refused


def test_each_file_is_asked_for_once(faulty: Source, wanted: Expected, mount: Mounts) -> None:
    source, faults = faulty
    mounted = mount(source, f"--parallel-reads={AT_A_TIME}")
    mounted.wait_sealed(2)
    before, opens = reads(faults), faults.count(f"{GAME}/*", "open")
    assert mounted.archive(GAME).read_bytes() == wanted.read(0, wanted.size)
    assert reads(faults) - before == FILES
    assert faults.count(f"{GAME}/*", "open") - opens <= FILES


@pytest.mark.parametrize(
    ("option", "least", "most"), [(AT_A_TIME, AT_A_TIME, AT_A_TIME), (0, 1, 2)]
)
def test_so_many_at_a_time_and_no_more(
    faulty: Source, wanted: Expected, mount: Mounts, option: int, least: int, most: int
) -> None:
    """Without it, each of the kernel's requests, of which there can be two, has one at a time."""
    source, faults = faulty
    mounted = mount(source, f"--parallel-reads={option}")
    mounted.wait_sealed(2)
    faults.hang(f"{GAME}/*")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(mounted.archive(GAME).read_bytes()))
    reader.start()
    try:
        poll("reads to hang", lambda: faults.waiting(f"{GAME}/*", "read") >= least)
        # Others have their own (R3).
        assert mounted.archive(OTHER).read_bytes()
        assert faults.waiting(f"{GAME}/*", "read") <= most
    finally:
        faults.release()
        reader.join(SECONDS)
    assert got == [wanted.read(0, wanted.size)]


def test_a_slow_source_is_asked_for_many_without_an_option(
    faulty: Source, wanted: Expected, mount: Mounts
) -> None:
    source, faults = faulty
    mounted = mount(source)
    mounted.wait_sealed(2)
    faults.delay(f"{GAME}/*", "open", 0.05)
    faults.delay(f"{GAME}/*", "read", 0.05)
    most = 0
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(mounted.archive(GAME).read_bytes()))
    reader.start()
    while reader.is_alive():
        most = max(most, faults.waiting(f"{GAME}/*", "read"))
        reader.join(0.01)
    assert got == [wanted.read(0, wanted.size)]
    assert 4 <= most <= 32


CHANGES = [
    rewrite, rewrite_unnoticed, rewrite_anew, replace, unlink, rename, rename_game,
    truncate, append, chmod,
]  # fmt: skip
IN_PLACE = [rewrite, rewrite_unnoticed, rewrite_anew, truncate, append]
RENAMED = [rename, rename_game]
"""faultfs has no attributes for a file under its old name, so its state can't be asked for."""
GONE = [unlink, rename_game]


@pytest.mark.parametrize("prove", ["auto", "never"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_what_was_read_ahead(
    faulty: Source,
    library: Path,
    wanted: Expected,
    mount: Mounts,
    change: Callable[[Path], None],
    prove: str,
) -> None:
    """Old bytes or ``EIO``; ``EIO`` for a change in place, where the state vouches."""
    source, faults = faulty
    mounted = mount(source, f"--parallel-reads={AT_A_TIME}", f"--prove={prove}")
    mounted.expect_log("ended in an error: ")
    mounted.wait_sealed(2)
    data = wanted.read(0, wanted.size)
    before = reads(faults)
    with opened(mounted.archive(GAME)) as descriptor:
        asked = 4 * PIECE
        for offset in range(0, asked, PIECE):
            assert read_range(descriptor, offset, PIECE) == data[offset : offset + PIECE]
        number = asked // SIZE + 10
        poll("it to be read ahead", lambda: faults.count(f"{GAME}/{number:03}.bin", "read") > 0)
        change(library / GAME / f"{number:03}.bin")
        refused = read_from(descriptor, data, asked)
        if prove == "never" and change in IN_PLACE:
            assert refused
        if change not in IN_PLACE and not (prove == "never" and change in RENAMED):
            assert not refused
        # Once more, now that some of it was refused, and from the beginning.
        read_from(descriptor, data, 0)
    assert reads(faults) > before
    if change not in GONE:
        # What the kernel has of the old version is no part of the new one.
        wait_version(mounted, GAME)


def test_many_readers_share_what_is_read(faulty: Source, wanted: Expected, mount: Mounts) -> None:
    source, faults = faulty
    mounted = mount(source, f"--parallel-reads={AT_A_TIME}")
    mounted.wait_sealed(2)
    data = wanted.read(0, wanted.size)
    before = reads(faults)
    wrong: list[int] = []

    def read(start: int) -> None:
        with opened(mounted.archive(GAME)) as descriptor:
            wrong.extend(
                offset
                for offset in range(start, len(data), PIECE)
                if read_range(descriptor, offset, PIECE) != data[offset : offset + PIECE]
            )

    readers = [threading.Thread(target=read, args=[number % 4 * 5 * PIECE]) for number in range(20)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(SECONDS)
    assert wrong == []
    assert reads(faults) - before <= 2 * FILES


def test_nothing_is_left_open(faulty: Source, wanted: Expected, mount: Mounts) -> None:
    """The source can be unmounted a moment after the last reader has left."""
    source, _ = faulty
    for prove in ("auto", "never"):
        mounted = mount(source, f"--parallel-reads={AT_A_TIME}", f"--prove={prove}")
        mounted.wait_sealed(2)
        with opened(mounted.archive(GAME)) as descriptor:
            for offset in range(0, wanted.size // 2, PIECE):
                read_range(descriptor, offset, PIECE)
        poll("all to be closed", lambda: not mounted.library_descriptors())  # noqa: B023 - at once
        mounted.unmount()


def test_a_reader_that_is_interrupted(faulty: Source, wanted: Expected, mount: Mounts) -> None:
    """Threads end by themselves, and what comes next is right."""
    source, faults = faulty
    mounted = mount(source, f"--parallel-reads={AT_A_TIME}")
    mounted.wait_sealed(2)
    faults.delay(f"{GAME}/*", "read", 0.02)
    for _ in range(3):
        with opened(mounted.archive(GAME)) as descriptor:
            for offset in range(0, 3 * PIECE, PIECE):
                assert read_range(descriptor, offset, PIECE) == wanted.read(offset, PIECE)
    assert os.listdir(mounted.path)
    assert mounted.archive(GAME).read_bytes() == wanted.read(0, wanted.size)
