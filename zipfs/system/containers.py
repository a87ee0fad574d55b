"""Containers, as far as a process in one can see: rights, user namespace, propagation of mounts.

Paths of the system's files are arguments, so that tests can pass others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from zipfs.system.mounts import Mount, is_inside

SYS_ADMIN: Final = 1 << 21
"""CAP_SYS_ADMIN: capabilities(7), <linux/capability.h>."""
_SELF: Final = "/proc/self/status"
_UID_MAP: Final = "/proc/self/uid_map"
_ALL_USERS: Final = ["0", "0", "4294967295"]

Reach = Literal["shared", "own root", "kept in"]
"""Where a mount made in a container is seen: wherever the folder above is shared; in this
container, whose own root folder it is in; in it although the folder above is bound into it."""


def in_container(root: str = "/", environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is in a container, by the files and variables that engines set."""
    marks = (".dockerenv", "run/.containerenv", "run/systemd/container")
    return "container" in environment or any(os.path.exists(root + mark) for mark in marks)


def fields_of(status: str = _SELF) -> dict[str, str]:
    """The fields of the file *status*, by name: proc_pid_status(5)."""
    with open(status, encoding="utf-8", errors="replace") as lines:
        pairs = (line.split(":", 1) for line in lines if ":" in line)
        return {name: value.strip() for name, value in pairs}


def may_mount(fields: Mapping[str, str]) -> bool:
    """Whether a process of root with *fields* has the capability that mount(2) needs."""
    return bool(int(fields.get("CapEff", "0"), 16) & SYS_ADMIN)


def may_gain_mounting(fields: Mapping[str, str]) -> bool:
    """Whether a program of root's, such as fusermount3, has that capability when run here."""
    return bool(int(fields.get("CapBnd", "0"), 16) & SYS_ADMIN)


def apparmor(file: str = "/proc/self/attr/current") -> str:
    """The AppArmor profile that confines this process; empty if there is none."""
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            profile, _, mode = stream.read().rstrip("\n\0").rpartition(" ")
    except OSError:
        return ""
    return profile if mode in ("(enforce)", "(kill)") else ""


def in_user_namespace(file: str = _UID_MAP) -> bool:
    """Whether root here is another user outside, as with a rootless engine: user_namespaces(7)."""
    try:
        with open(file, encoding="ascii") as lines:
            return lines.read().split() != _ALL_USERS
    except OSError:
        return False


def reach(path: str, mounted: Sequence[Mount]) -> Reach:
    """Where a mount on the absolute *path* is seen, by the *mounted* file system it lies in."""
    above = None
    for mount in mounted:
        at_point = mount.path == path and path != "/"
        if not at_point and is_inside(path, mount.path):
            above = mount if above is None or len(mount.path) >= len(above.path) else above
    if above is None or above.shared:
        return "shared"
    return "own root" if above.path == "/" else "kept in"
