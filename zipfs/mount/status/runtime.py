"""The runtime folder, in which the daemon's socket is, for server and client.

The socket is named after the mount's device, MAJOR:MINOR in ``/proc/self/mountinfo``
(proc_pid_mountinfo(5)): that number is the same in every mount namespace, unlike a path. The
runtime folder is in memory, private, and never served by a web server.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Final

from zipfs.system.subprocesses import Identity
from zipfs.system.users import acting_as

SYSTEM: Final = "/run/zipfs"
"""The folder for root's mounts; systemd makes a folder in it for each unit."""
STATE: Final = "/var/lib/zipfs"
"""The folder for the state of the same users."""
USERS: Final = "/run/user"
"""logind makes a folder in it for each user, pam_systemd(8)."""
_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def socket_name(device: str) -> str:
    """The name of the socket of the mount with *device*, such as ``0:54``."""
    return device.replace(":", "-") + ".sock"


def is_socket_name(name: str) -> bool:
    """Whether *name* is one that :func:`socket_name` makes."""
    return re.fullmatch(r"[0-9]+-[0-9]+\.sock", name) is not None


def given_folder(environment: Mapping[str, str]) -> str | None:
    """The first folder of ``RuntimeDirectory=``, systemd.exec(5); None without one."""
    first = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return first if os.path.isabs(first) else None


def own_folder(environment: Mapping[str, str]) -> str | None:
    """The folder without systemd: :data:`SYSTEM` for root, else a folder in
    ``$XDG_RUNTIME_DIR`` (XDG Base Directory Specification), None without one."""
    if os.geteuid() == 0:
        return SYSTEM
    base = environment.get("XDG_RUNTIME_DIR", "")
    return os.path.join(base, "zipfs") if os.path.isabs(base) else None


def unsafe(status: os.stat_result) -> str | None:
    """Why a folder with the stat result *status* isn't safe for a socket; None if it is."""
    if not stat.S_ISDIR(status.st_mode):
        return "it isn't a folder"
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to user {status.st_uid}"
    if status.st_mode & _OTHERS:
        return "others than its owner may write to it"
    return None


def users_of(folder: str, descriptor: int) -> frozenset[int]:
    """The user who may serve in *folder*, open as *descriptor*: its owner, if root has made it.

    systemd makes such folders for a daemon that isn't root (``RuntimeDirectory=``, ``User=``).
    """
    if os.path.dirname(folder) != SYSTEM:
        return frozenset()
    above = os.stat(SYSTEM, follow_symlinks=False)
    if above.st_uid != 0 or above.st_mode & _OTHERS:
        return frozenset()
    return frozenset((os.fstat(descriptor).st_uid,))


def for_user(user: Identity) -> str:
    """Make the runtime folder of a daemon that root starts as another user.

    Raises :exc:`OSError`.
    """
    return _made_for(SYSTEM, user, 0o755)


def state_for_user(user: Identity) -> str:
    """Make the state folder of such a daemon, for its index. Raises :exc:`OSError`."""
    return _made_for(STATE, user, 0o700)


def _made_for(above: str, user: Identity, mode: int) -> str:
    os.makedirs(above, 0o755, exist_ok=True)
    folder = f"{above}/user-{user.uid}"
    try:
        os.mkdir(folder, mode)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise
    try:
        os.chown(folder, user.uid, user.gid, follow_symlinks=False)
    except PermissionError:  # root without CAP_CHOWN, in a container
        if os.lstat(folder).st_uid != user.uid:
            _make_as(folder, user, mode)
    return folder


def _make_as(folder: str, user: Identity, mode: int) -> None:
    """Have *user* make the *folder*, in one that only root may write otherwise."""
    above = os.path.dirname(folder)
    before = stat.S_IMODE(os.stat(above).st_mode)
    os.rmdir(folder)
    os.chmod(above, 0o1777)  # noqa: S103 - for a moment; whoever makes it, the owner is looked at
    try:
        with acting_as(user):
            os.mkdir(folder, mode)
    finally:
        os.chmod(above, before)


def candidates(environment: Mapping[str, str], user: int | None) -> Iterator[str]:
    """Folders in which the socket of a mount of *user* may be, without duplicates.

    Raises :exc:`PermissionError`, after the last one, if :data:`SYSTEM` can't be listed.
    """
    refused: PermissionError | None = None
    found = [given_folder(environment), SYSTEM]
    try:
        with os.scandir(SYSTEM) as entries:
            found += sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except PermissionError as error:
        refused = error
    except OSError:
        pass  # root has no mount
    base = environment.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base):
        found.append(os.path.join(base, "zipfs"))
    if user is not None:
        found.append(f"{USERS}/{user}/zipfs")
    yield from filter(None, dict.fromkeys(found))
    if refused:
        raise refused
