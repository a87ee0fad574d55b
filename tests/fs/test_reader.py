"""Reading (DESIGN B3, R1 to R4, H4): a version's bytes or an error, out of few open files."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fs.conftest import sealed
from tests.fs.lab import FakeTime, open_below, source_file, until, watch_opening
from tests.support.libraries import Expected, content, expected, make_file, make_game
from tests.support.waiting import SECONDS, poll
from zipfs.catalog.nodes import File, file_node
from zipfs.errors import ChangedError
from zipfs.library import proven as proven_module
from zipfs.library.filestate import BLOCK
from zipfs.library.library import Library
from zipfs.library.scan import Entry
from zipfs.mount import fd_pool as pool_module
from zipfs.mount import reader as reader_module
from zipfs.mount.reader import PendingRead, Reader
from zipfs.mount.reading import buffers as buffers_module
from zipfs.mount.reading import opening as opening_module
from zipfs.mount.reading.buffers import BUFFER
from zipfs.mount.reading.content import Content
from zipfs.mount.reading.handle import Handle
from zipfs.mount.reading.opening import Opening
from zipfs.sealing.outcomes import Version
from zipfs.sealing.sealer import Sealer
from zipfs.system.process import Limits

GAME = b"roms/game"
LIMITS = Limits(files=400, threads=8, ahead=4, folders=8)


@pytest.fixture(params=[0, 4], ids=["as asked", "ahead"])
def reader(library: Path, sealer: Sealer, request: pytest.FixtureRequest) -> Iterator[Reader]:
    """One that reads what is asked for, and one that reads ahead as of a slow source."""
    absolute, blocks = sealer.library.absolute, sealer.index.blocks
    reader = Reader(absolute, blocks, LIMITS, parallel=request.param)
    yield reader
    poll("what is read ahead to end", lambda: not reader._fetcher._threads)
    # Whatever it still holds, it holds in its pool: nothing is lost on the way.
    assert sum(map(len, [open_below(library)])) == len(reader._pool)
    close_all(reader)


def version_of(sealer: Sealer, game: bytes = GAME) -> Version:
    _, version = sealed(sealer, game)
    assert version is not None
    return version


def file_of(library: Path, path: bytes) -> File:
    view = Library(str(library))
    entry = view.entry(path)
    assert isinstance(entry, Entry)
    return file_node(path, view.file(b"", entry), entry.status)


async def open_version(reader: Reader, version: Version) -> Handle:
    return await reader.open(version.sealed.inode, version)


async def read_range(reader: Reader, handle: Handle, offset: int, length: int) -> memoryview:
    """What the file system does: a read, finished if it isn't all there at once."""
    found = reader.read_now(handle, offset, length)
    return await found.finish() if isinstance(found, PendingRead) else found


async def read_all(reader: Reader, handle: Handle, piece: int = 128 << 10) -> bytes:
    offsets = range(0, handle.content.size, piece)
    return b"".join([bytes(await read_range(reader, handle, offset, piece)) for offset in offsets])


def member_range(version: Version, path: bytes, offset: int, length: int) -> tuple[int, int]:
    """Where in the archive a stretch of the member at *path* is."""
    number = [file.path for file in version.files].index(path)
    return version.layout.data_offset(number) + offset, length


