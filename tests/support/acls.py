"""Access control lists, as ``setfacl`` would make them."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

_NOBODY_IN_PARTICULAR = 0xFFFFFFFF


def set_list(
    path: Path,
    *,
    owner: int = 6,
    users: dict[int, int] | None = None,
    group: int = 0,
    groups: dict[int, int] | None = None,
    mask: int = 4,
    other: int = 0,
) -> None:
    """Give *path* a list: permissions of its owner, of *users* by number, and so on.

    Skips the test where the file system has no such lists.
    """
    entries = [
        (0x01, owner, _NOBODY_IN_PARTICULAR),
        *((0x02, permissions, user) for user, permissions in (users or {}).items()),
        (0x04, group, _NOBODY_IN_PARTICULAR),
        *((0x08, permissions, number) for number, permissions in (groups or {}).items()),
        (0x10, mask, _NOBODY_IN_PARTICULAR),
        (0x20, other, _NOBODY_IN_PARTICULAR),
    ]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", packed)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("no access control lists on this disk")
