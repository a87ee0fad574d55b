"""System calls that no web server makes, on a real mount (DESIGN H1, H4).

Those that would change something are refused, and the others answer rightly or say that they
can't. Nothing hangs, the mount lives on, and its log has no traceback.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.libraries import content, expected_archive, make_file, make_game, tree
from tests.support.mounting import Mounted, Mounts
from zipfs.library.filestate import BLOCK

ARCHIVE, SINGLE = "roms/psx/Game.zip", "roms/gb/Game.gb"
MANY: Final = 3000

libc: Final = ctypes.CDLL(None, use_errno=True)
libc.telldir.restype = ctypes.c_long
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.c_void_p

REFUSED: Final = {errno.EROFS, errno.EPERM, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES}
"""What a call that would change something may end in; EBADF, since nothing is open to write."""
NOT_HERE: Final = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENODEV, errno.ENOSYS}
"""What one may end in that a file system needn't know."""


def called(name: str, *arguments: Any) -> int:
    """A function of the C library. Raises :exc:`OSError`."""
    result: int = getattr(libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@pytest.fixture
def mounted(library: Path, mount: Mounts) -> Iterator[Mounted]:
    make_game(library, "roms/psx/Game", {"a": content(3 * BLOCK + 7), "b/c": content(20_000, 1)})
    make_file(library / SINGLE, content(5000, 2))
    before = tree(library)
    mounted = mount(library)
    mounted.wait_archive("roms/psx/Game")
    yield mounted
    archive = expected_archive(library / "roms/psx/Game")
    assert (mounted.path / ARCHIVE).read_bytes() == archive
    assert sorted(path.name for path in (mounted.path / "roms").iterdir()) == ["gb", "psx"]
    assert tree(library) == before


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# -- Changes -------------------------------------------------------------------------

_Change = Callable[[Path, int], object]

CHANGES: Final[dict[str, _Change]] = {
    "a file": lambda path, _: os.open(path.parent / "x", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
    "a file without a name": lambda path, _: os.open(path.parent, os.O_TMPFILE | os.O_WRONLY),
    "a device": lambda path, _: os.mknod(path.parent / "x", 0o20666, os.makedev(1, 3)),
    "a FIFO": lambda path, _: os.mkfifo(path.parent / "x"),
    "a socket": lambda path, _: _bind(path.parent / "x"),
    "a folder": lambda path, _: os.mkdir(path.parent / "x"),
    "a link": lambda path, fd: called(
        "linkat", -100, b"/proc/self/fd/%d" % fd, -100, bytes(path.parent / "x"), 0x400
    ),
    "a swap": lambda path, _: called("renameat2", -100, bytes(path), -100, bytes(path.parent), 2),
    "a whiteout": lambda path, _: called(
        "renameat2", -100, bytes(path), -100, bytes(path.parent / "x"), 4
    ),
    "room": lambda _, fd: called("fallocate", fd, 0, ctypes.c_long(0), ctypes.c_long(1 << 20)),
    "a hole": lambda _, fd: called("fallocate", fd, 3, ctypes.c_long(0), ctypes.c_long(4096)),
    "size": lambda _, fd: os.ftruncate(fd, 1),
    "bytes": lambda _, fd: os.pwrite(fd, b"x", 0),
    "bytes from elsewhere": lambda _, fd: _copy_into(fd),
    "times": lambda _, fd: os.utime(fd, ns=(0, 0)),
    "mode": lambda _, fd: os.fchmod(fd, 0o666),
    "owner": lambda _, fd: os.fchown(fd, 1, 1),
    "an attribute": lambda path, _: os.setxattr(path, "user.x", b"x"),
    "an attribute's end": lambda path, _: os.removexattr(path, "user.x"),
    "an access control list": lambda path, _: os.setxattr(
        path, "system.posix_acl_access", struct.pack("<I", 2)
    ),
    "flags": lambda _, fd: fcntl.ioctl(fd, 0x40086602, struct.pack("L", 0x10)),  # FS_IOC_SETFLAGS
    "a clone": lambda path, fd: _clone(path, into=fd),
    "a mapping": lambda _, fd: mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE),
}


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _copy_into(descriptor: int) -> None:
    with open(__file__, "rb") as source:
        os.copy_file_range(source.fileno(), descriptor, 100)


def _clone(path: Path, *, into: int) -> None:
    with opened(path) as source:
        fcntl.ioctl(into, 0x40049409, source)  # FICLONE


@pytest.mark.parametrize("shown", [ARCHIVE, SINGLE])
def test_nothing_is_changed(shown: str, mounted: Mounted) -> None:
    path = mounted.path / shown
    with opened(path) as descriptor:
        for name, change in CHANGES.items():
            with pytest.raises(OSError, match=r".") as caught:
                change(path, descriptor)
            assert caught.value.errno in REFUSED | NOT_HERE, f"{name}: {caught.value}"
    assert not (path.parent / "x").exists()


# -- Ways to open --------------------------------------------------------------------

FLAGS: Final = (
    "O_APPEND", "O_ASYNC", "O_CLOEXEC", "O_DIRECT", "O_DSYNC", "O_NOATIME", "O_NOCTTY",
    "O_NOFOLLOW", "O_NONBLOCK", "O_PATH", "O_SYNC",
)  # fmt: skip


def test_flags_of_open(mounted: Mounted, library: Path) -> None:
    wanted = expected_archive(library / "roms/psx/Game")
    for name in FLAGS:
        with opened(mounted.path / ARCHIVE, os.O_RDONLY | getattr(os, name)) as descriptor:
            if name == "O_PATH":
                assert os.fstat(descriptor).st_size == len(wanted)
                continue
            # In a buffer that suits O_DIRECT; the end of the file suits nobody.
            with mmap.mmap(-1, 1 << 16) as buffer:
                for offset in (0, BLOCK, len(wanted) >> 12 << 12, 1 << 40):
                    count = os.preadv(descriptor, [buffer], offset)
                    assert buffer[:count] == wanted[offset : offset + (1 << 16)], name
    with pytest.raises(NotADirectoryError):
        os.open(mounted.path / ARCHIVE, os.O_DIRECTORY)
    with pytest.raises(IsADirectoryError):
        os.open(mounted.path / "roms", os.O_WRONLY)


def test_offsets_and_sizes(mounted: Mounted, library: Path) -> None:
    wanted = expected_archive(library / "roms/psx/Game")
    with opened(mounted.path / ARCHIVE) as descriptor:
        for offset in (-1, -(1 << 63)):
            with pytest.raises(OSError, match="Invalid argument"):
                os.pread(descriptor, 1, offset)
        for offset in (len(wanted), 1 << 62, (1 << 63) - 1):
            assert os.pread(descriptor, 0, offset) == b""
            with contextlib.suppress(OSError):  # offset and size together are too much for it
                assert os.pread(descriptor, 100, offset) == b""
        assert os.pread(descriptor, 1 << 30, 5) == wanted[5:]
        assert os.pread(descriptor, 0, 5) == b""
        assert os.lseek(descriptor, 0, os.SEEK_DATA) == 0
        assert os.lseek(descriptor, 100, os.SEEK_HOLE) == len(wanted)
        with pytest.raises(OSError, match="No such device or address"):
            os.lseek(descriptor, len(wanted), os.SEEK_DATA)


# -- Ways to read --------------------------------------------------------------------


def test_ways_to_read(mounted: Mounted, library: Path, place: Path) -> None:
    wanted = expected_archive(library / "roms/psx/Game")
    path = mounted.path / ARCHIVE
    with opened(path) as descriptor:
        for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
            with mmap.mmap(descriptor, 0, flags, mmap.PROT_READ) as mapped:
                assert mapped[:] == wanted
        with mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE) as mapped:
            mapped[0] = 1  # a copy of one's own
        assert os.pread(descriptor, 1, 0) == wanted[:1]
        for way in (_by_sendfile, _by_splice, _by_copying):
            target = place / "copy"
            way(descriptor, target, len(wanted))
            assert target.read_bytes() == wanted, way.__name__
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        called("readahead", descriptor, ctypes.c_long(0), ctypes.c_size_t(1 << 20))
        assert os.pread(descriptor, 10, 0) == wanted[:10]


