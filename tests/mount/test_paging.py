"""Paging through a folder that changes, each page by another open (DESIGN F1).

As NFS servers, ``telldir`` and ``seekdir`` do it: a page ends with a cookie, and the next one is
asked for with that, of a folder that is opened anew.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.libraries import make_file, make_game
from tests.support.mounting import Mounted, Mounts
from tests.support.waiting import poll

ARCHIVES, FILES = 40, 200
PAGE: Final = 1024
"""Bytes of one page: about 25 entries."""
libc: Final = ctypes.CDLL(None, use_errno=True)


def page(folder: Path, cookie: int) -> list[tuple[bytes, int]]:
    """The names behind *cookie*, each with its own cookie: getdents64(2)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert os.lseek(descriptor, cookie, os.SEEK_SET) == cookie
        buffer = ctypes.create_string_buffer(PAGE)
        size = libc.getdents64(descriptor, buffer, PAGE)
        assert size >= 0, os.strerror(ctypes.get_errno())
        return list(entries(buffer.raw[:size]))
    finally:
        os.close(descriptor)


def entries(data: bytes) -> Iterator[tuple[bytes, int]]:
    while data:
        length = int.from_bytes(data[16:18], "little")
        name = data[19:length].split(b"\0", 1)[0]
        if name not in (b".", b".."):
            yield name, int.from_bytes(data[8:16], "little", signed=True)
        data = data[length:]


@pytest.fixture
def mounted(library: Path, mount: Mounts) -> Mounted:
    for number in range(ARCHIVES):
        make_game(library, f"roms/psx/Game {number}", {"1": b"1", "2": b"2"})
    for number in range(FILES):
        make_file(library / f"roms/psx/single {number}.iso", b"x")
    mounted = mount(library)
    mounted.wait_sealed(ARCHIVES)
    return mounted


def test_what_stays_is_told_once(mounted: Mounted) -> None:
    """Names that were told go, and others come, between each two pages."""
    source, folder = mounted.library / "roms/psx", mounted.path / "roms/psx"
    staying = set(os.listdir(os.fsencode(folder)))
    assert len(staying) == ARCHIVES + FILES
    there = staying.copy()
    told: list[bytes] = []
    cookie = 0
    came = 0
    pages = 0
    while some := page(folder, cookie):
        pages += 1
        assert pages < ARCHIVES + FILES, "it goes round in circles"
        told += [name for name, _ in some]
        cookies = [number for _, number in some]
        assert cookies == sorted(set(cookies))
        assert cookie < cookies[0]
        cookie = cookies[-1]
        # Half of them go, the one with that cookie too.
        for name, _ in some[-1::-2]:
            staying.discard(name)
            there.remove(name)
            path = source / os.fsdecode(name)
            if path.exists():
                path.unlink()
            else:
                path.with_suffix("").rename(mounted.library.parent / f"gone {len(staying)}")
        for _ in range(10):
            came += 1
            make_file(source / f"new {came}.iso", b"x")
            there.add(b"new %d.iso" % came)
        mounted.check_runs()
    assert len(told) == len(set(told))
    assert staying <= set(told)
    poll("all that has changed to be told", lambda: set(os.listdir(os.fsencode(folder))) == there)


def test_a_stream_that_is_rewound_tells_of_what_came(mounted: Mounted) -> None:
    """rewinddir(3)."""
    descriptor = os.open(mounted.path / "roms/psx", os.O_RDONLY | os.O_DIRECTORY)
    try:
        before = os.listdir(descriptor)
        make_file(mounted.library / "roms/psx/new.iso", b"x")
        assert sorted(os.listdir(descriptor)) == sorted([*before, "new.iso"])
    finally:
        os.close(descriptor)
