"""Mount points: what has to be true before a mount, and taking one away.

A dead FUSE mount answers ``ENOTCONN``; even ``stat`` of a live one asks its daemon.
So what is mounted is read from ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from zipfs.errors import FuseError, MountpointError

DEVICE = "/dev/fuse"
FUSE_CONF = "/etc/fuse.conf"
SUBTYPE = "zipfs"
_CONNECTIONS = "/sys/fs/fuse/connections"
_INSTALL = "install the package fuse3"


class Mount(NamedTuple):
    """One line of mountinfo: *device* is ``MAJOR:MINOR``, *kind* like ``fuse.zipfs``.

    *options* are the file system's, like ``rw,user_id=0,group_id=0,default_permissions``.
    """

    device: str
    path: str
    kind: str
    options: str = ""


def mounts() -> Iterator[Mount]:
    """All mounts of this mount namespace, in the order they were made."""
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            before, _, after = line.partition(b" - ")
            fields = before.split()
            path = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), fields[4])
            kind, *_, options = after.rstrip(b"\n").split(b" ")
            yield Mount(fields[2].decode(), os.fsdecode(path), kind.decode(), os.fsdecode(options))


def mounted_at(path: str) -> Mount | None:
    """The topmost mount at the absolute *path*."""
    found = None
    for mount in mounts():
        if mount.path == path:
            found = mount
    return found


def check_fuse(*, allow_other: bool) -> None:
    """Raise :exc:`FuseError` if this user can't mount, saying what is missing."""
    if not os.path.exists(DEVICE):
        raise FuseError(
            f"there is no {DEVICE}: load the kernel module (modprobe fuse);"
            " in a container, pass the device in (--device /dev/fuse)"
        )
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        raise FuseError(f"no permission to open {DEVICE}; distributions ship it with mode 0666")
    if os.geteuid() == 0:
        return
    if shutil.which("fusermount3") is None:
        raise FuseError(f"fusermount3 isn't there, and only root can mount without: {_INSTALL}")
    if allow_other and not _user_allow_other():
        raise FuseError(
            f"--allow-other is forbidden to users: an administrator has to add the line"
            f" 'user_allow_other' to {FUSE_CONF}"
        )


def _user_allow_other() -> bool:
    try:
        with open(FUSE_CONF, encoding="utf-8", errors="replace") as lines:
            return any(line.strip() == "user_allow_other" for line in lines)
    except OSError:
        return False


def prepare(mountpoint: str, library: str) -> str:
    """The absolute path of *mountpoint*, made sure to be fit for mounting *library*.

    A mount of ours that died is cleared away first. Raises
    :exc:`MountpointError`.
    """
    # Not realpath of the whole: a dead mount can't be looked at. Its parent can.
    parent, name = os.path.split(os.path.abspath(mountpoint))
    path = os.path.join(os.path.realpath(parent), name)
    if os.path.islink(path):
        path = os.path.realpath(path)
    if mount := mounted_at(path):
        if mount.kind != f"fuse.{SUBTYPE}" or not is_dead(path):
            raise MountpointError(
                f"something is mounted on {mountpoint} already; take it away first:"
                f" zipfs unmount {mountpoint}"
            )
        unmount(path)
    try:
        if os.listdir(path):
            raise MountpointError(
                f"the mount point {mountpoint} isn't empty; choose an empty folder"
            )
    except FileNotFoundError:
        raise MountpointError(
            f"there is no folder {mountpoint} to mount on; make it: mkdir -p {mountpoint}"
        ) from None
    except NotADirectoryError:
        raise MountpointError(f"the mount point {mountpoint} isn't a folder") from None
    except OSError as error:
        raise MountpointError(f"can't use the mount point {mountpoint}: {error.strerror}") from None
    library = os.path.realpath(library)
    # Either would make the file system wait for itself.
    if os.path.commonpath([path, library]) in (path, library):
        raise MountpointError(
            f"the mount point {mountpoint} and the library lie one in the other;"
            " choose a folder elsewhere"
        )
    return path


def is_dead(path: str) -> bool:
    """Whether the mount at *path* has lost its daemon."""
    try:
        # Not stat: for a second the kernel answers that from its cache.
        os.statvfs(path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def unmount(mountpoint: str, *, lazy: bool = True) -> None:
    """Take a mount away; *lazy* even if it is in use. Raises :exc:`MountpointError`."""
    helper = shutil.which("fusermount3")
    if helper:
        command = [helper, "-u", *(["-z"] if lazy else []), "--", mountpoint]
    elif os.geteuid() == 0:
        command = ["umount", *(["-l"] if lazy else []), "--", mountpoint]
    else:
        raise FuseError(f"fusermount3 isn't there, and only root can unmount without: {_INSTALL}")
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()
        raise MountpointError(
            f"can't unmount {mountpoint}: {reason[-1] if reason else f'status {done.returncode}'}"
        )


def set_read_ahead(path: str, kib: int) -> str | None:
    """Set the kernel's read-ahead for the mount at *path*; a reason if it can't be.

    ``/sys/class/bdi/MAJOR:MINOR/read_ahead_kb``, which root may write.
    """
    mount = mounted_at(path)
    if mount is None:
        return "the mount isn't there"
    try:
        with open(f"/sys/class/bdi/{mount.device}/read_ahead_kb", "w", encoding="ascii") as file:
            file.write(str(kib))
    except OSError as error:
        return error.strerror or str(error)
    return None


def set_max_background(path: str, requests: int) -> str | None:
    """How many of the kernel's reads ahead may be under way; a reason if it can't be set.

    fuse(4): /sys/fs/fuse/connections/MINOR. The default of 12 is for one disk: a
    dozen reads of one that doesn't answer would hold up all others.
    """
    mount = mounted_at(path)
    if mount is None:
        return "the mount isn't there"
    folder = f"{_CONNECTIONS}/{mount.device.partition(':')[2]}"
    limits = {"max_background": requests, "congestion_threshold": requests * 3 // 4}
    if not os.path.isdir(folder) and os.geteuid() == 0 and os.path.isdir(_CONNECTIONS):
        return _set_in_private(folder, limits)
    try:
        for name, value in limits.items():
            with open(f"{folder}/{name}", "w", encoding="ascii") as file:
                file.write(str(value))
    except OSError as error:
        return error.strerror or str(error)
    return None


def _set_in_private(folder: str, limits: dict[str, int]) -> str | None:
    """Write *limits* where fusectl isn't mounted, as in most containers.

    In a mount namespace that ends with the command: nobody else sees a difference.
    """
    script = "; ".join(f"echo {value} > {folder}/{name}" for name, value in limits.items())
    mount = f"mount -t fusectl fusectl {_CONNECTIONS}"
    try:
        done = subprocess.run(
            ["unshare", "--mount", "--", "sh", "-e", "-c", f"{mount}; {script}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    return None
