"""Users that a process of root becomes, for a moment or for good: credentials(7).

A number needs no entry in passwd(5): containers often have none for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from zipfs.system.ownership import number_of
from zipfs.system.subprocesses import Identity

if TYPE_CHECKING:
    import pwd


def identity_of(text: str) -> Identity:
    """The user ``USER``, or ``USER:GROUP`` with that group alone; by name or number.

    A number without an entry has the group of the same number. Raises :exc:`ValueError`.
    """
    user, colon, group = text.partition(":")
    uid = number_of(user)
    entry = _entry_of(user, uid)
    if colon:
        gid = number_of(group, group=True)
        return Identity(text, uid, gid, (gid,))
    if entry is None:
        return Identity(text, uid, uid, (uid,))
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Identity(text, uid, entry.pw_gid, tuple(groups))


def _entry_of(user: str, uid: int) -> pwd.struct_passwd | None:
    import pwd  # noqa: PLC0415 - there is none on Windows

    try:
        return pwd.getpwuid(uid) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        return None


def has_entry(uid: int) -> bool:
    """Whether passwd(5) has the user *uid*."""
    return _entry_of(str(uid), uid) is not None


def home_of(uid: int) -> str:
    """The home of the user *uid*; ``/`` without an entry."""
    entry = _entry_of(str(uid), uid)
    return entry.pw_dir if entry else "/"


@contextlib.contextmanager
def acting_as(identity: Identity) -> Iterator[None]:
    """Access files as *identity* meanwhile; the process stays root. Raises :exc:`OSError`."""
    before = os.geteuid(), os.getegid(), os.getgroups()
    try:
        os.setgroups(identity.groups)
        os.setegid(identity.gid)
        os.seteuid(identity.uid)
        yield
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])
        os.setgroups(before[2])


def peer(channel: socket.socket) -> tuple[int, int]:
    """PID and user of who is at the other end; the PID is 0 if it is in another namespace."""
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, user, _ = struct.unpack("3i", credentials)
    return pid, user
