"""Mounts with privilege, so that the daemon needs none.

mount(2) needs CAP_SYS_ADMIN; answering the kernel needs only an open descriptor of ``/dev/fuse``
(fuse(4)). So a privileged process makes the mount and passes the descriptor on. The daemon, which
has another user, no capability, and not even a ``/dev/fuse``, names it to libfuse as the mount
point ``/dev/fd/N``.

``fusermount3`` could pass a descriptor too. It is setuid, and useless where no process may gain
privileges (``NoNewPrivileges=`` of systemd.exec(5)).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from typing import Final

from zipfs.errors import FuseError, UnknownOptionError
from zipfs.mount import mountpoint as mp
from zipfs.system import users
from zipfs.system.subprocesses import Identity

_libc: Final = ctypes.CDLL(None, use_errno=True)

# <sys/mount.h>, mount(2)
_RDONLY: Final = 0x1
_NOSUID: Final = 0x2
_NODEV: Final = 0x4
_NOATIME: Final = 0x400
_FLAGS: Final = {
    # The first four are always set.
    "ro": _RDONLY,
    "nosuid": _NOSUID,
    "nodev": _NODEV,
    "noatime": _NOATIME,
    "noexec": 0x8,
    "nosymfollow": 0x100,
}
_ROOT_MODE: Final = 0o40000
"""Mode of the mount's root until the daemon answers: a folder."""


def mount(path: str, options: Iterable[str], *, uid: int, gid: int) -> int:
    """Mount a zipfs on *path* for *uid* and *gid*; returns the descriptor of ``/dev/fuse``.

    *options* are those of :func:`zipfs.mount.mountpoint.mount_options`.
    Accesses to *path* wait until a daemon answers on the descriptor; when the descriptor is
    closed, the mount is dead. Raises :exc:`FuseError`, :exc:`ConfigError`.
    """
    flags = _RDONLY | _NOSUID | _NODEV | _NOATIME
    source = mp.SUBTYPE
    data = []
    for option in options:
        name, _, value = option.partition("=")
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif name == "fsname" and value:
            source = value
        elif name in ("context", "fscontext", "defcontext", "rootcontext") and value:
            data.append(option)  # SELinux's, mount(8)
        elif option in ("default_permissions", "allow_other"):
            data.append(option)
        elif option not in ("exec", f"subtype={mp.SUBTYPE}"):
            raise UnknownOptionError(f"the mount option {option!r} can't be had here; leave it out")
    try:
        device = os.open(mp.DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise FuseError(f"can't open {mp.DEVICE}: {error.strerror}") from None
    data += [f"fd={device}", f"rootmode={_ROOT_MODE:o}", f"user_id={uid}", f"group_id={gid}"]
    failed = _libc.mount(
        os.fsencode(source),
        os.fsencode(path),
        mp.KIND.encode(),
        ctypes.c_ulong(flags),
        os.fsencode(",".join(data)),
    )
    if failed:
        number = ctypes.get_errno()
        os.close(device)
        if number == errno.EPERM and not mp.forbidden():
            raise FuseError(f"can't mount on {path}: only root may; run this as root")
        hint = mp.forbidden() if number in (errno.EPERM, errno.EACCES) else ""
        raise FuseError(f"can't mount on {path}: {os.strerror(number)}{hint}")
    return device


def become(user: Identity) -> None:
    """Change this process to *user* and its groups, for good; credentials(7).

    Raises :exc:`FuseError` without permission.
    """
    try:
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        raise FuseError(cannot_become(user, error)) from None
    # State and index are below the user's own home.
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[name]
    name = user.name.partition(":")[0]
    os.environ |= {"HOME": users.home_of(user.uid), "USER": name, "LOGNAME": name}


def cannot_become(user: Identity, error: OSError) -> str:
    """The message for *error*, met on the way to *user*."""
    why = f"can't become the user {user.name!r}: {error.strerror}"
    if os.geteuid() == 0 and error.errno == errno.EPERM:
        return f"{why}; in a container it needs --cap-add SETUID --cap-add SETGID"
    return why
