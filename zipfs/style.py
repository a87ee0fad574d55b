"""What the operator may choose of how archives state their files' names and dates.

Pure. A choice changes members, never how members become bytes: two mounts with the
same style give the same archives (DESIGN B1), and another style is another content
with validators of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from zipfs.names import entry_names
from zipfs.zipformat import DOS_MIN, archive_time

FIXED_TIME: Final = DOS_MIN + 86400
"""The date of all members where dates don't count, Unix seconds: 1980-01-02 00:00:00 UTC.

A day behind the first that DOS time can say: no time zone makes it 1979, which programs that
pack the files again refuse.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """*portable_names*: only names that Windows and macOS can create side by side.
    *fixed_times*: archives depend on names and content alone, for copies without dates."""

    portable_names: bool = False
    fixed_times: bool = False

    def names(self, paths: Iterable[bytes]) -> dict[bytes, bytes]:
        """The entry name of each path, see :func:`zipfs.names.entry_names`."""
        return entry_names(paths, portable=self.portable_names)

    def time(self, mtime: int) -> int:
        """The date to state for a file modified at *mtime*; both in Unix seconds."""
        return FIXED_TIME if self.fixed_times else archive_time(mtime)