class Calls:
    """Which way reads took."""

    def __init__(self, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
        self.in_thread = 0
        run = reader._in_thread

        async def counted(*arguments: object, **keywords: object) -> object:
            self.in_thread += 1
            return await run(*arguments, **keywords)  # type: ignore[arg-type]

        monkeypatch.setattr(reader, "_in_thread", counted)


@pytest.fixture
def calls(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(reader, monkeypatch)


# -- Without waiting, or in a thread -----------------------------------------------------

preadv = os.preadv


def answer(error: OSError) -> Callable[..., int]:
    """`os.preadv` where ``RWF_NOWAIT`` meets with *error*."""

    def read(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags & os.RWF_NOWAIT:
            raise error
        return preadv(descriptor, buffers, offset, flags)

    return read


def half(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
    if flags & os.RWF_NOWAIT:
        buffers = [buffers[0][: len(buffers[0]) // 2]]
    return preadv(descriptor, buffers, offset, flags)


def bit_by_bit(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
    return preadv(descriptor, [buffers[0][:977]], offset, flags)


NOWAIT: dict[str, Callable[..., int]] = {
    "cached": preadv,
    "not cached": answer(BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")),
    "not known": answer(OSError(errno.EOPNOTSUPP, "Operation not supported")),
    "invalid": answer(OSError(errno.EINVAL, "Invalid argument")),
    "half of it cached": half,
    "a little at a time": bit_by_bit,
}


AS_ASKED = pytest.mark.parametrize("reader", [0], indirect=True, ids=["as asked"])


@pytest.mark.parametrize("way", NOWAIT)
async def test_a_whole_archive(
    way: str,
    library: Path,
    sealer: Sealer,
    reader: Reader,
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {f"{number}": content(number * 7919, number) for number in range(20)}
    game = make_game(library, "roms/game", files | {"large": content(3 * BLOCK + 5)})
    version = version_of(sealer)
    handle = await open_version(reader, version)
    before = calls.in_thread
    monkeypatch.setattr(os, "preadv", NOWAIT[way])
    wanted = expected(game).read(0, version.size)
    for piece in (4096, 128 << 10, BUFFER, 2 * BUFFER + 1):
        assert await read_all(reader, handle, piece) == wanted
    if way == "cached":
        # All but those larger than the buffer; and not even them, where they were read ahead.
        assert calls.in_thread - before <= version.size // (2 * BUFFER + 1)
    else:
        assert calls.in_thread - before > version.size // BUFFER
    reader.release(handle)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(st.integers(0, 3), st.integers(0, 5000), st.just(BLOCK + 17)),
        min_size=2,
        max_size=8,
    ),
    st.lists(st.tuples(st.floats(0, 1.1), st.integers(0, 3 * BLOCK)), min_size=1, max_size=6),
    st.sampled_from(sorted(NOWAIT)),
    st.integers(1, 10),
)
def test_any_range_is_the_slice(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    ranges: list[tuple[float, int]],
    way: str,
    limit: int,
) -> None:
    """B3, with a pool of any size."""
    root = tmp_path_factory.mktemp("ranges")
    files = {f"{number:02}": content(size, number) for number, size in enumerate(sizes)}
    wanted = expected(make_game(root, "game", files))
    whole = wanted.read(0, wanted.size)
    version = _Planned(root, wanted)

    async def scenario() -> None:
        reader = Reader(lambda source: source, lambda digest: None, Limits(limit, 2))
        handle = await reader.open(7, version)
        for place, length in ranges:
            offset = int(place * wanted.size)
            view = await read_range(reader, handle, offset, length)
            assert view == whole[offset : offset + length]
        assert len(open_below(root)) <= limit
        reader.release(handle)
        await until(lambda: len(open_below(root)) == len(reader._pool))
        close_all(reader)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", NOWAIT[way])
        trio.run(scenario)


class _Planned:
    """A version of files anywhere, put together without a sealer."""

    def __init__(self, root: Path, wanted: Expected) -> None:
        self.files = [source_file(root, path) for path in wanted.files]
        self.digests = wanted.digests
        self.size = wanted.size
        self.plan = wanted.layout.plan
        self.locate = wanted.layout.locate


async def test_cached_data_need_no_thread(
    library: Path, sealer: Sealer, reader: Reader, calls: Calls
) -> None:
    make_game(library, "roms/game", {"1": content(BLOCK), "2": content(BLOCK)})
    version = version_of(sealer)
    handle = await open_version(reader, version)
    again = await open_version(reader, version)
    assert again is handle
    assert calls.in_thread == 1
    await read_all(reader, handle)
    assert calls.in_thread == 1


async def test_uncached_data_never_block_the_loop(
    library: Path, sealer: Sealer, reader: Reader, calls: Calls
) -> None:
    game = make_game(library, "roms/game", {"1": content(BLOCK), "2": content(BLOCK)})
    version = version_of(sealer)
    handle = await open_version(reader, version)
    for name in ("1", "2"):
        descriptor = os.open(game / name, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    before = calls.in_thread
    assert await read_all(reader, handle) == expected(game).read(0, version.size)
    if calls.in_thread == before:
        pytest.skip("this file system keeps everything in memory")


@AS_ASKED
async def test_what_is_cached_is_not_read_twice(
    library: Path, sealer: Sealer, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it is in the page cache: a thread reads the other half, and no more."""
    game = make_game(library, "roms/game", {"1": content(BLOCK), "2": content(BLOCK)})
    version = version_of(sealer)
    whole = expected(game).read(0, version.size)
    handle = await open_version(reader, version)
    read: list[tuple[int, int]] = []

    def counted(descriptor: int, views: list[memoryview], offset: int, flags: int = 0) -> int:
        count = half(descriptor, views, offset, flags)
        read.append((offset, count))
        return count

    monkeypatch.setattr(os, "preadv", counted)
    start, length = member_range(version, b"1", 1000, 4000)
    assert await read_range(reader, handle, start, length) == whole[start : start + length]
    assert read == [(1000, 2000), (3000, 2000)]
    # Across two members: what lies before the first gap isn't asked for again.
    read.clear()
    assert await read_range(reader, handle, 0, BUFFER) == whole[:BUFFER]
    asked = sorted(read)
    assert all(first[0] + first[1] <= then[0] for first, then in pairwise(asked))


@pytest.mark.parametrize("how", ["the first half", "the second half", "mode"])
async def test_a_change_between_two_halves(
    how: str, library: Path, sealer: Sealer, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R2: each half is the version's, however the file changes after the first."""
    game = make_game(library, "roms/game", {"1": content(4 * BLOCK), "2": b"2"})
    version = version_of(sealer)
    whole = expected(game).read(0, version.size)
    handle = await open_version(reader, version)
    start, length = member_range(version, b"1", 0, 4 * BLOCK)
    length = min(length, BUFFER)
    times = (game / "1").stat()

    def changing(descriptor: int, views: list[memoryview], offset: int, flags: int = 0) -> int:
        if not flags and offset:
            if how == "mode":
                (game / "1").chmod(0o640)
            else:
                with (game / "1").open("r+b") as file:
                    file.seek(0 if how == "the first half" else offset)
                    file.write(b"other bytes")
                os.utime(game / "1", ns=(times.st_atime_ns, times.st_mtime_ns))
        return half(descriptor, views, offset, flags)

    monkeypatch.setattr(os, "preadv", changing)
    if how == "the second half":
        with pytest.raises(ChangedError):
            await read_range(reader, handle, start, length)
    else:
        try:
            assert await read_range(reader, handle, start, length) == whole[start : start + length]
        except ChangedError:
            assert how == "the first half"  # if both are in one block


async def test_beyond_the_end(library: Path, sealer: Sealer, reader: Reader) -> None:
    make_game(library, "roms/game", {"1": b"", "2": b"22"})
    version = version_of(sealer)
    handle = await open_version(reader, version)
    for offset in (version.size, version.size + 1, 1 << 62):
        assert bytes(await read_range(reader, handle, offset, 4096)) == b""
    assert bytes(await read_range(reader, handle, 0, 0)) == b""
    assert len(await read_range(reader, handle, version.size - 1, 4096)) == 1


@pytest.mark.parametrize("way", ["cached", "not cached"])
async def test_what_a_read_gives_stays_right_until_it_is_sent(
    way: str, library: Path, sealer: Sealer, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buffers are reused; each is somebody's until he next gives way to another task."""
    game = make_game(library, "roms/game", {f"{n}": content(200_000, n) for n in range(10)})
    version = version_of(sealer)
    whole = expected(game).read(0, version.size)
    handle = await open_version(reader, version)
    monkeypatch.setattr(os, "preadv", NOWAIT[way])
    sent = 0

    async def client(seed: int) -> None:
        nonlocal sent
        chance = random.Random(seed)
        for _ in range(15):
            offset, length = chance.randrange(version.size), chance.randrange(BUFFER)
            view = await read_range(reader, handle, offset, length)
            assert view == whole[offset : offset + length]  # what pyfuse3 does: copy, at once
            sent += 1
            if chance.random() < 0.3:
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for seed in range(30):
            nursery.start_soon(client, seed)
    assert sent == 450
    assert len(reader._buffers) <= buffers_module._MOST


# -- Files that change under an open handle (R1, R2) --------------------------------------

DATA = content(5 * BLOCK + 4321, "member")
SMALL = content(70_000, "small")


def rename_over(file: Path) -> None:
    other = file.with_name("replacement")
    other.write_bytes(content(file.stat().st_size, "replacement"))
    other.rename(file)


def write(file: Path, offset: int, data: bytes, *, old_date: bool = True) -> None:
    before = file.stat()
    with open(file, "r+b") as stream:
        stream.seek(offset)
        stream.write(data)
    if old_date:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def empty_and_grow(file: Path) -> None:
    size = file.stat().st_size
    os.truncate(file, 0)
    os.truncate(file, size)


HARMLESS: dict[str, Callable[[Path], object]] = {
    "replaced": rename_over,
    "deleted": lambda file: file.unlink(),
    "renamed": lambda file: file.rename(file.with_name("renamed")),
    "linked": lambda file: os.link(file, file.with_name("linked")),
    "unreadable": lambda file: file.chmod(0),
    "written again, as it was": lambda file: write(file, 10, file.read_bytes()[10:20]),
}
HARMFUL: dict[str, Callable[[Path], object]] = {
    "cut off": lambda file: os.truncate(file, 100),
    "emptied": lambda file: os.truncate(file, 0),
    "grown": lambda file: os.truncate(file, file.stat().st_size + 1),
    "written to": lambda file: write(file, 0, b"other", old_date=False),
    "dated": lambda file: os.utime(file, ns=(0, 0)),
    "emptied and grown again": empty_and_grow,
}


@pytest.fixture(params=["small", "large"])
def member(request: pytest.FixtureRequest) -> bytes:
    """The content of one member: of one block, which its digest proves, or of several."""
    return {"small": SMALL, "large": DATA}[request.param]


@pytest.fixture(params=["cached", "not cached"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(os, "preadv", NOWAIT[request.param])
    return str(request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("change", HARMLESS)
async def test_a_member_whose_content_is_the_same_is_served(
    change: str, member: bytes, library: Path, sealer: Sealer, reader: Reader
) -> None:
    """R2: nothing in ``stat`` tells these from a rewrite; the checksums of the blocks do."""
    game = make_game(library, "roms/game", {"member": member, "other": b"other"})
    version = version_of(sealer)
    whole = expected(game).read(0, version.size)
    handle = await open_version(reader, version)
    HARMLESS[change](game / "member")
    assert await read_all(reader, handle) == whole
    assert await read_all(reader, handle, 3 * BLOCK // 2) == whole
    for offset, length in ((5, 10), (BLOCK - 3, 7), (len(member) - 5, 5)):
        if offset + length <= len(member):
            start, length = member_range(version, b"member", offset, length)  # noqa: PLW2901
            assert (
                bytes(await read_range(reader, handle, start, length))
                == whole[start : start + length]
            )


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("change", HARMFUL)
async def test_a_member_that_has_changed_is_an_error(
    change: str, member: bytes, library: Path, sealer: Sealer, reader: Reader
) -> None:
    """R1: never other bytes, padding, or fewer than asked for."""
    game = make_game(library, "roms/game", {"member": member, "other": b"other"})
    version = version_of(sealer)
    whole = expected(game).read(0, version.size)
    handle = await open_version(reader, version)
    HARMFUL[change](game / "member")
    for offset, length in ((0, 1), (0, 4096), (len(member) - 1, 1), (0, len(member))):
        start, _ = member_range(version, b"member", offset, length)
        with pytest.raises(ChangedError):
            await read_range(reader, handle, start, length)
    # The other members, and what is the archive's own, are as they were.
    start, length = member_range(version, b"other", 0, 5)
    assert bytes(await read_range(reader, handle, start, length)) == b"other"
    assert bytes(await read_range(reader, handle, start, 1 << 20)) == whole[start:]


@pytest.mark.usefixtures("way")
async def test_a_block_that_was_rewritten_with_its_old_date(
    library: Path, sealer: Sealer, reader: Reader
) -> None:
    """Each block is proven by itself: the wrong one is an error, the others are served."""
    game = make_game(library, "roms/game", {"member": DATA, "other": b"other"})
    version = version_of(sealer)
    handle = await open_version(reader, version)
    place = 2 * BLOCK + 777
    write(game / "member", place, bytes([DATA[place] ^ 1]))

    async def read(offset: int, length: int) -> bytes:
        start, _ = member_range(version, b"member", offset, length)
        return bytes(await read_range(reader, handle, start, length))

    for offset, length in [
        (0, 2 * BLOCK), (BLOCK - 1, 2), (2 * BLOCK - 1, 1), (3 * BLOCK, 1),
        (3 * BLOCK, 2 * BLOCK), (len(DATA) - 10, 10),
    ]:  # fmt: skip
        assert await read(offset, length) == DATA[offset : offset + length]
    for offset, length in [
        (2 * BLOCK, 1), (place, 1), (3 * BLOCK - 1, 1), (2 * BLOCK - 1, 2), (0, len(DATA)),
        (3 * BLOCK - 1, 2),
    ]:  # fmt: skip
        with pytest.raises(ChangedError):
            await read(offset, length)


@pytest.mark.usefixtures("way")
async def test_a_small_member_rewritten_with_its_old_date(
    library: Path, sealer: Sealer, reader: Reader
) -> None:
    game = make_game(library, "roms/game", {"member": SMALL, "other": b"other"})
    version = version_of(sealer)
    handle = await open_version(reader, version)
    write(game / "member", 69_999, bytes([SMALL[69_999] ^ 1]))
    with pytest.raises(ChangedError):
        await read_range(reader, handle, *member_range(version, b"member", 0, 1))


async def test_what_no_block_proves_is_an_error(library: Path, sealer: Sealer) -> None:
    """The index was lost, or has checksums of another length."""
    game = make_game(library, "roms/game", {"member": DATA, "small": SMALL})
    version = version_of(sealer)
    digest = version.digests[[file.path for file in version.files].index(b"member")]
    whole = sealer.index.blocks(digest)
    assert whole is not None
    (game / "member").chmod(0o600)
    (game / "small").chmod(0o600)
    for known in (None, b"", whole[:-8], whole + bytes(8), bytes(len(whole))):
        reader = Reader(sealer.library.absolute, dict.fromkeys([digest], known).get, LIMITS)
        handle = await open_version(reader, version)
        with pytest.raises(ChangedError):
            await read_range(reader, handle, *member_range(version, b"member", 0, 10))
        start, length = member_range(version, b"small", 5, 100)
        assert bytes(await read_range(reader, handle, start, length)) == SMALL[5:105]
        reader._pool.close_idle(0)
        close_all(reader)


@pytest.mark.parametrize("nowait", [True, False])
async def test_a_write_between_reading_and_checking(
    nowait: bool,
    library: Path,
    sealer: Sealer,
    reader: Reader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R2: the state is compared after the data were read."""
    game = make_game(library, "roms/game", {"member": SMALL, "other": b"other"})
    version = version_of(sealer)
    handle = await open_version(reader, version)

    def torn(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags and not nowait:
            raise BlockingIOError
        count = preadv(descriptor, buffers, offset, flags)
        write(game / "member", 0, b"other", old_date=False)
        return count

    monkeypatch.setattr(os, "preadv", torn)
    with pytest.raises(ChangedError):
        await read_range(reader, handle, *member_range(version, b"member", 0, 1000))


@pytest.mark.parametrize("change", [*HARMLESS, *HARMFUL])
async def test_a_member_that_had_changed_before_it_was_opened(
    change: str, library: Path, sealer: Sealer, reader: Reader
) -> None:
    game = make_game(library, "roms/game", {"member": DATA, "other": b"other"})
    version = version_of(sealer)
    whole = expected(game).read(0, version.size)
    (HARMLESS | HARMFUL)[change](game / "member")
    if change in ("linked", "unreadable", "written again, as it was"):
        handle = await open_version(reader, version)
        assert await read_all(reader, handle) == whole
    else:
        with pytest.raises(ChangedError):
            await open_version(reader, version)
        assert open_below(library) == []
        assert reader._handles == {}


async def test_after_a_chmod_the_same_archive_has_other_files(
    library: Path, sealer: Sealer, reader: Reader
) -> None:
    """One inode, two states of its files: each handle goes on with its own."""
    game = make_game(library, "roms/game", {"member": DATA, "other": b"other"})
    old = version_of(sealer)
    whole = expected(game).read(0, old.size)
    first = await open_version(reader, old)
    (game / "member").chmod(0o600)
    new = version_of(sealer)
    assert new.sealed.inode == old.sealed.inode
    second = await open_version(reader, new)
    assert second is not first
    assert await open_version(reader, new) is second
    assert await read_all(reader, first) == whole
    assert await read_all(reader, second) == whole
    reader.release(first)
    assert await read_all(reader, second) == whole


async def test_the_same_version_put_together_again_shares_its_handle(
    library: Path, sealer: Sealer, reader: Reader
) -> None:
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    first = await open_version(reader, version_of(sealer))
    again = version_of(sealer)
    assert await open_version(reader, again) is first
    assert first.content is again
    assert first.opened == 2


# -- Files that are passed through --------------------------------------------------------


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("change", ["deleted", "nothing"])
async def test_a_single_file_is_served(change: str, library: Path, reader: Reader) -> None:
    make_file(library / "roms/file", DATA)
    node = file_of(library, b"roms/file")
    handle = await reader.open(node.attributes.inode, node)
    if change in HARMLESS:
        HARMLESS[change](library / "roms/file")
    assert await read_all(reader, handle) == DATA
    assert bytes(await read_range(reader, handle, 100, 200)) == DATA[100:300]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("change", [*sorted(set(HARMLESS) - {"deleted", "replaced"}), *HARMFUL])
async def test_a_single_file_that_cant_be_proven_is_an_error(
    change: str, library: Path, reader: Reader
) -> None:
    """It has no checksums: whatever may have changed it, has."""
    make_file(library / "roms/file", DATA)
    node = file_of(library, b"roms/file")
    handle = await reader.open(node.attributes.inode, node)
    (HARMLESS | HARMFUL)[change](library / "roms/file")
    with pytest.raises(ChangedError):
        await read_range(reader, handle, 0, 1000)


@pytest.mark.parametrize("change", [*HARMLESS, *HARMFUL])
async def test_a_single_file_that_had_changed_before_it_was_opened(
    change: str, library: Path, reader: Reader
) -> None:
    """Told when it is opened, the kernel looks it up again; later it would be an error."""
    make_file(library / "roms/file", DATA)
    node = file_of(library, b"roms/file")
    (HARMLESS | HARMFUL)[change](library / "roms/file")
    with pytest.raises(ChangedError):
        await reader.open(node.attributes.inode, node)


async def test_a_path_that_became_something_else(library: Path, reader: Reader) -> None:
    make_file(library / "roms/file", b"data")
    node = file_of(library, b"roms/file")
    others: list[Callable[[Path], object]] = [
        os.mkfifo,
        os.mkdir,
        lambda path: path.symlink_to("other"),
    ]
    for make in others:
        (library / "roms/file").rename(library / "roms/other")
        make(library / "roms/file")
        with pytest.raises(ChangedError):
            await reader.open(node.attributes.inode, node)
        if (library / "roms/file").is_dir():
            (library / "roms/file").rmdir()
        else:
            (library / "roms/file").unlink()
        (library / "roms/other").rename(library / "roms/file")


# -- Errors of the source ------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT])
async def test_an_error_of_the_source_is_told(
    number: int,
    library: Path,
    sealer: Sealer,
    reader: Reader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    game = make_game(library, "roms/game", {"1": content(5000), "2": b"2"})
    version = version_of(sealer)
    handle = await open_version(reader, version)

    def broken(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", broken)
        with pytest.raises(OSError, match=r".") as caught:
            await read_all(reader, handle)
        assert caught.value.errno == number
    assert await read_all(reader, handle) == expected(game).read(0, version.size)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO])
async def test_an_error_on_opening_leaves_nothing_open(
    number: int,
    library: Path,
    sealer: Sealer,
    reader: Reader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_game(library, "roms/game", {f"{n}": b"x" for n in range(4)})
    version = version_of(sealer)
    opened = 0

    def third_fails(open_it: Callable[[], int], path: bytes) -> int:
        nonlocal opened
        opened += 1
        if opened == 3:
            raise OSError(number, os.strerror(number))
        return open_it()

    watch_opening(monkeypatch, third_fails)
    with pytest.raises(OSError, match=r".") as caught:
        await open_version(reader, version)
    assert caught.value.errno == number
    assert open_below(library) == []
    assert reader._pool._reserved == 0
    handle = await open_version(reader, version)
    assert len(open_below(library)) == 4
    reader.release(handle)


async def test_an_error_on_opening_leaves_no_garbage(
    library: Path, sealer: Sealer, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is looked for rarely; the error had been kept by what it went through."""
    make_game(library, "roms/game", {f"{n}": b"x" for n in range(4)})
    version = version_of(sealer)
    made: list[weakref.ref[Opening]] = []

    def watched(*arguments: Any, **keywords: Any) -> Opening:
        opening = Opening(*arguments, **keywords)
        made.append(weakref.ref(opening))
        return opening

    def fails(_open: Callable[[], int], _path: bytes) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(reader_module, "Opening", watched)
    watch_opening(monkeypatch, fails)
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(OSError):
            await open_version(reader, version)
        await until(lambda: made[0]() is None)
    finally:
        gc.enable()


async def test_an_error_between_the_files_of_one_read(
    library: Path, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files that are opened for this read alone, none stays open."""
    game = make_game(library, "roms/game", {f"{n}": b"x" * 100 for n in range(40)})
    version = version_of(sealer)
    reader = Reader(sealer.library.absolute, sealer.index.blocks, Limits(4, 2))
    handle = await open_version(reader, version)
    (game / "20").write_bytes(b"changed")
    with pytest.raises(ChangedError):
        await read_range(reader, handle, 0, version.size)
    # What had to go from the pool is closed in a thread of its own.
    await until(lambda: len(open_below(library)) == len(reader._pool))
    assert reader._pool._reserved == 0
    assert all(not file.users for file in reader._pool._files.values())


# -- Few open files (R4) -------------------------------------------------------------------


class Watch:
    """The most files that were open below *folder* at any time when one was opened."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = 0
        self.opened = 0

        def watched(open_it: Callable[[], int], path: bytes) -> int:
            descriptor = open_it()
            if path.startswith(os.fsencode(folder)):
                self.opened += 1
                self.most = max(self.most, len(open_below(folder)))
            return descriptor

        watch_opening(monkeypatch, watched)


@pytest.mark.parametrize(("files", "threads"), [(1, 1), (4, 2), (8, 4), (40, 8)])
async def test_open_files_are_bounded(
    files: int,
    threads: int,
    library: Path,
    sealer: Sealer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many archives of many members, opened and read by many at the same time."""
    versions = []
    wholes = []
    for number in range(6):
        members = {f"{n:02}": content(300 + n, f"{number}/{n}") for n in range(30)}
        game = make_game(library, f"roms/{number}", members)
        versions.append(version_of(sealer, b"roms/%d" % number))
        wholes.append(expected(game).read(0, versions[-1].size))
    watch = Watch(library, monkeypatch)
    reader = Reader(sealer.library.absolute, sealer.index.blocks, Limits(files, threads))

    async def client(seed: int) -> None:
        chance = random.Random(seed)
        number = seed % 6
        handle = await open_version(reader, versions[number])
        for _ in range(8):
            offset = chance.randrange(versions[number].size)
            length = chance.choice([1, 100, 2000, versions[number].size])
            view = await read_range(reader, handle, offset, length)
            assert view == wholes[number][offset : offset + length]
        reader.release(handle)

    async with trio.open_nursery() as nursery:
        for seed in range(48):
            nursery.start_soon(client, seed)
    assert watch.opened > files
    assert watch.most <= files + threads
    assert len(reader._pool) <= files
    await until(lambda: len(open_below(library)) == len(reader._pool))
    assert reader._pool._reserved == 0
    assert reader._pool._closing == 0
    assert all(not file.users for file in reader._pool._files.values())
    close_all(reader)
    assert not open_below(library)


async def test_one_archive_gets_its_share_and_no_more(library: Path, sealer: Sealer) -> None:
    """The largest members are held from the start: they are the ones that take long."""
    sizes = {f"{n:02}": bytes(n) for n in range(30)}
    make_game(library, "roms/game", sizes)
    version = version_of(sealer)
    reader = Reader(sealer.library.absolute, sealer.index.blocks, Limits(160, 2))
    await open_version(reader, version)
    names = [os.path.basename(path) for path in open_below(library)]
    assert names == [f"{n:02}" for n in range(20, 30)]
    close_all(reader)


def close_all(reader: Reader) -> None:
    keys = list(reader._pool._files)
    pool_module.close_all([reader._pool._files.pop(key).descriptor for key in keys])


async def test_the_next_read_probably_continues_in_the_last_file(
    library: Path, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_game(library, "roms/game", {f"{n:02}": content(50_000, n) for n in range(12)})
    version = version_of(sealer)
    watch = Watch(library, monkeypatch)
    reader = Reader(sealer.library.absolute, sealer.index.blocks, Limits(8, 2))
    handle = await open_version(reader, version)
    await read_all(reader, handle, 4096)
    assert watch.opened <= 12 + 2  # those evicted in between
    close_all(reader)


# -- Closing ---------------------------------------------------------------------------------


@pytest.fixture
async def tidy(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reader]:
    """The reader with its cleaning at work, and quicker than usual."""
    monkeypatch.setattr(reader_module, "LINGER", 0.1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.tidy)
        yield reader
        nursery.cancel_scope.cancel()


async def test_buffers_of_many_reads_at_a_time_are_given_up_after_them(
    library: Path, sealer: Sealer, tidy: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the daemon's memory is that of its busiest moment, for ever."""
    make_game(library, "roms/game", {"1": content(BUFFER), "2": content(BUFFER)})
    handle = await open_version(tidy, version_of(sealer))
    monkeypatch.setattr(os, "preadv", NOWAIT["not cached"])
    pending = [tidy.read_now(handle, 0, BUFFER) for _ in range(8)]
    for read in pending:
        assert isinstance(read, PendingRead)
        await read.finish()
    assert len(tidy._buffers) > 1
    await until(lambda: len(tidy._buffers) == 0)


async def test_proven_blocks_are_given_up_once_they_have_to_be_read_again(
    library: Path, sealer: Sealer, tidy: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proven_module, "LIFETIME", 1.0)
    game = make_game(library, "roms/game", {"member": DATA, "other": b"other"})
    version = version_of(sealer)
    handle = await open_version(tidy, version)
    (game / "member").chmod(0o600)
    assert await read_all(tidy, handle) == expected(game).read(0, version.size)
    assert len(tidy._proven) > 0
    await until(lambda: len(tidy._proven) == 0)


async def test_files_stay_open_for_a_moment(
    library: Path, sealer: Sealer, tidy: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web server opens and closes an archive for each request."""
    game = make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    version = version_of(sealer)
    watch = Watch(library, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(reader_module, "LINGER", 5.0)  # longer than the machine is busy elsewhere
        for _ in range(20):
            handle = await open_version(tidy, version)
            tidy.release(handle)
    assert watch.opened == 2
    handle = await open_version(tidy, version)
    (game / "1").unlink()
    await trio.sleep(0.3)
    assert len(open_below(library)) == 2  # as long as somebody has it open
    assert tidy.open_files == 2
    tidy.release(handle)
    await until(lambda: not open_below(library))
    assert tidy._handles == {}
    assert tidy._lingering == {}


async def test_what_took_long_to_open_stays_open_longer(
    library: Path, sealer: Sealer, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a share is asked to open a thousand files for each request."""
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    version = version_of(sealer)
    open_them = opening_module.open_files

    def slow(*arguments: Any, **keywords: Any) -> object:
        clock.ahead += takes.pop() if takes else 0.0  # the first file takes so long
        return open_them(*arguments, **keywords)

    clock = FakeTime()
    clock.frozen = 0.0
    monkeypatch.setattr(reader_module, "time", clock)
    monkeypatch.setattr(opening_module, "open_files", slow)
    takes: list[float] = []
    for seconds, linger in [(0.001, 1.0), (0.5, 2.5), (100.0, 5.0)]:
        takes.append(seconds)
        handle = await open_version(reader, version)
        assert handle.linger == pytest.approx(linger)
        del reader._handles[handle.node]
        close_all(reader)


async def test_closing_that_fails_ends_nothing(
    library: Path, sealer: Sealer, tidy: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H4: a source on FUSE that has died answers close(2) with an error."""
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    version = version_of(sealer)
    close = os.close

    def complaining(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", complaining)
        tidy.release(await open_version(tidy, version))
        await until(lambda: not tidy._pool._files)
        await until(lambda: not tidy._pool._closing)
    handle = await open_version(tidy, version)
    assert bytes(await read_range(tidy, handle, 0, 4)) == b"PK\x03\x04"
    tidy.release(handle)
    await until(lambda: not open_below(library))


async def test_closing_that_hangs_delays_nobody(
    library: Path, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3: it is never waited for, neither by the loop nor by a reader."""
    for name in ("dead", "good"):
        make_game(library, f"roms/{name}", {f"{n:02}": content(500, n) for n in range(30)})
    dead, good = version_of(sealer, b"roms/dead"), version_of(sealer, b"roms/good")
    whole = expected(library / "roms/good").read(0, good.size)
    reader = Reader(sealer.library.absolute, sealer.index.blocks, Limits(16, 4))
    go_on = threading.Event()
    close = os.close

    def hanging(descriptor: int) -> None:
        if "/dead/" in os.readlink(f"/proc/self/fd/{descriptor}"):
            assert go_on.wait(SECONDS)
        close(descriptor)

    for offset in range(0, dead.size, 600):
        handle = await open_version(reader, dead)
        await read_range(reader, handle, offset, 600)
    monkeypatch.setattr(os, "close", hanging)
    for _ in range(3):
        handle = await open_version(reader, good)
        assert await read_all(reader, handle, 600) == whole
    assert len(open_below(library)) <= 16
    go_on.set()
    await until(lambda: not reader._pool._closing)
    close_all(reader)
    assert not open_below(library)


async def test_two_who_open_it_at_the_same_time(
    library: Path, sealer: Sealer, tidy: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_game(library, "roms/game", {"1": b"1", "2": b"2"})
    version = version_of(sealer)
    handles: list[Handle] = []

    async def client() -> None:
        handles.append(await open_version(tidy, version))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(client)
    assert len(set(handles)) == 1
    assert handles[0].opened == 10
    await until(lambda: len(open_below(library)) == 2)
    for handle in handles:
        tidy.release(handle)
    await until(lambda: not open_below(library))


# -- Slow sources, and who gives up ----------------------------------------------------------


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Reads of files named ``stuck`` wait for this."""
    go_on = threading.Event()

    def wait(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/stuck"):
            if flags:
                raise BlockingIOError
            assert go_on.wait(SECONDS)
        return preadv(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", wait)
    return go_on


async def test_a_stuck_source_delays_its_own_readers_only(
    library: Path, sealer: Sealer, reader: Reader, stuck: threading.Event
) -> None:
    """R3."""
    stuck.set()
    make_game(library, "roms/game", {"stuck": SMALL, "good": SMALL})
    version = version_of(sealer)
    stuck.clear()
    handle = await open_version(reader, version)
    done = []

    async def read_stuck() -> None:
        view = await read_range(reader, handle, *member_range(version, b"stuck", 0, 1000))
        done.append(bytes(view))

    async with trio.open_nursery() as nursery:
        for _ in range(LIMITS.threads - 1):
            nursery.start_soon(read_stuck)
        await trio.testing.wait_all_tasks_blocked()
        for offset in range(0, 60_000, 1000):
            start, length = member_range(version, b"good", offset, 1000)
            assert (
                bytes(await read_range(reader, handle, start, length))
                == SMALL[offset : offset + 1000]
            )
        assert done == []
        stuck.set()
    assert done == [SMALL[:1000]] * (LIMITS.threads - 1)


async def test_a_read_that_is_given_up(
    library: Path, sealer: Sealer, reader: Reader, stuck: threading.Event
) -> None:
    """Its thread goes on by itself; what it writes into is nobody else's buffer."""
    stuck.set()
    make_game(library, "roms/game", {"stuck": SMALL, "good": SMALL[::-1]})
    version = version_of(sealer)
    stuck.clear()
    handle = await open_version(reader, version)
    for _ in range(3 * LIMITS.threads):
        with trio.move_on_after(0) as scope:
            await read_range(reader, handle, *member_range(version, b"stuck", 0, 1000))
        assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        for _ in range(LIMITS.threads // 2):
            nursery.start_soon(
                read_range, reader, handle, *member_range(version, b"stuck", 0, 1000)
            )
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(reader._buffers) == 0
    stuck.set()
    # What was lent to the threads is given back when they have ended.
    await until(lambda: all(not file.users for file in reader._pool._files.values()))
    assert reader._pool._reserved == 0
    start, length = member_range(version, b"good", 0, 1000)
    assert bytes(await read_range(reader, handle, start, length)) == SMALL[::-1][:1000]
    reader.release(handle)


def test_contents_are_what_the_reader_takes() -> None:
    """Both kinds fit the protocol; mypy checks it here."""
    kinds: list[type[Content]] = [Version, File]
    assert len(kinds) == 2