def _by_sendfile(descriptor: int, target: Path, size: int) -> None:
    with target.open("wb") as file:
        offset = 0
        while offset < size:
            offset += os.sendfile(file.fileno(), descriptor, offset, size)


def _by_splice(descriptor: int, target: Path, size: int) -> None:
    end, begin = os.pipe()
    try:
        with target.open("wb") as file:
            offset = 0
            while offset < size:
                count = os.splice(descriptor, begin, 1 << 16, offset_src=offset)
                offset += count
                while count:
                    count -= os.splice(end, file.fileno(), count)
    finally:
        os.close(end)
        os.close(begin)


def _by_copying(descriptor: int, target: Path, size: int) -> None:
    with target.open("wb") as file:
        offset = 0
        try:
            while offset < size:
                offset += os.copy_file_range(descriptor, file.fileno(), size, offset)
        except OSError as error:
            assert error.errno in (errno.EXDEV, *NOT_HERE)  # noqa: PT017 - an older kernel
            os.truncate(target, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            with open(descriptor, "rb", closefd=False) as source:
                target.write_bytes(source.read())


# -- Questions -----------------------------------------------------------------------


def test_questions(mounted: Mounted) -> None:
    for path in (mounted.path / ARCHIVE, mounted.path / SINGLE, mounted.path / "roms"):
        for ask in (os.listxattr, lambda path: os.getxattr(path, "security.capability")):
            with pytest.raises(OSError, match="not supported"):
                ask(path)
        assert os.access(path, os.R_OK)
        with pytest.raises(OSError, match=r"."):
            os.readlink(path)
        with opened(path) as descriptor:
            os.fsync(descriptor)
            os.fdatasync(descriptor)
            called("syncfs", descriptor)
            for request in (0x5401, 0x541B, 0x80086601, 0x5452, 0xC0407A7A):  # TCGETS, FIONREAD, …
                try:
                    fcntl.ioctl(descriptor, request, b"\0" * 64)
                except OSError as error:
                    assert error.errno in NOT_HERE  # noqa: PT017 - either will do
            poll = select.poll()
            poll.register(descriptor, select.POLLIN | select.POLLPRI)
            assert poll.poll(1000)
            os.fstatvfs(descriptor)
        status = ctypes.create_string_buffer(256)
        called("statx", -100, bytes(path), 0x100, 0xFFF, status)
        assert struct.unpack_from("=I", status)[0] & 0x7FF == 0x7FF  # STATX_BASIC_STATS


def test_handles_of_files(mounted: Mounted, library: Path) -> None:
    """name_to_handle_at(2), with which an NFS server remembers files."""
    for shown in (ARCHIVE, "roms"):
        handle = ctypes.create_string_buffer(struct.pack("Ii128x", 128, 0))
        number = ctypes.c_int()
        path = bytes(mounted.path / shown)
        try:
            called("name_to_handle_at", -100, path, handle, ctypes.byref(number), 0)
        except OSError as error:
            assert error.errno in NOT_HERE  # noqa: PT017 - either will do
            continue
        with opened(mounted.path, os.O_RDONLY | os.O_DIRECTORY) as root:
            try:
                descriptor = called("open_by_handle_at", root, handle, os.O_RDONLY)
            except OSError as error:
                assert error.errno in {errno.ESTALE, errno.EPERM, *NOT_HERE}  # noqa: PT017
                continue
        if shown == ARCHIVE:
            wanted = expected_archive(library / "roms/psx/Game")
            assert os.pread(descriptor, 100, 0) == wanted[:100]
        os.close(descriptor)


def test_locks(mounted: Mounted) -> None:
    """They are the kernel's own: two readers share a file, and a third waits for neither."""
    path = mounted.path / ARCHIVE
    with opened(path) as one, opened(path) as two:
        fcntl.flock(one, fcntl.LOCK_SH)
        fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(one, fcntl.LOCK_SH, 10)
        with pytest.raises(OSError, match="Bad file descriptor"):
            fcntl.lockf(one, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)
        assert len(path.read_bytes()) > BLOCK


def test_watching_the_mount(mounted: Mounted) -> None:
    """inotify(7) on the mount itself: what others do there is told, and nothing hangs."""
    descriptor = called("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        called("inotify_add_watch", descriptor, bytes(mounted.path / "roms/psx"), 0xFFF)
        (mounted.path / ARCHIVE).read_bytes()
        assert os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


# -- Folders -------------------------------------------------------------------------


class _Entry(ctypes.Structure):
    """<dirent.h>, where offsets have 64 bits."""

    _fields_ = (
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_uint16),
        ("d_type", ctypes.c_uint8),
        ("d_name", ctypes.c_char * 256),
    )


def test_seeking_in_a_folder(library: Path, mount: Mounts) -> None:
    names = [f"{number:05}".encode() for number in range(MANY)]
    for name in names:
        make_file(library / os.fsdecode(b"roms/gb/" + name), b"x")
    mounted = mount(library)
    stream = ctypes.c_void_p(libc.opendir(bytes(mounted.path / "roms/gb")))
    assert stream.value

    def following() -> tuple[bytes, int] | None:
        found = libc.readdir(stream)
        if not found:
            return None
        entry = _Entry.from_address(found)
        return entry.d_name, libc.telldir(stream)

    try:
        told = []
        while (entry := following()) is not None:
            told.append(entry)
        assert sorted(name for name, _ in told if name not in (b".", b"..")) == names
        for number in (MANY - 1, 0, 1500, 7, 2999):
            libc.seekdir(stream, ctypes.c_long(told[number][1]))
            found = following()
            assert found == (told[number + 1] if number + 1 < len(told) else None)
        for odd in (-1, 10**6, 1 << 62):  # to where nobody has been
            libc.seekdir(stream, ctypes.c_long(odd))
            following()
        libc.rewinddir(stream)
        assert following() == told[0]
    finally:
        libc.closedir(stream)
    assert sorted(os.listdir(mounted.path / "roms/gb")) == [name.decode() for name in names]


def test_small_buffers(mounted: Mounted) -> None:
    """getdents64(2) with room for one entry, and for none. There is one, ``roms``."""
    numbers = {"x86_64": 217, "aarch64": 61, "riscv64": 61}
    number = numbers.get(os.uname().machine)
    if number is None:
        pytest.skip("this machine's number for getdents64 isn't known here")
    with opened(mounted.path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        buffer = ctypes.create_string_buffer(24)
        seen = 0
        while called("syscall", number, descriptor, buffer, 24):
            seen += 1
            assert seen < 10
        assert seen == 1
        os.lseek(descriptor, 0, os.SEEK_SET)
        with pytest.raises(OSError, match="Invalid argument"):
            called("syscall", number, descriptor, buffer, 8)


def test_a_reader_that_is_killed(mounted: Mounted) -> None:
    """Requests that are interrupted, many at once, by closing what is read from."""
    path = mounted.path / ARCHIVE

    def read() -> None:
        for _ in range(50):
            with opened(path, os.O_RDONLY | os.O_DIRECT) as descriptor, mmap.mmap(-1, BLOCK) as b:
                os.preadv(descriptor, [b], 0)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    pids = []
    for _ in range(10):
        pid = os.posix_spawn("/bin/cat", ["cat", *[str(path)] * 50], {}, file_actions=[
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)
        ])  # fmt: skip
        pids.append(pid)
    for pid in pids:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    for thread in threads:
        thread.join()
