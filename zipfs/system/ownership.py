"""Whose files are said to be, where they aren't whose they are at their source.

As other file systems have it that keep no owners of their own (mount(8), for vfat: ``uid=``,
``gid=``, ``umask=``). It is the operator's explicit choice, against DESIGN H3.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass

_FOLDER = 0o777
_FILE = 0o666


@dataclass(frozen=True, slots=True)
class Ownership:
    """What is said in place of what is; None: that."""

    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    """The permissions that nobody has; all others everybody has, but to execute a file."""

    def mode(self, mode: int) -> int:
        """What is shown for the st_mode *mode*."""
        if self.umask is None:
            return mode
        all_of_it = _FOLDER if stat.S_ISDIR(mode) else _FILE
        return stat.S_IFMT(mode) | (all_of_it & ~self.umask)


def number_of(name: str | int, *, group: bool = False) -> int:
    """The uid, or the gid of a *group*, that *name* is, or is called. Raises ValueError."""
    if isinstance(name, str) and not re.fullmatch("[0-9]+", name):
        return _looked_up(name, group=group)
    number = int(name)
    if not 0 <= number < 0xFFFF_FFFF:  # the highest means "unchanged", chown(2)
        raise ValueError(f"{name} is no number of a {'group' if group else 'user'}")
    return number


def _looked_up(name: str, *, group: bool) -> int:
    try:
        import grp  # noqa: PLC0415 - there is none on Windows
        import pwd  # noqa: PLC0415

        return grp.getgrnam(name).gr_gid if group else pwd.getpwnam(name).pw_uid
    except (ImportError, KeyError):
        what = "group" if group else "user"
        raise ValueError(f"there is no {what} {name!r} on this system") from None


def umask_of(text: str) -> int:
    """The umask that *text* is in octal digits, such as ``022``. Raises ValueError."""
    if not re.fullmatch("0?o?[0-7]{1,4}", text) or int(text, 8) > 0o777:
        raise ValueError(f"{text!r} isn't a umask in octal digits, like '022'")
    return int(text, 8)
