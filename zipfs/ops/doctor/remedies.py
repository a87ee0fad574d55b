"""The remedy for permission bits that refuse access: chmod(1), if this user may run it there.

Only a file's owner and root may run it, and nobody on a read-only mount. A library often has
another owner, or is a share: there chmod is bad advice, and ``-R`` worse.
"""

from __future__ import annotations

import os
import pwd

from zipfs.errors import UnansweredError
from zipfs.system.subprocesses import ask
from zipfs.text import quoted


def chmod_remedy(path: str, bits: str = "a+rX", *, below: bool = False) -> str:
    """The remedy that sets the permissions *bits* on *path*, and with *below* on all in it."""
    shown = quoted(path)
    try:
        hindrance = ask(_hindrance, path)
    except (OSError, UnansweredError):
        hindrance = "its permissions can't be read"
    if hindrance:
        return f"{hindrance}; choose another user, or change {shown} where it comes from"
    return f"chmod {'-R ' if below else ''}{bits} {shown}"


def _hindrance(path: str) -> str:
    """Why this user can't change the permissions of *path*; empty if it can."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "it is mounted read-only"
    owner = os.stat(path).st_uid
    if os.geteuid() in (0, owner):
        return ""
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = str(owner)
    return f"only its owner, {name}, can change it"
