"""System calls, and what stands for them where a platform has none.

zipfs mounts on Linux only, but :func:`zipfs.open_archive` and whatever it needs work
wherever Python does. What Windows or macOS lack is made up for here and in
:mod:`zipfs.paths`, and the other modules needn't know:

- A flag of ``open`` that isn't there is 0. What it guards against is noticed all the
  same: a file counts only in the state that it was found in, a folder only if it is one.
- ``preadv`` is ``pread``, and where there is neither (Windows), ``lseek`` and ``read``
  under a lock.
- Where the page cache can't be asked or advised, it is left alone.
"""

from __future__ import annotations

import contextlib
import os
from _thread import allocate_lock  # `threading` is half a MiB more in the process that hashes
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
ENTER_FOLDER: Final = _flag("O_PATH") and (
    _flag("O_PATH") | _flag("O_DIRECTORY") | _flag("O_CLOEXEC")
)
"""Flags to open a folder with, only to go on from there; 0 where that can't be done."""

LISTS_DESCRIPTORS: Final = os.scandir in os.supports_fd
ACCESS: Final[dict[str, Any]] = (
    {"effective_ids": True} if os.access in os.supports_effective_ids else {}
)
"""What ``os.access`` has to be told so that it asks for whom we are now."""

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
    if hasattr(os, "fchown") and os.geteuid() == 0:
        with contextlib.suppress(OSError):  # a file system without owners
            status = os.stat(folder)
            os.fchown(descriptor, status.st_uid, status.st_gid)
