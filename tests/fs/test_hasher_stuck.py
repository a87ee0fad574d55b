"""A file whose disk doesn't answer is given up; others are hashed meanwhile (DESIGN R3, R4)."""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.fs.hashed import Results
from tests.fs.lab import until
from tests.support.libraries import content, make_file
from zipfs.index import hash_file as filehasher_module
from zipfs.index import hash_process
from zipfs.index import hash_queue as hasher_module
from zipfs.index.hash_file import FileHasher
from zipfs.index.hash_queue import Hasher
from zipfs.library.filestate import Checksums, FileState
from zipfs.library.scan import SourceFile

PATIENCE = 0.1
LONG = 120.0


class Disk:
    """Reads of the files with these names hang until released."""

    def __init__(self) -> None:
        self.hanging: dict[bytes, threading.Event] = {}
        self.entered: list[bytes] = []
        self.left = 0

    def hang(self, name: bytes) -> None:
        self.hanging[name] = threading.Event()

    def release(self) -> None:
        for event in self.hanging.values():
            event.set()
        self.hanging.clear()

    def touch(self, path: bytes) -> None:
        name = os.path.basename(path)
        if event := self.hanging.get(name):
            self.entered.append(name)
            event.wait(LONG)
            self.left += 1


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    advance = FileHasher.advance

    def slow(self: FileHasher, limit: int) -> Checksums | None:
        disk.touch(self._path)
        return advance(self, limit)

    monkeypatch.setattr(FileHasher, "advance", slow)
    yield disk
    disk.release()


def source(folder: Path, name: str, size: int) -> SourceFile:
    make_file(folder / name, content(size, name))
    state = FileState.of(os.stat(folder / name))
    return SourceFile(name.encode(), name.encode(), state)


def opened(folder: Path) -> list[str]:
    """Which files in *folder* this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if os.path.dirname(path) == str(folder):
            found.append(os.path.basename(path))
    return found


def make_hasher(folder: Path, patience: float | None = PATIENCE) -> tuple[Hasher, Results]:
    results = Results()
    hasher = Hasher(lambda name: os.fsencode(folder) + b"/" + name, results.keep, patience)
    return hasher, results


async def test_others_are_hashed(tmp_path: Path, disk: Disk, nursery: trio.Nursery) -> None:
    first, second = source(tmp_path, "a", 10), source(tmp_path, "b", 1000)
    disk.hang(b"a")
    hasher, results = make_hasher(tmp_path)
    results.request(hasher, first, asked=True)
    results.request(hasher, second)
    nursery.start_soon(hasher.run)
    await until(lambda: b"b" in results.hashed)
    assert results.hashed[b"b"].crc32 == zlib.crc32(content(1000, "b"))
    assert isinstance(results.failed[b"a"], TimeoutError)
    assert (len(hasher), hasher.pending_bytes) == (0, 0)

    # As long as the thread is in there, to ask again is answered at once, by no thread.
    results.requests.clear()
    results.request(hasher, first, asked=True)
    await until(lambda: b"a" in results.failed)
    assert disk.entered == [b"a"]
    assert opened(tmp_path) == ["a"]

    disk.release()
    await until(lambda: not opened(tmp_path))
    await until(lambda: not hasher._stuck)
    results.request(hasher, first, asked=True)
    await until(lambda: b"a" in results.hashed)
    assert results.hashed[b"a"].crc32 == zlib.crc32(content(10, "a"))
    assert not opened(tmp_path)


async def test_one_of_many_small_files_of_a_slow_source(
    tmp_path: Path, disk: Disk, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others that are hashed at the same time have their checksums; it alone is given up."""
    monkeypatch.setattr(hash_process, "is_slow", lambda _: True)
    hasher, results = make_hasher(tmp_path, 0.5)
    names = [f"{number:02}" for number in range(60)]
    for hanging in (b"03", b"40"):
        disk.hang(hanging)
    for name in names:
        results.request(hasher, source(tmp_path, name, 10))
    nursery.start_soon(hasher.run)
    await until(lambda: len(results.hashed) + len(results.failed) == len(names))
    assert set(results.failed) == {b"03", b"40"}
    assert all(isinstance(error, TimeoutError) for error in results.failed.values())
    assert results.hashed[b"59"].crc32 == zlib.crc32(content(10, "59"))
    disk.release()
    await until(lambda: not hasher._stuck)
    await until(lambda: not opened(tmp_path))


