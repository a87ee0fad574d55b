"""What stands for system calls that a platform lacks does the same."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.libraries import content
from zipfs.system import paths, syscalls
from zipfs.system.paths import entries, is_link, is_within, slashed
from zipfs.system.syscalls import READ_FILE, is_cached, pread, uncache

DATA = content(300_000)


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(DATA)
    descriptor = os.open(tmp_path / "file", READ_FILE)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(params=[(), ("preadv",), ("preadv", "pread")], ids=["preadv", "pread", "read"])
def _lacking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in request.param:
        monkeypatch.delattr(os, name)


@pytest.mark.usefixtures("_lacking")
def test_pread(descriptor: int) -> None:
    for offset, length in [(0, 10), (1000, 200_000), (len(DATA) - 5, 100), (len(DATA), 1), (7, 0)]:
        buffer = bytearray(length)
        count = pread(descriptor, memoryview(buffer), offset)
        assert buffer[:count] == DATA[offset : offset + length]
        assert count == min(length, len(DATA) - offset)


@pytest.mark.usefixtures("_lacking")
def test_threads_share_a_descriptor(descriptor: int) -> None:
    def read(seed: int) -> None:
        buffer = bytearray(1000)
        for step in range(300):
            offset = (seed * 91_193 + step * 1009) % (len(DATA) - 1000)
            assert pread(descriptor, memoryview(buffer), offset) == 1000
            assert buffer == DATA[offset : offset + 1000]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))


def test_where_the_page_cache_cant_be_asked(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "RWF_NOWAIT")
    monkeypatch.delattr(os, "posix_fadvise")
    assert not is_cached(descriptor, 0)
    uncache(descriptor, 0, 1000)


@pytest.mark.parametrize("by_descriptor", [True, False])
def test_entries(by_descriptor: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert syscalls.LISTS_DESCRIPTORS  # on Linux, where these tests run
    monkeypatch.setattr(paths, "LISTS_DESCRIPTORS", by_descriptor)
    folder = os.fsencode(tmp_path)
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").mkdir()
    (tmp_path / "c").symlink_to("b")
    found, status = entries(folder)
    assert sorted(found) == [(name, os.lstat(folder + b"/" + name)) for name in (b"a", b"b", b"c")]
    assert status == os.lstat(folder)
    for wrong, error in [
        (b"/a", NotADirectoryError),
        (b"/c", NotADirectoryError),
        (b"/d", FileNotFoundError),
    ]:
        with pytest.raises(error):
            entries(folder + wrong)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The flags of each openat2(2)."""
    found: list[int] = []
    real = syscalls.openat2
    assert real

    def counted(folder: int, path: bytes, flags: int) -> int:
        found.append(flags)
        return real(folder, path, flags)

    monkeypatch.setattr(syscalls, "openat2", counted)
    return found


@pytest.mark.parametrize("more", [0, os.O_DIRECT])
def test_reading_leaves_access_times_alone(more: int, opened: list[int], tmp_path: Path) -> None:
    """Whatever else was asked for stays."""
    (tmp_path / "file").write_bytes(b"1")
    wanted = READ_FILE | more
    descriptor = paths.open_path(os.fsencode(tmp_path / "file"), wanted)
    try:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    finally:
        os.close(descriptor)
    assert (
        flags & (os.O_NOATIME | os.O_NONBLOCK | os.O_DIRECT) == os.O_NOATIME | os.O_NONBLOCK | more
    )
    assert opened == [wanted]


def test_a_refusal_costs_no_call_to_the_source(
    opened: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """open(2): only to the owner, and to CAP_FOWNER, are access times their own."""

    def refuses(descriptor: int, command: int, flags: int) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(fcntl, "fcntl", refuses)
    (tmp_path / "file").write_bytes(b"1")
    descriptor = paths.open_path(os.fsencode(tmp_path / "file"), READ_FILE)
    assert os.read(descriptor, 2) == b"1"
    os.close(descriptor)
    assert opened == [READ_FILE]


def test_long_paths_are_left_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc to go on from."""
    monkeypatch.setattr(paths, "ENTER_FOLDER", 0)
    monkeypatch.setattr(paths, "LOOK_AT", 0)
    with pytest.raises(OSError, match="File name too long"):
        paths.lstat(b"/tmp" + b"/x" * paths.PATH_MAX)


def test_an_entry_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "LISTS_DESCRIPTORS", False)
    (tmp_path / "there").write_bytes(b"1")
    monkeypatch.setattr(os, "listdir", lambda path: [b"gone", b"there"])
    found, _ = entries(os.fsencode(tmp_path))
    assert [name for name, _ in found] == [b"there"]


class OldLinux:
    """A C library whose kernel hasn't got openat2(2)."""

    def __init__(self, name: None, *, use_errno: bool) -> None:
        assert use_errno

    @staticmethod
    def syscall(*arguments: object) -> int:
        ctypes.set_errno(errno.ENOSYS)
        return -1


def test_where_the_kernel_has_no_openat2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", OldLinux)
    assert syscalls._openat2() is None


@pytest.mark.parametrize(("platform", "machine"), [("darwin", "arm64"), ("linux", "alpha")])
def test_openat2_is_asked_for_where_its_number_is_that(
    platform: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    assert syscalls._openat2() is None


def test_junctions(monkeypatch: pytest.MonkeyPatch) -> None:
    """https://learn.microsoft.com/windows/win32/fileio/reparse-point-tags"""
    mount_point = 0xA0000003
    folder = SimpleNamespace(st_mode=stat.S_IFDIR, st_reparse_tag=0)
    junction = SimpleNamespace(st_mode=stat.S_IFDIR, st_reparse_tag=mount_point)
    monkeypatch.setattr(paths, "_JUNCTION", mount_point)
    assert is_link(junction)  # type: ignore[arg-type]
    assert not is_link(folder)  # type: ignore[arg-type]


def test_separators(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slashed(b"a\\b/c") == b"a\\b/c"
    monkeypatch.setattr(os, "sep", "\\")
    assert slashed(b"C:\\a\\b") == b"C:/a/b"


def test_within() -> None:
    for path, folder, wanted in [
        (b"/a/b", b"/a", True), (b"/a", b"/a", True), (b"/ab", b"/a", False),
        (b"/a", b"/", True), (b"/", b"/a", False), (b"C:/a", b"C:/", True),
        (b"D:/a", b"C:/", False),
    ]:  # fmt: skip
        assert is_within(path, folder) == wanted
