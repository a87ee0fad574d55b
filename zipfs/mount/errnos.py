"""Every errno that a request can return, and which exception becomes which (DESIGN H4)."""

from __future__ import annotations

import errno
from typing import Final

import pyfuse3

from zipfs.errors import ChangedError, StaleError

# Invalid requests, refused without access to the library.
UNKNOWN_HANDLE: Final = errno.EBADF
NOT_A_NAME: Final = errno.ENOENT
NOT_A_FOLDER: Final = errno.ENOTDIR
IS_A_FOLDER: Final = errno.EISDIR
NEGATIVE: Final = errno.EINVAL
"""A negative offset, length or position in a listing: read(2), lseek(2)."""
FOR_WRITING: Final = errno.EROFS
"""An open for writing; the kernel refuses it itself, unless root has remounted it for writing."""
INODE_TAKEN: Final = errno.EIO
"""Two nodes have the same 63-bit inode number: an error, not the wrong file."""

# Errors whose errno depends on the operation.
FILE_REPLACED: Final = errno.ENOENT
"""A mirrored file was replaced between lookup and open. Not ESTALE, upon which the kernel
opens the new file by itself: a server that called stat before would send the new bytes under
the old ETag."""
UNREADABLE: Final = errno.EIO
"""A read failed, whatever the errno of the source: to a web server no other errno of read(2)
makes sense (R1)."""


def to_errno(error: Exception) -> int | None:
    """The errno that *error* means to a program; None for a defect of zipfs."""
    match error:
        case pyfuse3.FUSEError():
            return error.errno  # one of the above
        case StaleError():
            # open(2) looks the path up again by itself, and finds the new version.
            return errno.ESTALE
        case ChangedError():
            # R1: the source has other bytes than this version.
            return errno.EIO
        case TimeoutError():
            # The source doesn't answer; few programs expect ETIMEDOUT from a file.
            return errno.EIO
        case OSError(errno=errno.ENOSYS):
            # After ENOSYS the kernel never sends that request again, for the whole mount.
            return errno.EIO
        case OSError(errno=int(number)) if number:
            # The source's own errno: ENOENT, EACCES, EIO, ENOTCONN, ...
            return number
        case _:
            return None
