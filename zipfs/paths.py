"""Paths of any length.

What a system call takes in one piece ends at PATH_MAX, 4096 bytes (path_resolution(7)),
but a folder may lie deeper: programs that go there step by step make such paths, and
rsync and Samba do. Here a longer path is walked in pieces, and what is left of it said
relative to the folder reached.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

PATH_MAX: Final = 4096
"""Bytes, with the NUL at the end."""

_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


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


def may_read(path: bytes) -> bool:
    """access(2): whether this process may read the file at *path*."""
    try:
        with shortened(path) as short:
            return os.access(short, os.R_OK, effective_ids=True)
    except OSError:
        return False


@contextmanager
def shortened(path: bytes) -> Iterator[bytes]:
    """A path that leads where the absolute *path* does, short enough while this lasts.

    Raises :exc:`OSError` if a folder on the way can't be entered.
    """
    if len(path) < PATH_MAX:
        yield path
        return
    descriptors: list[int] = []
    try:
        while len(path) >= PATH_MAX:
            # Room is left for "/proc/self/fd/NUMBER/", and a name has at most 255 bytes.
            cut = path.rindex(b"/", 1, PATH_MAX - 256)
            descriptors.append(os.open(path[:cut], _STEP))
            path = b"/proc/self/fd/%d/%s" % (descriptors[-1], path[cut + 1 :])
        yield path
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