async def test_big_file_is_not_given_up(
    tmp_path: Path, disk: Disk, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience is for a file that gets no further, however long all of it takes."""
    patience = 10 * PATIENCE  # a busy machine stands still for longer than that
    block = FileHasher._block

    def slow(self: FileHasher, buffer: memoryview) -> None:
        time.sleep(patience / 4)
        block(self, buffer)

    monkeypatch.setattr(FileHasher, "_block", slow)
    file = source(tmp_path, "a", 12 << 20)
    hasher, results = make_hasher(tmp_path, patience)
    results.request(hasher, file, asked=True)
    nursery.start_soon(hasher.run)
    await until(lambda: results.hashed or results.failed)
    assert not results.failed
    assert results.hashed[b"a"].crc32 == zlib.crc32(content(12 << 20, "a"))


async def test_many_stuck_files(tmp_path: Path, disk: Disk, nursery: trio.Nursery) -> None:
    hasher, results = make_hasher(tmp_path, 0.02)
    names = [f"{number}" for number in range(20)]
    for name in names:
        disk.hang(name.encode())
        results.request(hasher, source(tmp_path, name, 10))
    results.request(hasher, source(tmp_path, "last", 1000))
    before = threading.active_count()
    nursery.start_soon(hasher.run)
    await until(lambda: b"last" in results.hashed)
    assert len(results.failed) == 20
    disk.release()
    await until(lambda: disk.left == 20)
    await until(lambda: not hasher._stuck)
    await until(lambda: not opened(tmp_path))
    # Of the workers one is left.
    await until(lambda: threading.active_count() <= before + 1)


async def test_overtaken_files_are_not_left_open(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many files have been begun, one is open; and they go on where they were."""
    monkeypatch.setattr(hasher_module, "SLICE", 1 << 20)
    monkeypatch.setattr(filehasher_module, "_WINDOW", 1 << 20)
    hasher, results = make_hasher(tmp_path)
    sizes = [(9 - number) << 20 for number in range(8)]
    files = [source(tmp_path, f"{number}", size) for number, size in enumerate(sizes)]
    begun: list[bytes] = []
    most = 0
    advance = FileHasher.advance

    def noted(self: FileHasher, limit: int) -> Checksums | None:
        nonlocal most
        name = os.path.basename(self._path)
        if name not in begun:
            begun.append(name)
            if len(begun) < len(files):  # one that is smaller, before this one is done
                number = len(begun)
                trio.from_thread.run_sync(
                    lambda: results.request(hasher, files[number]), trio_token=token
                )
        result = advance(self, limit)
        most = max(most, len(opened(tmp_path)))
        return result

    monkeypatch.setattr(FileHasher, "advance", noted)
    token = trio.lowlevel.current_trio_token()
    results.request(hasher, files[0])
    nursery.start_soon(hasher.run)
    await until(lambda: len(results.hashed) == len(files))
    assert begun == [file.source for file in files]
    assert most == 1
    for number, size in enumerate(sizes):
        name = f"{number}"
        assert results.hashed[name.encode()].crc32 == zlib.crc32(content(size, name))
    await until(lambda: not opened(tmp_path))


async def test_end_while_stuck(tmp_path: Path, disk: Disk) -> None:
    """The end waits for no thread, and a thread that comes back later leaves nothing open."""
    disk.hang(b"a")
    hasher, results = make_hasher(tmp_path, None)
    results.request(hasher, source(tmp_path, "a", 10), asked=True)
    with trio.fail_after(LONG / 2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hasher.run)
            await until(lambda: disk.entered == [b"a"])
            nursery.cancel_scope.cancel()
    disk.release()
    await until(lambda: not opened(tmp_path))
