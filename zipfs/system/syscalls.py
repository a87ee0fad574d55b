"""System calls, and replacements where a platform has none.

zipfs mounts only on Linux, but :func:`zipfs.open_archive` and all that it uses work wherever
Python does. Functions that Windows or macOS lack are replaced here and in
:mod:`zipfs.system.paths`, and other modules needn't know:

- A missing flag of ``open`` is 0. What it protects against is detected anyway: a file is valid
  only in its recorded state, and a folder only if it is one.
- ``preadv`` is replaced by ``pread``, or without that (Windows) by ``lseek`` and ``read`` under
  a lock.
- Where the page cache can't be queried or advised, nothing is done.
- ``openat2``, which Python lacks, is called by its number; :mod:`zipfs.system.paths` works
  without it as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import struct
import sys
from _thread import allocate_lock  # `threading` is half a MiB more in the process that hashes
from collections.abc import Callable
from typing import Any, Final, NamedTuple

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # tested where it is used


def _flag(name: str) -> int:
    flag: int = getattr(os, name, 0)
    return flag


# O_NONBLOCK: if the path has become a FIFO, open must not wait. O_BINARY: else Windows converts
# line ends.
READ_FILE: Final = (
    os.O_RDONLY | _flag("O_CLOEXEC") | _flag("O_NOFOLLOW") | _flag("O_NONBLOCK") | _flag("O_BINARY")
)
"""Flags to open a regular file, not a link, for reading."""
_NO_ATIME: Final = _flag("O_NOATIME")
_STATUS_FLAGS: Final = _flag("O_NONBLOCK") | _flag("O_DIRECT")
"""Flags of an open for reading that F_SETFL, fcntl(2), would clear."""
NO_LINK: Final = _flag("O_NOFOLLOW")
"""Flag to open no link for writing."""
LIST_FOLDER: Final = os.O_RDONLY | _flag("O_DIRECTORY") | _flag("O_CLOEXEC")
"""Flags to open a folder to list it, where that is possible (:data:`LISTS_DESCRIPTORS`)."""
READ_FOLDER: Final = LIST_FOLDER | _flag("O_NOFOLLOW")
"""The same, and no link to one."""
LOOK_AT: Final = _flag("O_PATH") and (_flag("O_PATH") | _flag("O_CLOEXEC") | _flag("O_NOFOLLOW"))
"""Flags to open anything, a link itself included, only for ``fstat``; 0 where that isn't
possible."""
ENTER_FOLDER: Final = LOOK_AT and LOOK_AT | _flag("O_DIRECTORY")
"""Flags to open a folder only as the start of relative paths; 0 where that isn't possible."""

GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
"""Errors of opening a file that was there a moment ago: it was removed or renamed, or something
else, such as a link or a socket, has taken its place."""
MAYBE_GONE: Final = frozenset({errno.EINVAL, getattr(errno, "ESTALE", errno.EINVAL)})
"""The same of shares, if it isn't lasting: ``ESTALE``, NFS; ``EINVAL``, SMB, of a name that the
server has no more (seen)."""

LISTS_DESCRIPTORS: Final = os.scandir in os.supports_fd
ACCESS: Final[dict[str, Any]] = (
    {"effective_ids": True} if os.access in os.supports_effective_ids else {}
)
"""Arguments of ``os.access`` for the effective user and group."""

HERE: Final = -100
"""<fcntl.h>: AT_FDCWD, in place of a folder's descriptor: the working directory."""
_OPENAT2: Final = 437
"""The number of the call, on all machines except two: alpha, and one that returns ENOSYS."""
_NO_XDEV: Final = 0x01
_NO_SYMLINKS: Final = 0x04
_CACHED: Final = 0x20
"""<linux/openat2.h>: RESOLVE_NO_XDEV, RESOLVE_NO_SYMLINKS, RESOLVE_CACHED (since Linux 5.12)."""
_OPEN_HOW: Final = struct.Struct("=QQQ")
"""<linux/openat2.h>: struct open_how, with flags, mode and resolve."""

# <linux/stat.h>: AT_EMPTY_PATH; masks and offsets of struct statx, 256 bytes.
_EMPTY_PATH: Final = 0x1000
_STATX_INO: Final = 0x100
_STATX_MNT_ID: Final = 0x1000
"""Since Linux 5.8; given to another mount as soon as this one is gone."""
_STATX_MNT_ID_UNIQUE: Final = 0x4000
"""Since Linux 6.8; never given again before the next boot."""
_STATX: Final = struct.Struct("=I28xQ96xIIQ104x")  # mask, inode, device (2), mount

_locks: Final = [allocate_lock() for _ in range(64)]
"""For the position of a descriptor, which all threads that read it share."""


def pread(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read at *offset* into *buffer*; returns the number of bytes, 0 only at the end.

    Thread-safe, with one descriptor as well.
    """
    # Tested with each call, which costs little compared to a system call.
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    if hasattr(os, "pread"):
        data = os.pread(descriptor, len(buffer), offset)
    else:
        with _locks[descriptor % len(_locks)]:
            os.lseek(descriptor, offset, os.SEEK_SET)
            data = os.read(descriptor, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def is_cached(descriptor: int, offset: int) -> bool:
    """Whether the byte at *offset* is in the page cache; can load its page, but no more.

    ``preadv2(2)``, ``RWF_NOWAIT``. mincore(2) is reliable only for processes that can write to
    the file.
    """
    if not hasattr(os, "RWF_NOWAIT"):
        return False
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except OSError:
        return False


def uncache(descriptor: int, offset: int, length: int) -> None:
    """Evict a part of a file from the page cache, where the platform supports it."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # advice; some file systems take none
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)


