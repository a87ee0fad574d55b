"""Paths of any length.

What a system call takes in one piece ends at PATH_MAX, 4096 bytes (path_resolution(7)),
but a folder may lie deeper: programs that go there step by step make such paths, and
rsync and Samba do. Here a longer path is walked in pieces, and what is left of it said
relative to the folder reached.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from zipfs.syscalls import ACCESS, ENTER_FOLDER, LISTS_DESCRIPTORS, READ_FOLDER

PATH_MAX: Final = 4096
"""Bytes, with the NUL at the end."""

_JUNCTION: Final = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)
"""What Windows has beside symbolic links: a folder that stands for another one."""


def open_path(path: bytes, flags: int) -> int:
    """open(2): a descriptor. Raises :exc:`OSError`."""
    if len(path) < PATH_MAX:
        return os.open(path, flags)
    with shortened(path) as short:
        return os.open(short, flags)


def lstat(path: bytes) -> os.stat_result:
    """lstat(2). Raises :exc:`OSError`."""
    if len(path) < PATH_MAX:
        return os.lstat(path)
    with shortened(path) as short:
        return os.lstat(short)


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
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
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


def is_within(path: bytes, folder: bytes) -> bool:
    """Whether *path* is *folder* or in it; both as :func:`real` gives them."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def may_read(path: bytes) -> bool:
    """access(2): whether this process may read the file at *path*."""
    try:
        with shortened(path) as short:
            return os.access(short, os.R_OK, **ACCESS)
    except OSError:
        return False


@contextmanager
def shortened(path: bytes) -> Iterator[bytes]:
    """A path that leads where the absolute *path* does, short enough while this lasts.

    Raises :exc:`OSError` if a folder on the way can't be entered. Only on Linux can it be
    done; elsewhere the path is left to the system, as it is.
    """
    if len(path) < PATH_MAX or not ENTER_FOLDER:
        yield path
        return
    descriptors: list[int] = []
    try:
        while len(path) >= PATH_MAX:
            # Room is left for "/proc/self/fd/NUMBER/", and a name has at most 255 bytes.
            cut = path.rindex(b"/", 1, PATH_MAX - 256)
            descriptors.append(os.open(path[:cut], ENTER_FOLDER))
            path = b"/proc/self/fd/%d/%s" % (descriptors[-1], path[cut + 1 :])
        yield path
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
