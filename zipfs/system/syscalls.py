"""System calls, and what stands for them where a platform has none.

zipfs mounts on Linux only, but :func:`zipfs.open_archive` and whatever it needs work
wherever Python does. What Windows or macOS lack is made up for here and in
:mod:`zipfs.system.paths`, and the other modules needn't know:

- A flag of ``open`` that isn't there is 0. What it guards against is noticed all the
  same: a file counts only in the state that it was found in, a folder only if it is one.
- ``preadv`` is ``pread``, and where there is neither (Windows), ``lseek`` and ``read``
  under a lock.
- Where the page cache can't be asked or advised, it is left alone.
- ``openat2``, which Python doesn't have, is called by its number; :mod:`zipfs.system.paths` knows
  what to do without it.
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
from typing import Any, Final


def _flag(name: str) -> int:
    flag: int = getattr(os, name, 0)
    return flag


# O_NONBLOCK: should the path have become a FIFO, the open must not wait. O_BINARY: else
# Windows changes the ends of lines.
READ_FILE: Final = (
    os.O_RDONLY | _flag("O_CLOEXEC") | _flag("O_NOFOLLOW") | _flag("O_NONBLOCK") | _flag("O_BINARY")
)
"""Flags to open a file with that was found to be one, and no link."""
NO_LINK: Final = _flag("O_NOFOLLOW")
"""The same for what is to be written."""
READ_FOLDER: Final = os.O_RDONLY | _flag("O_DIRECTORY") | _flag("O_CLOEXEC") | _flag("O_NOFOLLOW")
"""The same for a folder, where folders can be opened (:data:`LISTS_DESCRIPTORS`)."""
LOOK_AT: Final = _flag("O_PATH") and (_flag("O_PATH") | _flag("O_CLOEXEC") | _flag("O_NOFOLLOW"))
"""Flags to open with whatever it is, a link itself included, only to know which it is, and
what ``fstat`` tells of it; 0 where that can't be done."""
ENTER_FOLDER: Final = LOOK_AT and LOOK_AT | _flag("O_DIRECTORY")
"""The same for a folder, only to go on from there."""

LISTS_DESCRIPTORS: Final = os.scandir in os.supports_fd
ACCESS: Final[dict[str, Any]] = (
    {"effective_ids": True} if os.access in os.supports_effective_ids else {}
)
"""What ``os.access`` has to be told so that it asks for whom we are now."""

HERE: Final = -100
"""<fcntl.h>: AT_FDCWD, the folder from which a path begins that begins from none."""
_OPENAT2: Final = 437
"""The number of the call: one for all machines but two, of which one says ENOSYS."""
_NO_SYMLINKS: Final = 0x04
"""<linux/openat2.h>: RESOLVE_NO_SYMLINKS."""
_OPEN_HOW: Final = struct.Struct("=QQQ")
"""<linux/openat2.h>: struct open_how, with flags, mode and resolve."""

_locks: Final = [allocate_lock() for _ in range(64)]
"""For the position of a descriptor, which threads that read it share."""


def pread(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read bytes at *offset* into *buffer*; how many, at least one unless it is the end.

    As many threads as like may do so with one descriptor.
    """
    # Found out anew each time: asking is nothing beside a system call.
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
    """Whether the page cache has the byte at *offset*; asking brings in its page at most.

    ``preadv2(2)``, ``RWF_NOWAIT``. mincore(2) would do as well, but tells the
    truth only to those who may write the file.
    """
    if not hasattr(os, "RWF_NOWAIT"):
        return False
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except OSError:
        return False


def uncache(descriptor: int, offset: int, length: int) -> None:
    """Have the page cache forget a stretch of a file, if it may be told so."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # advice; some file systems take none
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)


def leave_to_owner(descriptor: int, folder: str) -> None:
    """What root makes in *folder* belongs to whom that belongs, as SQLite has it with its files.

    Else the daemon, an ordinary user, couldn't write what an administrator has made for it.
    """
    if hasattr(os, "fchown") and hasattr(os, "geteuid") and os.geteuid() == 0:
        with contextlib.suppress(OSError):  # a file system without owners
            status = os.stat(folder)
            os.fchown(descriptor, status.st_uid, status.st_gid)


@functools.cache
def _how(flags: int) -> bytes:
    # What open(2) adds by itself on machines of 32 bits; with O_PATH, openat2 refuses it.
    large = 0 if flags & _flag("O_PATH") else _flag("O_LARGEFILE")
    return _OPEN_HOW.pack(flags | _flag("O_CLOEXEC") | large, 0, _NO_SYMLINKS)


def _openat2() -> Callable[[int, bytes, int], int] | None:
    if not LOOK_AT or sys.platform != "linux" or os.uname().machine == "alpha":
        return None
    # CDLL, and not PyDLL: it lets go of the interpreter's lock, or a disk that doesn't answer
    # would stop all threads. And a function of our own, since its types are set.
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = [
        ctypes.c_long,
        ctypes.c_long,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
    ]

    def open_without_links(folder: int, path: bytes, flags: int) -> int:
        if b"\0" in path:
            raise ValueError("embedded null byte")  # as os.open says; C would cut it off there
        if not flags & _flag("O_PATH"):  # which opens nothing: os.lstat isn't audited either
            sys.audit("open", path, None, flags)
        how = _how(flags)
        while True:
            descriptor: int = call(_OPENAT2, folder, path, how, _OPEN_HOW.size)
            if descriptor >= 0:
                return descriptor
            if (number := ctypes.get_errno()) != errno.EINTR:  # PEP 475
                raise OSError(number, os.strerror(number), path)

    try:
        os.close(open_without_links(HERE, b"/", ENTER_FOLDER))
    except OSError:  # ENOSYS before Linux 5.6; EPERM of a sandbox that doesn't know it
        return None
    return open_without_links


openat2: Callable[[int, bytes, int], int] | None = _openat2()
"""openat2(2) with ``RESOLVE_NO_SYMLINKS``: open a path, relative to the folder that is open as a
descriptor, if no link is on the way; None where the system hasn't got it. Raises
:exc:`OSError`: with ``ELOOP`` if there is a link."""