def keep_atime(descriptor: int, flags: int) -> bool:
    """Have reads of *descriptor*, opened with *flags*, leave the access time alone, if allowed.

    Returns whether they do. ``O_NOATIME``, which the kernel grants to the owner of the file or
    folder and to ``CAP_FOWNER``. Set after open(2) and not in it, for two reasons: there its
    refusal would be a failed call to the source, and a second one, for each file of somebody
    else; and the kernel passes it on to FUSE servers, which may refuse it for reasons of their
    own. F_SETFL, fcntl(2), never leaves this machine.
    """
    if not _NO_ATIME or fcntl is None:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & _STATUS_FLAGS | _NO_ATIME)
    except OSError:  # EPERM: then reading moves it, as anybody's does
        return False
    return True


def leave_to_owner(descriptor: int, folder: str) -> None:
    """If root has created a file in *folder*, give it to the folder's owner, as SQLite does.

    Otherwise the daemon, an ordinary user, couldn't write a file created by an administrator.
    """
    if hasattr(os, "fchown") and hasattr(os, "geteuid") and os.geteuid() == 0:
        with contextlib.suppress(OSError):  # a file system without owners
            status = os.stat(folder)
            os.fchown(descriptor, status.st_uid, status.st_gid)


class Identity(NamedTuple):
    """Which file or folder it is: the same path leads to another one after a mount or a rename."""

    device: int
    inode: int
    mount: int
    """The mount that the path leads through; 0 if the system doesn't tell."""


def identity(descriptor: int) -> Identity:
    """The identity of an open file or folder; ``O_PATH`` suffices. Raises :exc:`OSError`."""
    if _statx is not None and (found := _statx(descriptor)):
        return found
    status = os.fstat(descriptor)
    return Identity(status.st_dev, status.st_ino, 0)


def _make_statx() -> Callable[[int], Identity | None] | None:
    if sys.platform != "linux":
        return None
    call = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)  # glibc 2.28, musl 1.2.4
    if call is None:
        return None
    call.restype = ctypes.c_int
    call.argtypes = [
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_char_p,
    ]

    def ask(descriptor: int) -> Identity | None:
        """None where the kernel or a sandbox refuses the call; raises for a dead disk."""
        buffer = ctypes.create_string_buffer(_STATX.size)
        mask = _STATX_INO | _STATX_MNT_ID_UNIQUE
        while call(descriptor, b"", _EMPTY_PATH, mask, buffer) < 0:
            number = ctypes.get_errno()
            if number in (errno.ENOSYS, errno.EPERM, errno.EINVAL):
                return None
            if number != errno.EINTR:  # PEP 475
                raise OSError(number, os.strerror(number))
        found, inode, major, minor, mount = _STATX.unpack(buffer.raw)
        if not found & _STATX_MNT_ID_UNIQUE:
            call(descriptor, b"", _EMPTY_PATH, _STATX_INO | _STATX_MNT_ID, buffer)
            found, *_, mount = _STATX.unpack(buffer.raw)
            mount = mount if found & _STATX_MNT_ID else 0
        return Identity(os.makedev(major, minor), inode, mount)

    return ask


_statx: Callable[[int], Identity | None] | None = _make_statx()


@functools.cache
def _how(flags: int, resolve: int) -> bytes:
    # O_LARGEFILE: open(2) adds it on 32-bit machines; with O_PATH, openat2 refuses it.
    large = 0 if flags & _flag("O_PATH") else _flag("O_LARGEFILE")
    return _OPEN_HOW.pack(flags | _flag("O_CLOEXEC") | large, 0, resolve)


def _openat2(resolve: int = _NO_SYMLINKS) -> Callable[[int, bytes, int], int] | None:
    if not LOOK_AT or sys.platform != "linux" or os.uname().machine == "alpha":
        return None
    # CDLL and not PyDLL, since it releases the interpreter's lock: a disk that doesn't answer
    # must not stop all threads. A CDLL object of its own, since its types are set.
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = [
        ctypes.c_long,
        ctypes.c_long,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
    ]

    o_path = _flag("O_PATH")  # all that is asked of a game begins with this call

    def open_without_links(folder: int, path: bytes, flags: int) -> int:
        if b"\0" in path:
            raise ValueError("embedded null byte")  # as os.open does; C would cut the path there
        if not flags & o_path:  # comparable to os.lstat, which isn't audited
            sys.audit("open", path, None, flags)
        how = _how(flags, resolve)
        while True:
            descriptor: int = call(_OPENAT2, folder, path, how, _OPEN_HOW.size)
            if descriptor >= 0:
                return descriptor
            if (number := ctypes.get_errno()) != errno.EINTR:  # PEP 475
                raise OSError(number, os.strerror(number), path)

    try:
        # The root is always known, and on the mount that "/" is on.
        os.close(open_without_links(HERE, b"/", ENTER_FOLDER))
    except OSError:
        # ENOSYS before Linux 5.6, EINVAL for a flag that came later; EPERM in a sandbox that
        # doesn't know the call
        return None
    return open_without_links


openat2: Callable[[int, bytes, int], int] | None = _openat2()
"""openat2(2) with ``RESOLVE_NO_SYMLINKS``: opens a path relative to a folder's descriptor, with
given flags; None where the system lacks it. Raises :exc:`OSError`; ``ELOOP`` for a link."""
open_known: Callable[[int, bytes, int], int] | None = _openat2(_NO_SYMLINKS | _NO_XDEV | _CACHED)
"""The same only of what the kernel has in its memory, on the mount of the folder: ``EAGAIN`` or
``EXDEV`` otherwise. The call itself then asks no disk; a file system on FUSE or a network is asked
all the same when the file is opened."""
