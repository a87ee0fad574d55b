"""Access to absolute paths of any length, without following links.

The paths used here were found through real folders. Meanwhile, a user who can write to the
library can have replaced any of them by a symbolic link that leads out of it (DESIGN H2); a
check before the access would only shorten the race. So no link is followed, neither in the
middle of the path nor at its end: one in the middle is ``ENOTDIR``, as for a missing folder.

- openat2(2) makes the kernel do so, in one call (since Linux 5.6).
- Without it the path is walked folder by folder, each opened relative to the one before
  and with ``O_NOFOLLOW``.
- Where folders can't be opened like that (not Linux), only the last component is checked.

Absolute paths are walked from ``/`` each time, and no folder stays open: a disk that was
unmounted and is mounted again at the same path is the library again.

A system call accepts paths up to PATH_MAX, 4096 bytes (path_resolution(7)), but folders can be
deeper: programs that change folder step by step, such as rsync and Samba, create such paths. A
longer path is walked in pieces.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from zipfs.system import syscalls
from zipfs.system.permissions import may_mislead, truthful
from zipfs.system.syscalls import (
    ACCESS,
    ENTER_FOLDER,
    HERE,
    LIST_FOLDER,
    LISTS_DESCRIPTORS,
    LOOK_AT,
    READ_FOLDER,
)

PATH_MAX: Final = 4096
"""In bytes, with the NUL at the end."""

_JUNCTION: Final = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)
"""Windows' other kind of link: a folder that stands for another one."""


def open_path(path: bytes, flags: int) -> int:
    """open(2) of an absolute *path* with ``O_NOFOLLOW``: a descriptor.

    Raises :exc:`OSError`; ``ENOTDIR`` for a link on the way. A link at the end of the path is
    ``ELOOP``, or ``ENOTDIR`` if *flags* have ``O_DIRECTORY``; with ``O_PATH`` the link itself is
    opened. Reading the descriptor leaves the access time alone, where that is allowed.
    """
    if not ENTER_FOLDER:
        return os.open(path, flags)
    descriptor = _open(path, flags)
    if not flags & os.O_PATH:
        syscalls.keep_atime(descriptor, flags)
    return descriptor


def _open(path: bytes, flags: int) -> int:
    flags |= os.O_NOFOLLOW
    if syscalls.openat2 is None:
        return _walked(path, flags)
    try:
        if len(path) < PATH_MAX:
            return syscalls.openat2(HERE, path, flags)
        return _in_pieces(path, flags, syscalls.openat2)
    except OSError as error:
        if error.errno == errno.ELOOP and flags & (os.O_PATH | os.O_DIRECTORY):
            # With these flags, a link at the end isn't ELOOP: so it is in the middle.
            raise _not_a_folder(path) from None
        raise


def _in_pieces(path: bytes, flags: int, open_in: Callable[[int, bytes, int], int]) -> int:
    folder = HERE
    try:
        while len(path) >= PATH_MAX:
            cut = path.rfind(b"/", 1, PATH_MAX)
            if cut < 0:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
            further = open_in(folder, path[:cut], ENTER_FOLDER)
            _leave(folder)
            folder, path = further, path[cut + 1 :]
        return open_in(folder, path, flags)
    finally:
        _leave(folder)


def _walked(path: bytes, flags: int) -> int:
    *folders, last = [name for name in path.split(b"/") if name] or [b"."]
    if path.endswith(b"/"):
        flags |= os.O_DIRECTORY
    folder = os.open(b"/", ENTER_FOLDER)
    try:
        for name in folders:
            further = os.open(name, ENTER_FOLDER, dir_fd=folder)
            _leave(folder)
            folder = further
        return os.open(last, flags, dir_fd=folder)
    finally:
        _leave(folder)


def _leave(folder: int) -> None:
    if folder != HERE:
        os.close(folder)


def _not_a_folder(path: bytes) -> OSError:
    return NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)


def lstat(path: bytes) -> os.stat_result:
    """lstat(2) of an absolute *path*, with :func:`truthful` permissions of its group.

    Raises :exc:`OSError`; ``ENOTDIR`` for a link on the way.
    """
    if not LOOK_AT:
        return os.lstat(path)
    return _stat_and_close(open_path(path, LOOK_AT))


