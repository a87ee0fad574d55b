"""Whether a game's folder is as it was: a checksum of all that a scan would find in it.

It costs a fourth of a scan, as nothing is made of what is found. So after a start it is compared
with that of the scan from which the archive was made (:mod:`zipfs.sealing.sealer`).
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from operator import itemgetter
from typing import Final

import xxhash

from zipfs.system.paths import open_path
from zipfs.system.syscalls import READ_FOLDER


def tree_digest(path: bytes) -> tuple[bytes, int]:
    """XXH3-128 of the folder at the absolute *path* with all in it, and its device.

    That is of the names, and of all of their stat results that a scan uses. Empty if there is a
    link, whose target is elsewhere, or another device. Raises :exc:`OSError`.
    """
    parts: list[bytes] = []
    todo = [path]
    device = None
    while todo:
        folder = todo.pop()
        found: list[tuple[str, os.stat_result]] = []
        descriptor = open_path(folder, READ_FOLDER)
        try:
            own = os.fstat(descriptor)
            device = own.st_dev if device is None else device
            if own.st_dev != device:
                return b"", device
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        return b"", device
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
        finally:
            os.close(descriptor)
        found.sort(key=_name)
        parts.append(_FOLDER.pack(own.st_mode, own.st_uid, own.st_gid))
        for shown, status in found:
            name = shown.encode(*_NAMES)
            mode = status.st_mode
            if stat.S_ISDIR(mode):
                todo.append(folder + b"/" + name)
                parts.append(name + b"/")
            else:
                parts.append(
                    name
                    + _FILE.pack(
                        b"\0",
                        mode,
                        status.st_uid,
                        status.st_gid,
                        status.st_ino,
                        status.st_size,
                        status.st_mtime_ns,
                        status.st_ctime_ns,
                    )
                )
        parts.append(b"\0")
    return xxhash.xxh3_128_digest(b"".join(parts)), device or 0


_NAMES: Final = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
"""How os.fsencode() encodes: a call less for each file."""
_FOLDER: Final = struct.Struct("<III")
_FILE: Final = struct.Struct("<cIIIQqqq")
_name: Final = itemgetter(0)
