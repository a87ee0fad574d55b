"""The hasher (DESIGN S1, S2): right checksums, of the state asked for, in the right order."""

from __future__ import annotations

import errno
import mmap
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fs.inthread import is_hashing
from tests.fs.lab import cached_pages, open_below, source_file, unprivileged, until, wait_for
from tests.support.libraries import content, make_file
from tests.support.waiting import SECONDS
from zipfs.errors import ChangedError
from zipfs.index import hash_file as filehasher_module
from zipfs.index import hash_process as hashing_module
from zipfs.index import hash_queue as hasher_module
from zipfs.index.hash_client import Worker
from zipfs.index.hash_file import FileHasher, hash_file
from zipfs.index.hash_jobs import Rank, Request, UnexpectedError
from zipfs.index.hash_queue import Hasher
from zipfs.library.filestate import BLOCK, Checksums, FileState
from zipfs.library.scan import SourceFile
from zipfs.system.folders import Folders
from zipfs.system.measuring.gauge import FIRST

Files = Sequence[tuple[int, bytes, SourceFile]]

WINDOW = filehasher_module._WINDOW


def expected(data: bytes) -> Checksums:
    """The same by other means: zlib, and no blocks read one after the other."""
    blocks = b"".join(
        xxhash.xxh3_64(data[start : start + BLOCK]).digest() for start in range(0, len(data), BLOCK)
    )
    return Checksums(
        zlib.crc32(data), xxhash.xxh3_128(data).digest(), blocks if len(data) > BLOCK else b""
    )


@pytest.fixture(autouse=True)
def nothing_stays_open(tmp_path: Path) -> Iterator[None]:
    yield
    wait_for(lambda: open_below(tmp_path) == [])


def state_of(path: Path) -> FileState:
    return FileState.of(path.stat())


# -- One file ------------------------------------------------------------------------

