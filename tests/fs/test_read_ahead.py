"""Reading ahead, in one process: bounds, seeks, leaving, hanging (DESIGN R1, R3, R4).

What is read ahead comes from threads that a test can hold up; what is handed out never does.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
import xxhash

from tests.fs.lab import folders_below, open_below, source_file, until
from tests.support.libraries import Expected, content, expected, make_game
from tests.support.waiting import SECONDS, poll
from zipfs.library import files as reading
from zipfs.library.files import pread as real_pread
from zipfs.library.filestate import BLOCK
from zipfs.library.scan import SourceFile
from zipfs.mount import reader as reader_module
from zipfs.mount.reader import PendingRead, Reader
from zipfs.mount.reading import ahead as ahead_module
from zipfs.mount.reading.handle import Handle
from zipfs.system.process import Limits

FILES = 200
SIZE = 10_000
PIECE = 10 * SIZE
AT_A_TIME = 4
LIMITS = Limits(files=400, threads=4, ahead=8, folders=2, spare=4)


class Game:
    """A game of *files* files in *folder*, as a version of it."""

    def __init__(self, library: Path, name: str, files: int, size: int, *, proven: bool) -> None:
        names = {f"{number:03}": content(size, f"{name} {number}") for number in range(files)}
        self.folder = make_game(library, name, names)
        self.wanted: Expected = expected(self.folder)
        self.data = self.wanted.read(0, self.wanted.size)
        self.files = [
            SourceFile(file.path, file.source, file.state, by_content=proven)
            for file in (source_file(self.folder, path) for path in self.wanted.files)
        ]
        self.digests = self.wanted.digests
        self.size = self.wanted.size
        self.plan = self.wanted.layout.plan
        self.locate = self.wanted.layout.locate


class Disk:
    """Reads that wait, by the files' names; and which were read."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.waiting: set[str] = set()
        self.done: list[str] = []
        self.most = 0
        self._go_on = threading.Event()
        self._go_on.set()
        self._permits: threading.Semaphore | None = None
        self._lock = threading.Lock()

    def stop(self) -> None:
        self._go_on.clear()

    def go_on(self) -> None:
        self._go_on.set()
        if self._permits:
            self._permits.release(1 << 20)

    def one_by_one(self) -> None:
        """Reads go on as they are permitted."""
        self._permits = threading.Semaphore(0)

    def permit(self) -> None:
        """Let one read go on."""
        assert self._permits
        self._permits.release()

    def pread(self, descriptor: int, view: memoryview, offset: int) -> int:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        with self._lock:
            self.read.append(name)
            self.waiting.add(name)
            self.most = max(self.most, len(self.waiting))
        try:
            assert self._go_on.wait(SECONDS)
            if self._permits:
                assert self._permits.acquire(timeout=SECONDS)
            count = real_pread(descriptor, view, offset)
            self.done.append(name)
            return count
        finally:
            with self._lock:
                self.waiting.discard(name)


preadv = os.preadv


