"""Files read from the disk, whatever the page cache has, and the cache left as it was."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tests.fs.lab import cached_pages, open_below, root_only
from tests.support.disks import Disk, disk
from tests.support.libraries import content, make_file
from zipfs.errors import ChangedError
from zipfs.library.filestate import FileState
from zipfs.ops.verify import diskfile
from zipfs.ops.verify.diskfile import SPAN, DiskFile

SIZE = 3 * SPAN + 4321
DATA = content(SIZE, "on disk")


@contextmanager
def kept_pages(path: bytes) -> Iterator[None]:
    """Meanwhile the pages of a file stay in the page cache."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == DATA
        yield


@pytest.fixture
def ours(place: Path) -> Iterator[Disk]:
    with disk(place) as made:
        yield made


@pytest.fixture(params=[True, False], ids=["direct", "advised"])
def direct(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether ``O_DIRECT`` is there."""
    if not request.param:
        monkeypatch.setattr(diskfile, "_DIRECT", 0)
    return bool(request.param)


def path_of(folder: Path) -> bytes:
    return os.fsencode(folder / "file")


def state_of(path: bytes) -> FileState:
    return FileState.of(os.stat(path))


def read_all(path: bytes, state: FileState) -> bytes:
    with DiskFile(path, state) as file:
        data = b"".join(
            bytes(file.read(offset, min(SPAN, state.size - offset)))
            for offset in range(0, state.size, SPAN)
        )
        file.check()
    return data


@root_only
def test_rot_beneath_a_warm_cache_is_seen(ours: Disk, direct: bool) -> None:
    """The cache goes on giving the old bytes, and isn't lost by being looked behind."""
    path = path_of(ours.folder)
    make_file(path, DATA)
    os.sync()
    state = state_of(path)
    assert Path(os.fsdecode(path)).read_bytes() == DATA
    # Others on this machine may have the kernel drop what nobody has mapped.
    with kept_pages(path) if direct else nullcontext():
        _check_rot(ours, path, state, direct=direct)


def _check_rot(ours: Disk, path: bytes, state: FileState, *, direct: bool) -> None:
    ours.flip(DATA[SPAN + 5000 : SPAN + 5100], 7)
    if direct:  # before the cache is told to forget
        assert Path(os.fsdecode(path)).read_bytes() == DATA
    pages = cached_pages(Path(os.fsdecode(path)))
    assert sum(pages) >= len(pages) - 1
    found = read_all(path, state)
    wrong = [offset for offset in range(SIZE) if found[offset] != DATA[offset]]
    assert wrong == [SPAN + 5007]
    assert state_of(path) == state
    if direct:
        assert cached_pages(Path(os.fsdecode(path))) == pages
        assert Path(os.fsdecode(path)).read_bytes() == DATA


@root_only
def test_the_cache_is_left_as_it_was(ours: Disk, direct: bool) -> None:
    """What others had there is there afterwards, what they hadn't isn't."""
    path = path_of(ours.folder)
    make_file(path, DATA)
    os.sync()
    file = Path(os.fsdecode(path))
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    assert not any(cached_pages(file))
    assert read_all(path, state_of(path)) == DATA
    # Of what was asked about in order to know, a page each.
    assert sum(cached_pages(file)) <= 8
    assert file.read_bytes() == DATA
    assert read_all(path, state_of(path)) == DATA
    pages = cached_pages(file)
    assert sum(pages) >= len(pages) - 8


def test_any_size_in_any_pieces(direct: bool, place: Path) -> None:
    for size in (0, 1, 511, 4096, 4097, SPAN - 1, SPAN, SPAN + 1):
        path = path_of(place)
        make_file(path, DATA[:size])
        assert read_all(path, state_of(path)) == DATA[:size], size
        with DiskFile(path, state_of(path)) as file:
            for offset in range(0, size, 1 << 20):
                length = min(1 << 20, size - offset)
                for again in (True, False, True):
                    piece = file.read(offset, length, again=again)
                    assert piece == DATA[offset : offset + length]
    assert open_below(place) == []


def test_a_file_that_changes_is_none_of_ours(direct: bool, place: Path) -> None:
    path = path_of(place)
    with pytest.raises(FileNotFoundError):
        DiskFile(path, FileState(1, 2, 3, 4))
    make_file(path, DATA)
    state = state_of(path)
    with pytest.raises(FileNotFoundError):
        DiskFile(path + b"/in it", state)
    with pytest.raises(ChangedError):
        DiskFile(path, state._replace(mtime_ns=1))
    with DiskFile(path, state) as file:
        os.truncate(path, SPAN + 100)
        with pytest.raises(ChangedError):
            file.read(SPAN, SPAN)
        with pytest.raises(ChangedError):
            file.check()
    os.rename(path, path + b"2")
    os.symlink(path + b"2", path)
    with pytest.raises(ChangedError):
        DiskFile(path, state_of(path))
    assert open_below(place) == []


def test_a_file_system_that_has_no_direct_reads(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some say so by the open, some by the first read."""
    path = path_of(place)
    make_file(path, DATA)
    state = state_of(path)
    real = os.preadv

    def refuse(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        import fcntl  # noqa: PLC0415

        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT and offset >= SPAN:
            raise OSError(22, "Invalid argument")
        return real(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", refuse)
    assert read_all(path, state) == DATA
    monkeypatch.undo()
    opened = diskfile.open_path

    def refuse_open(path: bytes, flags: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return opened(path, flags)

    monkeypatch.setattr(diskfile, "open_path", refuse_open)
    assert read_all(path, state) == DATA