SIZES = [
    0, 1, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 7,
    WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + BLOCK + 1,
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_the_checksums_of_a_file(size: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    data = content(size, "hashed")
    make_file(file, data)
    told: list[int] = []
    assert hash_file(os.fsencode(file), state_of(file), told.append) == expected(data)
    assert sum(told) == size
    assert hash_file(os.fsencode(file), state_of(file)) == expected(data)


DATA = content(5 * BLOCK + 4321, "in slices")


@settings(deadline=None, max_examples=30)
@given(st.integers(0, len(DATA)), st.lists(st.integers(1, 6 * BLOCK), min_size=1, max_size=8))
def test_slices_make_no_difference(
    tmp_path_factory: pytest.TempPathFactory, size: int, limits: list[int]
) -> None:
    file = tmp_path_factory.mktemp("slices") / "file"
    make_file(file, DATA[:size])
    hasher = FileHasher(os.fsencode(file), state_of(file))
    checksums = None
    steps = 0
    while checksums is None:
        checksums = hasher.advance(limits[steps % len(limits)])
        steps += 1
        assert steps <= 1 + -(-size // BLOCK)
    assert checksums == expected(DATA[:size])
    hasher.close()
    hasher.close()


def rewrite_with_its_old_date(file: Path) -> None:
    before = file.stat()
    file.write_bytes(content(before.st_size, "other"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    other.rename(file)


CHANGES: dict[str, Callable[[Path], object]] = {
    "cut off": lambda file: os.truncate(file, 3 * BLOCK),
    "emptied": lambda file: os.truncate(file, 0),
    "grown": lambda file: os.truncate(file, 9 * BLOCK),
    "written to": lambda file: file.write_bytes(content(file.stat().st_size, "other")),
    "written to with its old date": rewrite_with_its_old_date,
    "replaced": replace,
    "deleted": lambda file: file.unlink(),
    "renamed": lambda file: file.rename(file.with_name("renamed")),
    "linked": lambda file: os.link(file, file.with_name("linked")),
    "chmod": lambda file: file.chmod(0o600),
    "dated": lambda file: os.utime(file, (0, 0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_between_slices_has_no_checksum(change: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    make_file(file, content(WINDOW + 5 * BLOCK))
    hasher = FileHasher(os.fsencode(file), state_of(file))
    try:
        assert hasher.advance(WINDOW) is None
        CHANGES[change](file)
        with pytest.raises(ChangedError):
            hasher.advance(WINDOW)
    finally:
        hasher.close()


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_has_changed_before_isnt_even_read(change: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    make_file(file, content(BLOCK))
    state = state_of(file)
    CHANGES[change](file)
    with pytest.raises(ChangedError):
        FileHasher(os.fsencode(file), state)


NOT_FILES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a link": lambda path: path.symlink_to("target"),
    "a FIFO": os.mkfifo,  # must not be waited for
    "below a file": lambda path: path.parent.joinpath("target").touch(),
}


@pytest.mark.parametrize("what", NOT_FILES)
def test_what_isnt_a_file_any_more(what: str, tmp_path: Path) -> None:
    path = tmp_path / "path"
    make_file(tmp_path / "target", b"data")
    NOT_FILES[what](path)
    wanted = tmp_path / "target" / "below" if what == "below a file" else path
    with pytest.raises(ChangedError):
        FileHasher(os.fsencode(wanted), state_of(tmp_path / "target"))


def test_a_file_that_cant_be_opened(place: Path) -> None:
    make_file(place / "file", b"data")
    (place / "file").chmod(0)
    with unprivileged(), pytest.raises(PermissionError):
        FileHasher(os.fsencode(place / "file"), state_of(place / "file"))


def test_a_file_shorter_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems know a size before they know better."""
    make_file(tmp_path / "file", b"data")
    read = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda d, b, o, *f: 0 if o >= 2 else read(d, [b[0][:2]], o, *f)
    )
    with pytest.raises(ChangedError):
        hash_file(os.fsencode(tmp_path / "file"), state_of(tmp_path / "file"))


def test_reads_that_give_less_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content(2 * BLOCK + 5)
    make_file(tmp_path / "file", data)
    read = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda d, b, o, *f: read(d, [memoryview(b[0])[:70_001]], o, *f)
    )
    file = tmp_path / "file"
    assert hash_file(os.fsencode(file), state_of(file)) == expected(data)


# -- The page cache ------------------------------------------------------------------


@pytest.fixture
def uncached(tmp_path: Path) -> Path:
    """A file of three windows of which the page cache has nothing."""
    file = tmp_path / "file"
    make_file(file, content(2 * WINDOW + 5 * BLOCK))
    drop(file)
    if any(cached_pages(file)):
        pytest.skip("this file system keeps everything in memory")
    return file


def drop(file: Path) -> None:
    with open(file, "rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(file: Path, start: int, stop: int) -> None:
    with open(file, "rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
        os.pread(stream.fileno(), stop - start, start)


def test_what_hashing_brought_in_it_drops(uncached: Path) -> None:
    hash_file(os.fsencode(uncached), state_of(uncached))
    pages = cached_pages(uncached)
    assert sum(pages) <= 4  # a probe may leave a page of its own


def test_what_others_had_cached_stays(uncached: Path) -> None:
    read(uncached, 0, uncached.stat().st_size)
    before = cached_pages(uncached)
    assert all(before)
    hash_file(os.fsencode(uncached), state_of(uncached))
    assert cached_pages(uncached) == before


def test_a_window_that_others_had_cached_stays(uncached: Path) -> None:
    window = WINDOW // mmap.PAGESIZE
    # The kernel takes advice as it can: with others at work it has kept a window now and then.
    for _ in range(5):
        drop(uncached)
        read(uncached, WINDOW, 2 * WINDOW)
        hash_file(os.fsencode(uncached), state_of(uncached))
        pages = cached_pages(uncached)
        assert all(pages[window + 1 : 2 * window - 1])
        others = sum(pages[: window - 32]), sum(pages[2 * window + 32 :])
        if max(others) <= 4:
            return
    pytest.fail(f"pages of the other windows stay: {others}")


def test_a_file_system_that_takes_no_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "no advice")

    data = content(WINDOW + 5)
    make_file(tmp_path / "file", data)
    preadv = os.preadv

    def only_plain(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags:
            raise OSError(errno.EOPNOTSUPP, "no flags")
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    monkeypatch.setattr(os, "preadv", only_plain)
    file = tmp_path / "file"
    assert hash_file(os.fsencode(file), state_of(file)) == expected(data)


# -- The queue -----------------------------------------------------------------------


class Result(NamedTuple):
    source: bytes
    checksums: Checksums


class Results:
    """What came of each file, in order."""

    def __init__(self) -> None:
        self.all: list[Result] = []
        self.then: Callable[[SourceFile], object] = lambda file: None

    @property
    def order(self) -> list[bytes]:
        return [result.source for result in self.all]

    async def keep(self, file: SourceFile, checksums: Checksums) -> None:
        self.all.append(Result(file.source, checksums))
        self.then(file)


class Queue:
    """A hasher of the files in *root*, and what comes of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.results = Results()
        self.requests: list[Request] = []
        self.hasher = Hasher(lambda source: os.fsencode(root) + b"/" + source, self.results.keep)

    def add(self, name: str, size: int, *, asked: bool = False) -> Request:
        if not (self.root / name).exists():
            make_file(self.root / name, content(size, name))
        request = self.hasher.request([source_file(self.root, name)], asked=asked)
        self.requests.append(request)
        return request

    async def finish(self, nursery: trio.Nursery) -> list[bytes]:
        nursery.start_soon(self.hasher.run)
        await until(lambda: not len(self.hasher))
        await until(lambda: not open_below(self.root))
        nursery.cancel_scope.cancel()
        assert self.hasher.pending_bytes == 0
        assert all(request.is_done for request in self.requests)
        return self.results.order


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """On a quick source, however busy the machine is: files are hashed in order."""
    monkeypatch.setattr(hashing_module, "is_slow", lambda _: False)
    return Queue(tmp_path)


async def test_small_files_of_a_slow_source_are_hashed_many_at_a_time(
    queue: Queue, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, and those of another kind between them as well."""
    monkeypatch.setattr(hashing_module, "is_slow", lambda _: True)
    advance, lock = FileHasher.advance, threading.Lock()
    under_way: set[bytes] = set()
    most = 0
    together = threading.Event()

    def slow(self: FileHasher, limit: int) -> Checksums | None:
        nonlocal most
        with lock:
            under_way.add(self._path)
            most = max(most, len(under_way))
            if len(under_way) == FIRST:
                together.set()
        if self._state.size < 1000:
            assert together.wait(SECONDS)
        try:
            return advance(self, limit)
        finally:
            with lock:
                under_way.discard(self._path)

    monkeypatch.setattr(FileHasher, "advance", slow)
    for number in range(400):
        queue.add(f"{number}", 10 + number)
    for name in ("a", "b"):
        queue.add(name, BLOCK + 5, asked=name == "a")
    (queue.root / "7").write_bytes(b"other")  # so that it has another state
    (queue.root / "8").unlink()
    hashed = await queue.finish(nursery)
    assert sorted(hashed) == sorted({b"%d" % n for n in range(400)} - {b"7", b"8"} | {b"a", b"b"})
    assert len(hashed) == len(set(hashed))
    for name, checksums in queue.results.all:
        assert checksums == expected((queue.root / os.fsdecode(name)).read_bytes())
    assert FIRST <= most <= hashing_module._THREADS
    failed = [request.failures for request in queue.requests if request.failures]
    assert [[type(error) for _, error in failures] for failures in failed] == [[ChangedError]] * 2


async def test_a_long_list_of_a_slow_source_is_broken_off(
    queue: Queue, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2; and however short the time is, each job gets on."""
    monkeypatch.setattr(hashing_module, "is_slow", lambda _: True)
    monkeypatch.setattr(hashing_module, "_LONG", 0.0)
    for number in range(100):
        queue.add(f"{number:02}", 10)
    queue.results.then = lambda file: file.source == b"00" and queue.add("asked", 20, asked=True)
    hashed = await queue.finish(nursery)
    assert sorted(hashed) == sorted([*(b"%02d" % number for number in range(100)), b"asked"])
    assert hashed.index(b"asked") < 50


async def test_asked_for_first_then_the_smallest(queue: Queue, nursery: trio.Nursery) -> None:
    for name, size, asked in [
        ("c", 300, False),
        ("a", 100, False),
        ("y", 900, True),
        ("b", 200, False),
        ("x", 800, True),
        ("empty", 0, False),
    ]:
        queue.add(name, size, asked=asked)
    assert queue.hasher.pending_bytes == 2300
    assert await queue.finish(nursery) == [b"x", b"y", b"empty", b"a", b"b", b"c"]
    for result in queue.results.all:
        data = (queue.root / os.fsdecode(result.source)).read_bytes()
        assert result == (result.source, expected(data))


async def test_what_is_asked_for_later_moves_to_the_front(
    queue: Queue, nursery: trio.Nursery
) -> None:
    for number in range(5):
        queue.add(f"{number}", 100 + number)
    queue.add("4", 0, asked=True)
    queue.add("4", 0, asked=False)  # takes nothing back
    queue.add("4", 0, asked=True)
    assert len(queue.hasher) == 5
    assert await queue.finish(nursery) == [b"4", b"0", b"1", b"2", b"3"]


async def test_single_files_come_last(queue: Queue, nursery: trio.Nursery) -> None:
    """Unless an archive needs one of them, too."""
    files = {}
    for name, size in (("single", 100), ("both", 300), ("first", 200)):
        make_file(queue.root / name, content(size, name))
        files[name] = source_file(queue.root, name)
    for file in files.values():
        queue.hasher.request([file], rank=Rank.SINGLE)
    queue.add("member", 1000)
    queue.add("both", 300)
    queue.hasher.request([files["both"]], rank=Rank.SINGLE)  # takes nothing back
    assert await queue.finish(nursery) == [b"both", b"member", b"single", b"first"]


async def test_a_file_is_hashed_once_for_all_who_have_it(
    queue: Queue, nursery: trio.Nursery
) -> None:
    for _ in range(3):
        queue.add("file", 1000)
    assert await queue.finish(nursery) == [b"file"]


async def test_whoever_waits_for_many_hears_of_the_last(
    queue: Queue, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was refused is no reason to give up the others; one that fails is."""
    for number in range(6):
        make_file(queue.root / f"{number}", content(10 + number, "x"))
    files = [source_file(queue.root, f"{number}") for number in range(6)]
    (queue.root / "4").write_bytes(b"other")
    open_it = filehasher_module.open_path

    def refused(path: bytes, flags: int) -> int:
        if path.endswith(b"/0"):
            raise PermissionError(errno.EACCES, "no")
        return open_it(path, flags)

    monkeypatch.setattr(filehasher_module, "open_path", refused)
    monkeypatch.setattr(Folders, "open", lambda _, path, flags: refused(path, flags))
    left = queue.hasher.request([*files[:3], files[2]])
    failing = queue.hasher.request(files[3:])
    withdrawn = queue.hasher.request(files)
    queue.hasher.withdraw(withdrawn)
    seen: list[tuple[bool, bool]] = []
    queue.results.then = lambda _: seen.append((left.is_done, failing.is_done))
    await queue.finish(nursery)
    assert seen == [(False, False), (False, False), (True, False), (True, True)]
    assert [type(error) for _, error in left.failures] == [PermissionError]
    assert [(file.source, type(error)) for file, error in failing.failures] == [
        (b"4", ChangedError)
    ]
    assert not withdrawn.is_done


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Each slice hashed: the file's size, and where the slice began. Slices are small."""
    monkeypatch.setattr(hasher_module, "SLICE", BLOCK)
    monkeypatch.setattr(filehasher_module, "_WINDOW", BLOCK)
    seen: list[tuple[int, int]] = []
    advance = FileHasher.advance

    def watched(self: FileHasher, limit: int) -> Checksums | None:
        seen.append((self._state.size, self.offset))
        return advance(self, limit)

    monkeypatch.setattr(FileHasher, "advance", watched)
    return seen


async def test_a_small_file_overtakes_a_big_one_between_slices(
    queue: Queue,
    nursery: trio.Nursery,
    slices: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S2: whoever asks waits for a slice, not for a file. What was done isn't done again."""
    advance = FileHasher.advance
    token = trio.lowlevel.current_trio_token()

    def interrupted(self: FileHasher, limit: int) -> Checksums | None:
        done = advance(self, limit)
        if slices[-1] == (4 * BLOCK, BLOCK):
            added = threading.Event()

            def add() -> None:
                queue.add("asked", 2 * BLOCK, asked=True)
                queue.add("smaller", BLOCK)
                added.set()

            token.run_sync_soon(add)
            assert added.wait(SECONDS)
        return done

    monkeypatch.setattr(FileHasher, "advance", interrupted)
    queue.add("big", 4 * BLOCK)
    assert await queue.finish(nursery) == [b"asked", b"smaller", b"big"]
    assert slices == [
        (4 * BLOCK, 0),
        (4 * BLOCK, BLOCK),
        (2 * BLOCK, 0),
        (2 * BLOCK, BLOCK),
        (BLOCK, 0),
        (4 * BLOCK, 2 * BLOCK),
        (4 * BLOCK, 3 * BLOCK),
    ]
    big = (queue.root / "big").read_bytes()
    assert queue.results.all[-1].checksums == expected(big)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[list[bytes]]:
    """What the process is asked for: the names of the files, each time."""
    seen: list[list[bytes]] = []
    ask = Worker.ask

    async def watched(self: Worker, files: Files, *rest: Any) -> None:
        seen.append([file.source for _, _, file in files])
        await ask(self, files, *rest)

    monkeypatch.setattr(Worker, "ask", watched)
    return seen


async def test_small_files_are_handed_over_many_at_once(
    queue: Queue,
    nursery: trio.Nursery,
    requests: list[list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many as make a slice."""
    monkeypatch.setattr(hasher_module, "SLICE", 10 * BLOCK)
    monkeypatch.setattr(hasher_module, "_MANY", 100)
    monkeypatch.setattr(hashing_module, "_LONG", 60.0)
    for number in range(150):
        queue.add(f"{number:03}", 10)
    for name in ("a", "b", "c"):
        queue.add(name, 4 * BLOCK)
    queue.add("d", 11 * BLOCK)
    await queue.finish(nursery)
    small = [b"%03d" % number for number in range(150)]
    assert requests == [
        small[:100],
        [*small[100:], b"a", b"b"],
        [b"c"],
        [b"d"],
        [b"d"],
    ]
    assert [result.source for result in queue.results.all] == [*small, b"a", b"b", b"c", b"d"]


async def test_a_long_list_is_broken_off(
    queue: Queue,
    nursery: trio.Nursery,
    requests: list[list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S2: small files on a slow disk don't hold up one that somebody asks for."""
    monkeypatch.setattr(hashing_module, "_LONG", 0.0)
    for number in range(3):
        queue.add(f"{number}", 10)
    queue.results.then = lambda file: file.source == b"0" and queue.add("asked", 20, asked=True)
    assert await queue.finish(nursery) == [b"0", b"asked", b"1", b"2"]
    assert requests == [[b"0", b"1", b"2"], [b"asked", b"1", b"2"], [b"1", b"2"], [b"2"]]


async def test_a_file_that_fails_doesnt_hold_up_the_others(
    queue: Queue, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [queue.add(f"{number}", size) for number, size in enumerate((10, 20, 30, 40))]
    (queue.root / "0").unlink()
    (queue.root / "1").write_bytes(b"other")
    preadv = os.preadv

    def broken(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if os.fstat(descriptor).st_size == 30:
            raise OSError(errno.EIO, "Input/output error")
        return preadv(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", broken)
    assert await queue.finish(nursery) == [b"3"]
    assert [[type(error) for _, error in request.failures] for request in requests] == [
        [ChangedError],
        [ChangedError],
        [OSError],
        [],
    ]


async def test_the_unexpected_is_logged_and_the_rest_goes_on(
    queue: Queue,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """H4, for the hashing itself and for whoever hears of it."""
    advance = FileHasher.advance

    def odd(self: FileHasher, limit: int) -> Checksums | None:
        if self._state.size == 1:
            raise MemoryError
        return advance(self, limit)

    def then(file: SourceFile) -> None:
        if file.state.size == 2:
            raise LookupError

    monkeypatch.setattr(FileHasher, "advance", odd)
    queue.results.then = then
    requests = [queue.add(f"{size}", size) for size in (1, 2, 3)]
    assert await queue.finish(nursery) == [b"2", b"3"]
    assert [bool(line.exc_info) for line in caplog.records] == [True, True]
    assert [[type(error) for _, error in request.failures] for request in requests] == [
        [UnexpectedError],
        [LookupError],
        [],
    ]


async def test_what_is_queued_again_meanwhile_isnt_lost(
    queue: Queue, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Also not if whoever keeps the checksums does so, and fails right after it."""

    def then(file: SourceFile) -> None:
        if len(queue.results.all) == 1:
            queue.add("file", 0)
            raise LookupError

    queue.results.then = then
    queue.add("file", 10)
    assert await queue.finish(nursery) == [b"file", b"file"]
    assert len(caplog.records) == 1


async def test_it_sleeps_and_wakes(queue: Queue, nursery: trio.Nursery) -> None:
    nursery.start_soon(queue.hasher.run)
    for number in range(3):
        await trio.testing.wait_all_tasks_blocked()
        queue.add(f"{number}", 10)
        await until(lambda number=number: len(queue.results.all) == number + 1)  # type: ignore[misc]
    nursery.cancel_scope.cancel()


async def test_its_end_leaves_nothing_open(
    queue: Queue, slices: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the file that is being read nor one that was overtaken; nor does it wait."""
    advance = FileHasher.advance
    token = trio.lowlevel.current_trio_token()
    added, reading, go_on = threading.Event(), threading.Event(), threading.Event()

    def add() -> None:
        queue.add("read", 3 * BLOCK, asked=True)
        added.set()

    def slow(self: FileHasher, limit: int) -> Checksums | None:
        if self._state.size == 3 * BLOCK:
            reading.set()
            assert go_on.wait(SECONDS)
        done = advance(self, limit)
        token.run_sync_soon(add)
        assert added.wait(SECONDS)
        return done

    monkeypatch.setattr(FileHasher, "advance", slow)
    async with trio.open_nursery() as nursery:
        queue.add("overtaken", 4 * BLOCK)
        nursery.start_soon(queue.hasher.run)
        await until(reading.is_set)
        nursery.cancel_scope.cancel()
    assert len(open_below(queue.root)) == 1  # what was overtaken is closed until its turn
    go_on.set()
    await until(lambda: not open_below(queue.root))
    await until(lambda: not is_hashing())
    assert queue.results.all == []


@pytest.mark.parametrize("failing", [False, True])
def test_errors_on_closing_are_none(
    failing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that has died says so on close(2), too; the checksums are right."""
    file = tmp_path / "file"
    make_file(file, b"data")
    close = os.close

    def complaining(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    state = state_of(file)
    if failing:
        state = state._replace(size=3)
    monkeypatch.setattr(os, "close", complaining)
    if failing:
        with pytest.raises(ChangedError):
            hash_file(os.fsencode(file), state)
    else:
        assert hash_file(os.fsencode(file), state) == expected(b"data")
