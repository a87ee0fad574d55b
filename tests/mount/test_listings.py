"""Listings of a real mount: from memory, in pieces, and right after a start."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

import pytest

from tests.mount.test_paging import entries, libc
from tests.support.libraries import make_file, make_game
from tests.support.mounting import Mounts
from tests.support.waiting import poll

BUFFER: Final = 32768
"""Bytes of one getdents64(2), as glibc has it."""


def page(folder: Path, cookie: int) -> list[tuple[bytes, int]]:
    """The names behind *cookie*, of a folder that is opened anew."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.lseek(descriptor, cookie, os.SEEK_SET)
        buffer = ctypes.create_string_buffer(BUFFER)
        size = libc.getdents64(descriptor, buffer, BUFFER)
        assert size >= 0, os.strerror(ctypes.get_errno())
        return list(entries(buffer.raw[:size]))
    finally:
        os.close(descriptor)


@pytest.mark.large
def test_a_large_folder_page_by_page(library: Path, mount: Mounts) -> None:
    """30,000 files, a new open for each page, while names come and go behind and before it."""
    folder = library / "roms/psx"
    folder.mkdir(parents=True)
    for number in range(30_000):
        (folder / f"{number:05}.iso").touch()
    mounted = mount(library)
    shown = mounted.path / "roms/psx"
    staying = set(os.listdir(os.fsencode(folder)))
    told: list[bytes] = []
    cookie = pages = 0
    while some := page(shown, cookie):
        told += [name for name, _ in some]
        assert [number for _, number in some] == sorted({number for _, number in some})
        cookie = some[-1][1]
        if pages % 5 == 0:
            gone = os.fsdecode(some[len(some) // 2][0])
            staying.discard(os.fsencode(gone))
            (folder / gone).unlink()
            make_file(folder / f"new {pages}.iso", b"")
        pages += 1
    assert pages > 20
    assert len(told) == len(set(told))
    assert staying <= set(told)
    mounted.check_runs()


def test_each_change_shows_in_the_next_listing(library: Path, mount: Mounts) -> None:
    """With no pause in between: by events, and as they are caught up with."""
    for number in range(20):
        make_game(library, f"roms/psx/Game {number}", {"1": b"1", "2": b"2"})
    mounted = mount(library)
    mounted.wait_sealed(20)
    shown = mounted.path / "roms/psx"
    poll("events", lambda: mounted.status()["options"]["watching"] == "events")
    assert len(os.listdir(shown)) == 20
    for number in range(20):
        make_file(library / f"roms/psx/{number}.iso", b"x")
        assert f"{number}.iso" in os.listdir(shown)
        (library / f"roms/psx/Game {number}/1").write_bytes(b"another")
        assert f"Game {number}.zip" not in os.listdir(shown)
        (library / f"roms/psx/{number}.iso").unlink()
        assert f"{number}.iso" not in os.listdir(shown)
    mounted.wait_sealed(20)
    poll("all to be back", lambda: len(os.listdir(shown)) == 20)


def test_right_after_a_start(library: Path, mount: Mounts) -> None:
    """What the index knows is listed at once, and looked at by whoever asks for it."""
    for number in range(40):
        make_game(library, f"roms/psx/Game {number}", {"1": b"1", "2": b"%d" % number})
    mounted = mount(library)
    mounted.wait_sealed(40)
    before = {path.name: path.stat() for path in (mounted.path / "roms/psx").iterdir()}
    assert mounted.unmount() == 0
    for number in range(0, 40, 2):
        (library / f"roms/psx/Game {number}/2").write_bytes(b"as long as never before")
    again = mount(library)
    shown = again.path / "roms/psx"
    for name in os.listdir(shown):
        try:
            status = (shown / name).stat()
        except FileNotFoundError:  # it isn't hashed yet
            continue
        is_changed = int(name.removesuffix(".zip").rpartition(" ")[2]) % 2 == 0
        was = before[name]
        assert (status.st_ino, status.st_size, status.st_mtime_ns) == (
            was.st_ino, was.st_size, was.st_mtime_ns,
        ) or is_changed  # fmt: skip
        assert not is_changed or status.st_size != was.st_size
    again.wait_sealed(40)
    poll("all to be there", lambda: len(os.listdir(shown)) == 40)
    after = {path.name: path.stat() for path in shown.iterdir()}
    for number in range(40):
        name = f"Game {number}.zip"
        same = after[name].st_ino == before[name].st_ino
        assert same == (number % 2 == 1)
