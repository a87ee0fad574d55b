"""What these tests share: looking at our own descriptors, users without rights, small disks."""

from __future__ import annotations

import ctypes
import ctypes.util
import mmap
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import trio

from tests.support.waiting import SECONDS, poll
from zipfs.library import files
from zipfs.library.filestate import FileState
from zipfs.library.scan import SourceFile
from zipfs.system.folders import Folders

NOBODY: Final = 65534
"""A user who owns nothing here."""
DAY_NS: Final = 86_400_000_000_000

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, or change users")


class FakeTime:
    """Stands for the module ``time`` in a module of ours, with clocks that can be moved."""

    def __init__(self) -> None:
        self.ahead_ns = 0
        """How far the wall clock is ahead of the real one."""
        self.ahead = 0.0
        """How far the monotonic clock is."""
        self.frozen: float | None = None
        """What the monotonic clock shows if it doesn't go by itself, without *ahead*."""

    def time_ns(self) -> int:
        return time.time_ns() + self.ahead_ns

    def monotonic(self) -> float:
        return (time.monotonic() if self.frozen is None else self.frozen) + self.ahead


class Progress:
    """What a progress bar would show, in bytes."""

    def __init__(self) -> None:
        self.size = 0
        self.done = 0

    def total(self, size: int) -> None:
        self.size = size

    def advance(self, size: int) -> None:
        self.done += size


@contextmanager
def unprivileged(user: int = NOBODY) -> Iterator[None]:
    """As a user who isn't root; as we are, if we are none."""
    if os.geteuid() != 0:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A file system of *size* on *folder*; call what it gives to change the size."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)

    def resize(size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def in_memory() -> Iterator[str]:
    """A temporary folder in memory: SQLite waits for a disk, and other tests keep that busy."""
    memory = "/dev/shm"  # noqa: S108 - a new folder in it
    with tempfile.TemporaryDirectory(dir=memory if os.path.isdir(memory) else None) as folder:
        yield folder


def open_below(folder: Path | bytes) -> list[str]:
    """The files that this process has open below *folder*, each descriptor's path."""
    return _open_below(folder, folders=False)


def folders_below(folder: Path | bytes) -> list[str]:
    """The same of folders."""
    return _open_below(folder, folders=True)


def _open_below(folder: Path | bytes, *, folders: bool) -> list[str]:
    prefix = os.fsdecode(folder) + "/"
    found = []
    for number in os.listdir("/proc/self/fd"):
        descriptor = f"/proc/self/fd/{number}"
        try:
            path = os.readlink(descriptor)
            if path.startswith(prefix) and stat.S_ISDIR(os.stat(descriptor).st_mode) == folders:
                found.append(path)
        except FileNotFoundError:
            continue  # closed meanwhile, or the one that lists them
    return sorted(found)


def watch_opening(
    monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Callable[[], int], bytes], int]
) -> None:
    """Have files that are read opened by *wrap*, which gets what opens one, and its path."""
    open_it, open_in = files.open_path, Folders.open

    def opened(path: bytes, flags: int) -> int:
        return wrap(lambda: open_it(path, flags), path)

    def opened_in(folders: Folders, path: bytes, flags: int) -> int:
        return wrap(lambda: open_in(folders, path, flags), path)

    monkeypatch.setattr(files, "open_path", opened)
    monkeypatch.setattr(Folders, "open", opened_in)
    monkeypatch.setattr(Folders, "open_at_once", lambda *_: None)


def source_file(root: Path, source: str | bytes) -> SourceFile:
    """The file at *source* in the library *root*, in the state that it is in."""
    name = os.fsencode(source)
    status = os.stat(os.path.join(os.fsencode(root), name))
    return SourceFile(os.path.basename(name), name, FileState.of(status))


async def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Give way to threads and other tasks until *condition* holds; only a defect takes long.

    By the real time: trio's clock can be one that stands still.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for hasn't come"
        await trio.to_thread.run_sync(time.sleep, 0.002)


def wait_for(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """The same where no loop runs."""
    poll("a condition", condition, seconds)


def cached_pages(path: Path) -> list[bool]:
    """Which pages of a file are in the page cache: mincore(2)."""
    size = path.stat().st_size
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    ]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    descriptor = os.open(path, os.O_RDONLY)
    try:
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        assert address != ctypes.c_void_p(-1).value
        pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
        failed = libc.mincore(address, size, pages)
        libc.munmap(address, size)
        assert not failed, os.strerror(ctypes.get_errno())
        return [bool(page & 1) for page in pages.raw[: -(-size // mmap.PAGESIZE)]]
    finally:
        os.close(descriptor)
