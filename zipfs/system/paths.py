"""Paths without links on the way, of any length.

What is opened or looked at here was found by way of real folders. Between that and now
somebody who may write into the library can have put a symbolic link in the place of any of
them, and the path would lead out of it (DESIGN H2). To compare first would only shorten the
race. So no link is ever followed, be it in the middle of the path or at its end: one in the
middle is ``ENOTDIR``, as if there were no folder any more.

- openat2(2) has the kernel see to it, in one call (since Linux 5.6).
- Without it the path is walked folder by folder, each opened relative to the one before
  and with ``O_NOFOLLOW``.
- Where folders can't be opened so (not Linux), only the last component is looked at.

Absolute paths are walked from ``/`` each time, and no folder is kept open: a disk that was
unmounted and is mounted again at the same place goes on being the library.

What a system call takes in one piece ends at PATH_MAX, 4096 bytes (path_resolution(7)),
but a folder may lie deeper: programs that go there step by step make such paths, and
rsync and Samba do. A longer path is walked in pieces.
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
    LISTS_DESCRIPTORS,
    LOOK_AT,
    READ_FOLDER,
)

PATH_MAX: Final = 4096
"""Bytes, with the NUL at the end."""

_JUNCTION: Final = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)
"""What Windows has beside symbolic links: a folder that stands for another one."""


def open_path(path: bytes, flags: int) -> int:
    """open(2) of an absolute *path* with ``O_NOFOLLOW``: a descriptor. Raises :exc:`OSError`.

    That is ``ENOTDIR`` if a link is on the way. At the end of the path a link is ``ELOOP``,
    or ``ENOTDIR`` if *flags* ask for a folder, and with ``O_PATH`` what is opened.
    """
    if not ENTER_FOLDER:
        return os.open(path, flags)
    flags |= os.O_NOFOLLOW
    if syscalls.openat2 is None:
        return _walked(path, flags)
    try:
        if len(path) < PATH_MAX:
            return syscalls.openat2(HERE, path, flags)
        return _in_pieces(path, flags, syscalls.openat2)
    except OSError as error:
        if error.errno == errno.ELOOP and flags & (os.O_PATH | os.O_DIRECTORY):
            # The last component can't have been it.
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
    """lstat(2) of an absolute *path*, its group's permissions being :func:`truthful`.

    Raises :exc:`OSError`; ``ENOTDIR`` for a link on the way.
    """
    if not LOOK_AT:
        return os.lstat(path)
    return _looked_at(open_path(path, LOOK_AT))


def _looked_at(descriptor: int) -> os.stat_result:
    """fstat(2) of what was opened to be looked at, and the end of that."""
    try:
        return truthful(os.fstat(descriptor), b"/proc/self/fd/%d" % descriptor)
    finally:
        os.close(descriptor)


def entries(path: bytes) -> list[tuple[bytes, os.stat_result]]:
    """The name of each entry of the folder at *path*, which is no link, and its lstat(2).

    Raises :exc:`OSError`. An entry that goes away meanwhile isn't there.
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
                        status = _looked_at(os.open(entry.name, LOOK_AT, dir_fd=descriptor))
                except FileNotFoundError:
                    continue
                found.append((os.fsencode(entry.name), status))
    finally:
        os.close(descriptor)
    return found


def _entries_by_path(path: bytes) -> list[tuple[bytes, os.stat_result]]:
    """The same where folders can't be opened; should one have become a link, it is an error."""
    found = []
    for name in os.listdir(path):
        try:
            # On Windows what scandir gives has no inode, and another one than fstat.
            found.append((name, os.lstat(os.path.join(path, name))))
        except FileNotFoundError:
            continue
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or is_link(status):
        raise _not_a_folder(path)
    return found


def is_link(status: os.stat_result) -> bool:
    """Whether an lstat(2) is of something that leads elsewhere."""
    if stat.S_ISLNK(status.st_mode):
        return True
    return _JUNCTION is not None and getattr(status, "st_reparse_tag", 0) == _JUNCTION


def real(path: bytes, *, strict: bool = True) -> bytes:
    """realpath(3): *path* without links on the way, ``/``-separated on any platform.

    Raises :exc:`OSError` if there is nothing, and *strict*.
    """
    return slashed(os.path.realpath(path, strict=strict))


def slashed(path: bytes) -> bytes:
    """*path* with ``/`` between folders, which Windows takes as well."""
    return path.replace(b"\\", b"/") if os.sep == "\\" else path


def join(folder: bytes, name: bytes) -> bytes:
    """The path of *name* in *folder*, of which the library's own, and the mount's, is empty."""
    return folder + b"/" + name if folder else name


def is_within(path: bytes, folder: bytes) -> bool:
    """Whether *path* is *folder* or in it; both as :func:`real` gives them."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def may_read(path: bytes) -> bool:
    """access(2): whether this process may read the file at the absolute *path*."""
    try:
        with named(path) as name:
            return os.access(name, os.R_OK, **ACCESS)
    except OSError:
        return False


@contextmanager
def named(path: bytes, flags: int = LOOK_AT) -> Iterator[bytes]:
    """A short path to what an absolute *path* leads to, good while this lasts.

    It is for calls that take no descriptor, and they have to follow it: it is one of the links
    in /proc/self/fd. *flags* are those of :func:`open_path`, which opens it. Raises
    :exc:`OSError`. Elsewhere than on Linux it is *path* itself.
    """
    if not LOOK_AT:
        yield path
        return
    descriptor = open_path(path, flags)
    try:
        yield b"/proc/self/fd/%d" % descriptor
    finally:
        os.close(descriptor)