def untold(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
    """As a source on a network, which doesn't tell what it has in memory."""
    if flags:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")
    return preadv(descriptor, buffers, offset)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(reading, "pread", disk.pread)
    monkeypatch.setattr(os, "preadv", untold)
    yield disk
    disk.go_on()


@pytest.fixture(params=[True, False], ids=["content", "state"])
def game(library: Path, request: pytest.FixtureRequest) -> Game:
    return Game(library, "game", FILES, SIZE, proven=request.param)


def make_reader(*, patience: float | None = None, parallel: int | None = AT_A_TIME) -> Reader:
    return Reader(lambda path: path, lambda _: None, LIMITS, patience, parallel=parallel)


@pytest.fixture
async def reader(library: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reader]:
    reader = make_reader()
    async with trio.open_nursery() as nursery:
        monkeypatch.setattr(reader_module, "LINGER", 0.1)
        nursery.start_soon(reader.tidy)
        yield reader
        await until(lambda: not reader._fetcher._threads)
        # A moment after the last has left, nothing is open (the source can be unmounted).
        await until(lambda: not open_below(library) and not folders_below(library))
        assert reader._pool._reserved == 0
        assert reader._fetcher.owners == 0
        nursery.cancel_scope.cancel()


async def read(reader: Reader, handle: Handle, offset: int, length: int) -> bytes:
    found = reader.read_now(handle, offset, length)
    return bytes(await found.finish() if isinstance(found, PendingRead) else found)


async def test_a_reader_in_order_finds_what_he_asks_for(
    game: Game, reader: Reader, disk: Disk
) -> None:
    handle = await reader.open(1, game)
    got = [await read(reader, handle, at, PIECE) for at in range(0, game.size, PIECE)]
    assert b"".join(got) == game.data
    assert disk.most <= AT_A_TIME + 1  # and the one who asks, where the state vouches
    if game.files[0].by_content:
        assert len(disk.read) == len(set(disk.read)) == FILES
    reader.release(handle)


async def test_open_files_and_what_is_read_ahead_are_bounded(
    game: Game, reader: Reader, disk: Disk, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead_module, "_BLOCKS", 30)
    reader._pool.limit = few = 64
    handle = await reader.open(1, game)
    asked = 0
    for at in range(0, game.size, PIECE):
        assert await read(reader, handle, at, PIECE) == game.data[at : at + PIECE]
        asked += PIECE // SIZE
        assert len(set(disk.read)) <= asked + 30 + AT_A_TIME
        assert len(open_below(library)) <= few + LIMITS.threads + LIMITS.ahead
        assert len(folders_below(library)) <= LIMITS.folders
    reader.release(handle)


async def test_who_seeks_has_nothing_more_read_where_he_was(
    game: Game, reader: Reader, disk: Disk, nursery: trio.Nursery
) -> None:
    handle = await reader.open(1, game)
    for at in range(0, 4 * PIECE, PIECE):
        await read(reader, handle, at, PIECE)
    await until(lambda: not reader._fetcher._threads)
    before = set(disk.read)
    disk.stop()
    nursery.start_soon(read, reader, handle, 4 * PIECE, PIECE)
    await until(lambda: len(disk.waiting) >= AT_A_TIME)
    ahead = handle.ahead
    assert ahead
    far = 15 * PIECE
    nursery.start_soon(read, reader, handle, far, PIECE)
    await trio.testing.wait_all_tasks_blocked()
    assert not ahead._later
    disk.go_on()
    await until(lambda: not reader._fetcher._threads)
    # Both pieces, and what was under way then.
    assert len(set(disk.read) - before) <= 2 * (PIECE // SIZE + 2) + AT_A_TIME
    reader.release(handle)


async def test_who_leaves_has_nothing_more_read(
    game: Game, reader: Reader, disk: Disk, nursery: trio.Nursery
) -> None:
    handle = await reader.open(1, game)
    for at in range(0, 3 * PIECE, PIECE):
        await read(reader, handle, at, PIECE)
    await until(lambda: not reader._fetcher._threads)
    disk.stop()
    nursery.start_soon(read, reader, handle, 3 * PIECE, PIECE)
    await until(lambda: len(disk.waiting) >= AT_A_TIME)
    before = set(disk.read)
    reader.release(handle)
    await until(lambda: handle.ahead is None)
    disk.go_on()
    await until(lambda: not reader._fetcher._threads)
    assert len(set(disk.read) - before) <= PIECE // SIZE + 2


async def test_what_hangs_takes_its_own_threads(
    library: Path, game: Game, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3: others read on, and ahead; who waits for it is told, and the next one at once."""
    reader = make_reader(patience=0.5)
    other = Game(library, "other", 40, SIZE, proven=True)
    hung = Game(library, "hangs", 40, SIZE, proven=True)
    go_on = threading.Event()
    pread = reading.pread

    def hanging(descriptor: int, view: memoryview, offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(f"{hung.folder}/"):
            assert go_on.wait(SECONDS)
        return pread(descriptor, view, offset)

    monkeypatch.setattr(reading, "pread", hanging)
    stuck = await reader.open(1, hung)
    with pytest.raises(TimeoutError):
        await read(reader, stuck, 0, PIECE)
    await until(lambda: 1 <= reader.stuck <= AT_A_TIME)
    with trio.fail_after(SECONDS):
        with pytest.raises(TimeoutError):
            await read(reader, stuck, PIECE, PIECE)
        good = await reader.open(2, other)
        for at in range(0, other.size, PIECE):
            assert await read(reader, good, at, PIECE) == other.data[at : at + PIECE]
        fine = await reader.open(3, game)
        for at in range(0, game.size, PIECE):
            assert await read(reader, fine, at, PIECE) == game.data[at : at + PIECE]
    assert reader.stuck <= AT_A_TIME
    go_on.set()
    await until(lambda: not reader.stuck and not reader._fetcher._threads)
    assert await read(reader, stuck, 0, PIECE) == hung.data[:PIECE]
    for handle in (stuck, good, fine):
        reader.release(handle)
        handle.end_ahead()
    descriptors = [file.descriptor for file in reader._pool._files.values()]
    reader._folders.close()
    reading.close_all(descriptors)


async def test_many_readers_of_one_archive(game: Game, reader: Reader, disk: Disk) -> None:
    async def client(start: int) -> None:
        handle = await reader.open(1, game)
        for at in range(start * PIECE, game.size, PIECE):
            assert await read(reader, handle, at, PIECE) == game.data[at : at + PIECE]
        reader.release(handle)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(client, number % 5 * 3)
    if game.files[0].by_content:
        assert len(disk.read) <= FILES + 20


async def test_a_large_file_is_read_ahead_in_blocks(
    library: Path, reader: Reader, disk: Disk
) -> None:
    """Each once, as few more than the window as there are at a time."""
    game = Game(library, "large", 2, 6 * BLOCK + 5, proven=True)
    reader._proven._blocks = _blocks_of(game).get
    handle = await reader.open(1, game)
    step = 300_000
    got = [await read(reader, handle, at, step) for at in range(0, game.size, step)]
    assert b"".join(got) == game.data
    assert len(disk.read) == 2 * 7
    reader.release(handle)


def _blocks_of(game: Game) -> dict[bytes, bytes]:
    found = {}
    for file, digest in zip(game.files, game.digests, strict=True):
        data = Path(os.fsdecode(file.source)).read_bytes()
        found[digest] = b"".join(
            xxhash.xxh3_64_digest(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)
        )
    return found


@pytest.mark.parametrize("parallel", [0, None])
async def test_a_quick_source_is_read_as_it_is_asked_for(
    library: Path, parallel: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zipfs.mount.reading.handle.is_slow", lambda _: False)
    game = Game(library, "game", FILES, SIZE, proven=False)
    reader = make_reader(parallel=parallel)
    handle = await reader.open(1, game)
    for at in range(0, game.size, PIECE):
        assert await read(reader, handle, at, PIECE) == game.data[at : at + PIECE]
    assert handle.ahead is None
    assert not reader._fetcher._threads
    reader.release(handle)
    reading.close_all([file.descriptor for file in reader._pool._files.values()])
    reader._folders.close()


def test_threads_end_without_anybody_waiting(library: Path) -> None:
    """The loop ends while they work: they end by themselves."""
    game = Game(library, "game", FILES, SIZE, proven=True)
    kept = []

    async def begin() -> None:
        reader = make_reader()
        kept.append(reader)
        handle = await reader.open(1, game)
        for at in range(0, 5 * PIECE, PIECE):
            await read(reader, handle, at, PIECE)

    trio.run(begin)
    (reader,) = kept
    poll("the threads to end", lambda: not reader._fetcher._threads)
    reading.close_all([file.descriptor for file in reader._pool._files.values()])
    reader._folders.close()


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Trio's, for tests of patience: moves when a test says so."""
    return trio.testing.MockClock()


async def test_who_waits_behind_much_work_has_time(
    game: Game, disk: Disk, clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Each block takes less than its time, what was asked for more; but what hangs has none."""
    patience = 1000.0
    reader = make_reader(patience=patience)
    handle = await reader.open(1, game)
    for at in range(0, 3 * PIECE, PIECE):
        await read(reader, handle, at, PIECE)
    await until(lambda: not reader._fetcher._threads)
    disk.one_by_one()
    got: list[bytes] = []
    errors: list[OSError] = []

    async def ask() -> None:
        try:
            got.append(await read(reader, handle, 15 * PIECE, PIECE))
        except OSError as error:
            errors.append(error)

    nursery.start_soon(ask)
    await until(lambda: len(disk.waiting) >= AT_A_TIME)
    for done in range(6):
        await trio.testing.wait_all_tasks_blocked()
        clock.jump(0.7 * patience)
        before = len(disk.done)
        disk.permit()
        await until(lambda before=before: len(disk.done) > before)  # type: ignore[misc]  # mypy can't infer a lambda's default
        assert not errors, done
    for _ in range(2):
        await trio.testing.wait_all_tasks_blocked()
        clock.jump(patience)
    await until(lambda: bool(errors))
    assert errors[0].errno == errno.ETIMEDOUT
    assert not got
    disk.go_on()
    await until(lambda: not reader._fetcher._threads)


async def test_who_waits_for_what_gives_no_answer_has_no_more_time(
    game: Game,
    disk: Disk,
    clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a soft NFS mount says of each block, after a while."""
    patience = 1000.0
    reader = make_reader(patience=patience)
    handle = await reader.open(1, game)
    for at in range(0, 3 * PIECE, PIECE):
        await read(reader, handle, at, PIECE)
    await until(lambda: not reader._fetcher._threads)

    def unanswered(descriptor: int, view: memoryview, offset: int) -> int:
        disk.pread(descriptor, view, offset)
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(reading, "pread", unanswered)
    disk.one_by_one()
    errors: list[OSError] = []

    async def ask() -> None:
        with pytest.raises(TimeoutError) as raised:
            await read(reader, handle, 15 * PIECE, PIECE)
        errors.append(raised.value)

    nursery.start_soon(ask)
    await until(lambda: len(disk.waiting) >= AT_A_TIME)
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(0.7 * patience)
    begun = len(disk.read)
    disk.permit()
    await until(lambda: len(disk.read) > begun)  # one has ended, and another one begun
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(0.3 * patience)
    await until(lambda: bool(errors))
    disk.go_on()
    await until(lambda: not reader._fetcher._threads)
