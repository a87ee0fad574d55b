"""Who may read what, as ``stat`` told of it (DESIGN H3)."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Collection, Iterable
from typing import NamedTuple

from zipfs.acl import replaced


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
