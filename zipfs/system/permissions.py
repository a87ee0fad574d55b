"""Who may read what, by permission bits and by access control lists (DESIGN H3).

With a POSIX access control list the bits in the middle are no longer the group's: they are
the list's mask, the most that any user or group named in it can have (acl(5), "Correspondence
between ACL entries and file permission bits"). ``setfacl -m u:www-data:r,g::-`` has ``stat``
tell of a file that its group may read, and it may not. A mount has the bits and no list, so
there the group could.

Only files are asked whose bits grant the group more than others: it takes as long as all
else that is asked of a file, and most libraries are everybody's to read.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import struct
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple


class Access(NamedTuple):
    """Who may read something: permission bits (only ``r``), owner and group."""

    mode: int
    uid: int
    gid: int


def grants_us(status: os.stat_result) -> bool:
    """Whether this process may read a file, by its permission bits."""
    # The bits first: a call for each of a million files takes its time.
    if status.st_mode & 0o444 == 0o444:
        return True
    if not hasattr(os, "geteuid"):
        return False  # Windows has no bits for whom it concerns; its lists are to be asked
    if (uid := os.geteuid()) == 0:
        return True
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IRUSR)
    if status.st_gid == os.getegid() or status.st_gid in os.getgroups():
        return bool(status.st_mode & stat.S_IRGRP)
    return bool(status.st_mode & stat.S_IROTH)


def common_access(parts: Collection[os.stat_result]) -> Access:
    """The access that every one of *parts* grants (DESIGN H3).

    A folder grants reading what is in it if it can be listed and entered. Where
    the parts have several owners (or groups), root stands for them, and anybody may
    be the owner of a part: for him its owner's bits count, and no others.
    """
    granted = 0o444
    for status in parts:
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            mode &= mode << 2  # r where there is x as well
        granted &= mode
    uids = {status.st_uid for status in parts}
    gids = {status.st_gid for status in parts}
    owner, group, others = granted >> 6 & 4, granted >> 3 & 4, granted & 4
    if len(gids) != 1:
        group = others = group & others
    if len(uids) != 1:
        group &= owner
        owner = others = others & owner
    return _access(
        owner << 6 | group << 3 | others,
        uids.pop() if len(uids) == 1 else 0,
        gids.pop() if len(gids) == 1 else 0,
    )


# One for all games whom the same may read, and not one each.
_access = functools.lru_cache(1000)(Access)


def behind(status: os.stat_result, folders: Iterable[os.stat_result]) -> os.stat_result:
    """*status* with the permissions and owners that are left of it behind *folders*.

    A link shows what lies behind folders that not everybody may enter, and on the way of the
    link there may be none of them.
    """
    private = [folder for folder in folders if folder.st_mode & 0o111 != 0o111]
    if not private:
        return status
    mode, uid, gid = common_access([status, *private])
    if stat.S_ISDIR(status.st_mode):
        mode |= mode >> 2  # whoever may list it may enter it
    mode |= stat.S_IFMT(status.st_mode)
    return replaced(status, {stat.ST_MODE: mode, stat.ST_UID: uid, stat.ST_GID: gid})


_NAME: Final = "system.posix_acl_access"
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
"""<linux/posix_acl_xattr.h>: a version, and then entries of tag, permissions and id."""
_VERSION: Final = 2
_USER: Final = 0x02
_GROUP_OBJ: Final = 0x04
_MASK: Final = 0x10
_BY_NUMBER: Final = ("st_mode", "st_ino", "st_dev", "st_nlink", "st_uid", "st_gid", "st_size")
_NO_LIST: Final = (errno.ENODATA, errno.EOPNOTSUPP)


def may_mislead(status: os.stat_result) -> bool:
    """Whether a list, if there is one, would say other than the bits of an lstat(2)."""
    mode = status.st_mode
    if not hasattr(os, "getxattr") or stat.S_ISLNK(mode):
        return False
    return bool(mode >> 3 & ~mode & 7)


def truthful(status: os.stat_result, of: int | bytes) -> os.stat_result:
    """*status*, in which the group has what is the group's by the list of the file *of*.

    Who is named in the list isn't asked for, but a user of whom it says less isn't to have more
    by being in the group.
    """
    if not may_mislead(status):
        return status
    try:
        entries = os.getxattr(of, _NAME)
    except OSError as error:
        if error.errno in _NO_LIST:
            return status
        group = 0  # rather too little
    else:
        group = _of_group(entries)
    mode = status.st_mode & ~0o070 | status.st_mode & group << 3
    return replaced(status, {stat.ST_MODE: mode})


def _of_group(entries: bytes) -> int:
    """The permissions that the owning group has, for all that a list says of its members."""
    if len(entries) % _ENTRY.size != _HEADER.size or _HEADER.unpack_from(entries)[0] != _VERSION:
        return 0
    group = 7
    for tag, permissions, _ in _ENTRY.iter_unpack(entries[_HEADER.size :]):
        if tag in (_USER, _GROUP_OBJ, _MASK):
            group &= permissions
    return int(group)


def replaced(status: os.stat_result, fields: dict[int, int]) -> os.stat_result:
    """*status* with other *fields*, by number."""
    found = list(status)
    for number, value in fields.items():
        found[number] = value
    # By name what isn't among those ten, the times in nanoseconds for one. Since Python 3.13 a
    # name of one of the ten is a TypeError.
    names = (name for name in dir(status) if name.startswith("st_") and name not in _BY_NUMBER)
    others = {name: getattr(status, name) for name in names}
    return os.stat_result(found, others)
