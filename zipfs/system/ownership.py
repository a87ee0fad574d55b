"""Overrides of owner, group and permissions of all files and folders.

The same options as for file systems without owners (mount(8), vfat: ``uid=``, ``gid=``,
``umask=``). They are the operator's explicit choice, against DESIGN H3.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass

_FOLDER = 0o777
_FILE = 0o666


@dataclass(frozen=True, slots=True)
class Ownership:
    """Overrides for uid, gid and mode; None keeps the source's."""

    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    """Permission bits that are cleared; all others are set, except for execution of files."""

    def mode(self, mode: int) -> int:
        """The st_mode that is shown for the source's *mode*."""
        if self.umask is None:
            return mode
        all_of_it = _FOLDER if stat.S_ISDIR(mode) else _FILE
        return stat.S_IFMT(mode) | (all_of_it & ~self.umask)


def number_of(name: str | int, *, group: bool = False) -> int:
    """The uid, or the gid of a *group*, for a number or a name. Raises :exc:`ValueError`."""
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
    """The umask from *text*, octal digits such as ``022``. Raises :exc:`ValueError`."""
    if not re.fullmatch("0?o?[0-7]{1,4}", text) or int(text, 8) > 0o777:
        raise ValueError(f"{text!r} isn't a umask in octal digits, like '022'")
    return int(text, 8)
