"""The remedy where permission bits are in the way: chmod(1), if this user may do that there.

Only a file's owner and root may, and nobody on what is mounted read-only. A library often is
somebody else's, or a share: there chmod would be bad advice, and ``-R`` the worst.
"""

from __future__ import annotations

import os
import pwd

from zipfs.errors import UnansweredError
from zipfs.system.subprocesses import ask
from zipfs.text import quoted


def chmod_remedy(path: str, bits: str = "a+rX", *, below: bool = False) -> str:
    """How to give everybody *bits* of *path*, and of all that is *below* it."""
    shown = quoted(path)
    try:
        hindrance = ask(_hindrance, path)
    except (OSError, UnansweredError):
        hindrance = "its permissions can't be told"
    if hindrance:
        return f"{hindrance}; choose another user, or see to {shown} where it comes from"
    return f"chmod {'-R ' if below else ''}{bits} {shown}"


def _hindrance(path: str) -> str:
    """Why this user can't change permissions there; empty if nothing is in the way."""
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
