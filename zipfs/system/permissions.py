"""Read access by permission bits and access control lists (DESIGN H3).

With a POSIX access control list, the group bits of a mode aren't the group's permissions but the
list's mask, the maximum for the users and groups named in it (acl(5), "Correspondence between
ACL entries and file permission bits"). After ``setfacl -m u:www-data:r,g::-``, ``stat`` shows a
file as readable for its group, which it isn't. A mount shows the bits without the list, so the
group could read the file there.

The list is read only if the bits grant the group more than others: it takes as long as all
other calls for a file, and in most libraries everybody can read everything.
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
    """Read access: permission bits (only ``r``), owner and group."""

    mode: int
    uid: int
    gid: int


def grants_us(status: os.stat_result) -> bool:
    """Whether the permission bits of *status* let this process read the file."""
    # The bits first, which need no system call: there can be a million files.
    if status.st_mode & 0o444 == 0o444:
        return True
    if not hasattr(os, "geteuid"):
        return False  # on Windows the bits aren't per user; access(2) reads its lists
    if (uid := os.geteuid()) == 0:
        return True
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IRUSR)
    if status.st_gid == os.getegid() or status.st_gid in os.getgroups():
        return bool(status.st_mode & stat.S_IRGRP)
    return bool(status.st_mode & stat.S_IROTH)


def common_access(parts: Collection[os.stat_result]) -> Access:
    """The access that all of *parts* grant (DESIGN H3).

    A folder grants read access to its content if it can be listed and entered. If the parts
    have different owners (or groups), the result has root's. As any user can be the owner of a
    part, to whom only its owner bits apply, others then need those as well.
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


# One object for all games with the same access.
_access = functools.lru_cache(1000)(Access)


def behind(status: os.stat_result, folders: Iterable[os.stat_result]) -> os.stat_result:
    """*status* with the access restricted to what *folders*, those above it, grant.

    A link can show a file in folders that not everybody can enter, at a path that has none of
    them.
    """
    private = [folder for folder in folders if folder.st_mode & 0o111 != 0o111]
    if not private:
        return status
    mode, uid, gid = common_access([status, *private])
    if stat.S_ISDIR(status.st_mode):
        mode |= mode >> 2  # permission to enter it comes with that to list it
    else:
        mode |= mode >> 2 & status.st_mode
    mode |= stat.S_IFMT(status.st_mode)
    return replaced(status, {stat.ST_MODE: mode, stat.ST_UID: uid, stat.ST_GID: gid})


_NAME: Final = "system.posix_acl_access"
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
"""<linux/posix_acl_xattr.h>: a version, then entries of tag, permissions and id."""
_VERSION: Final = 2
_USER: Final = 0x02
_GROUP_OBJ: Final = 0x04
_MASK: Final = 0x10
_BY_NUMBER: Final = ("st_mode", "st_ino", "st_dev", "st_nlink", "st_uid", "st_gid", "st_size")
_NO_LIST: Final = (errno.ENODATA, errno.EOPNOTSUPP)


def may_mislead(status: os.stat_result) -> bool:
    """Whether an access control list, if there is one, can grant less than *status* shows."""
    mode = status.st_mode
    if not hasattr(os, "getxattr") or stat.S_ISLNK(mode):
        return False
    return bool(mode >> 3 & ~mode & 7)


def truthful(status: os.stat_result, of: int | bytes) -> os.stat_result:
    """*status* with the group bits restricted by the access control list of the file *of*.

    Grants to named users and groups are ignored, but a named user with fewer permissions, who
    can be in the group, restricts the group's.
    """
    if not may_mislead(status):
        return status
    try:
        entries = os.getxattr(of, _NAME)
    except OSError as error:
        if error.errno in _NO_LIST:
            return status
        group = 0  # unknown: rather too little
    else:
        group = _group_permissions(entries)
    mode = status.st_mode & ~0o070 | status.st_mode & group << 3
    return replaced(status, {stat.ST_MODE: mode})


def _group_permissions(entries: bytes) -> int:
    """The permissions that a list, *entries*, grants to every member of the owning group."""
    if len(entries) % _ENTRY.size != _HEADER.size or _HEADER.unpack_from(entries)[0] != _VERSION:
        return 0
    group = 7
    for tag, permissions, _ in _ENTRY.iter_unpack(entries[_HEADER.size :]):
        if tag in (_USER, _GROUP_OBJ, _MASK):
            group &= permissions
    return int(group)


def replaced(status: os.stat_result, fields: dict[int, int]) -> os.stat_result:
    """*status* with some *fields* replaced, by their index in the tuple."""
    found = list(status)
    for number, value in fields.items():
        found[number] = value
    # Fields beyond the ten of the tuple, such as times in nanoseconds, are passed by name. Since
    # Python 3.13 the name of one of the ten is a TypeError.
    names = (name for name in dir(status) if name.startswith("st_") and name not in _BY_NUMBER)
    others = {name: getattr(status, name) for name in names}
    return os.stat_result(found, others)