def _stat_and_close(descriptor: int) -> os.stat_result:
    """fstat(2) of a *descriptor* opened with :data:`LOOK_AT`, which is closed."""
    try:
        return truthful(os.fstat(descriptor), b"/proc/self/fd/%d" % descriptor)
    finally:
        os.close(descriptor)


def entries(path: bytes) -> tuple[list[tuple[bytes, os.stat_result]], os.stat_result]:
    """Name and lstat(2) of each entry of the folder at *path*, which is no link; and its own after.

    Raises :exc:`OSError`. Entries that are removed meanwhile are omitted.
    """
    if not LISTS_DESCRIPTORS:
        return _entries_by_path(path)
    found = []
    descriptor = open_path(path, READ_FOLDER)
    try:
        with os.scandir(descriptor) as iterator:
            for entry in iterator:
                try:
                    status = entry.stat(follow_symlinks=False)
                    if LOOK_AT and may_mislead(status):
                        status = _stat_and_close(os.open(entry.name, LOOK_AT, dir_fd=descriptor))
                except FileNotFoundError:
                    continue
                found.append((os.fsencode(entry.name), status))
        return found, truthful(os.fstat(descriptor), b"/proc/self/fd/%d" % descriptor)
    finally:
        os.close(descriptor)


def _entries_by_path(path: bytes) -> tuple[list[tuple[bytes, os.stat_result]], os.stat_result]:
    """The same where folders can't be opened; raises if the folder has become a link."""
    found = []
    for name in os.listdir(path):
        try:
            # On Windows, stat results of scandir have no inode and differ from those of fstat.
            found.append((name, os.lstat(os.path.join(path, name))))
        except FileNotFoundError:
            continue
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or is_link(status):
        raise _not_a_folder(path)
    return found, status


@contextmanager
def listing(folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """A context with the entries of *folder*, links followed, as of :func:`os.scandir`.

    Listing it leaves its access time alone, where that is allowed. Raises :exc:`OSError`.
    """
    if not LISTS_DESCRIPTORS:
        with os.scandir(folder) as found:
            yield found
        return
    descriptor = os.open(folder, LIST_FOLDER)
    try:
        syscalls.keep_atime(descriptor, LIST_FOLDER)
        with os.scandir(descriptor) as found:
            yield found
    finally:
        os.close(descriptor)


def is_link(status: os.stat_result) -> bool:
    """Whether *status*, of lstat(2), is that of a symbolic link or a junction."""
    if stat.S_ISLNK(status.st_mode):
        return True
    return _JUNCTION is not None and getattr(status, "st_reparse_tag", 0) == _JUNCTION


def real(path: bytes, *, strict: bool = True) -> bytes:
    """realpath(3): *path* without links on the way, ``/``-separated on any platform.

    Raises :exc:`OSError` if it doesn't exist and *strict* is true.
    """
    return slashed(os.path.realpath(path, strict=strict))


def slashed(path: bytes) -> bytes:
    """*path* with ``/`` between folders, which Windows accepts as well."""
    return path.replace(b"\\", b"/") if os.sep == "\\" else path


def join(folder: bytes, name: bytes) -> bytes:
    """The path of *name* in *folder*; ``b""`` is the library itself, or the mount."""
    return folder + b"/" + name if folder else name


def is_within(path: bytes, folder: bytes) -> bool:
    """Whether *path* is *folder* or in it; both as :func:`real` returns them."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def may_read(path: bytes) -> bool:
    """access(2): whether this process may read the file at the absolute *path*."""
    try:
        with named(path) as name:
            return os.access(name, os.R_OK, **ACCESS)
    except OSError:
        return False


@contextmanager
def named(path: bytes) -> Iterator[bytes]:
    """A context with a short path to the file or folder at an absolute *path*.

    For calls that take no descriptor: it is a link in /proc/self/fd, which they have to follow.
    Raises :exc:`OSError`. On other systems than Linux it is *path* itself.
    """
    if not LOOK_AT:
        yield path
        return
    descriptor = open_path(path, LOOK_AT)
    try:
        yield b"/proc/self/fd/%d" % descriptor
    finally:
        os.close(descriptor)
