"""Opening the index's file where others may write beside it: nobody else chooses it."""

from __future__ import annotations

import errno
import os
import stat

from zipfs.system.syscalls import leave_to_owner


def open_or_make(file: str) -> int:
    """Open *file*, created for its folder's owner if missing; its descriptor."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        # Without O_CREAT: another user who can write to the folder could put a link there, and
        # so choose where a file is created.
        return os.open(file, os.O_RDWR)
    leave_to_owner(descriptor, os.path.dirname(os.path.abspath(file)))
    return descriptor


def refuse_foreign_link(file: str) -> None:
    """Raise :exc:`OSError` if *file* is another user's link, by which he could choose a file."""
    try:
        status = os.lstat(file)
    except OSError:
        return  # opening it raises the error
    if stat.S_ISLNK(status.st_mode) and status.st_uid not in (0, os.geteuid()):
        raise OSError(errno.EPERM, "it is a link of another user's")
