"""Whether the states of files mean the same here as where they were recorded.

Heads that mount one export of NFS see one inode and one ctime of a file; on copies of a library,
or below other file systems, they see others. So some files are looked at. Each whose size and mtime
are as recorded votes: its inode and ctime are so as well, or they aren't. A file that isn't there,
or has another size or mtime, says nothing: it has changed since.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, NamedTuple

from zipfs.library.filestate import FileState
from zipfs.library.scan import Entry
from zipfs.library.view import LibraryView

SAMPLE: Final = 64
"""Number of files that are looked at."""
_PATIENCE: Final = 10.0
"""Seconds in which the library has to answer."""


class Votes(NamedTuple):
    """Numbers of files."""

    same: int
    """Their whole states are as recorded."""
    other: int
    """Their sizes and mtimes are, and nothing else."""
    silent: int
    """They have changed, or aren't there."""

    @property
    def agree(self) -> bool | None:
        """Whether states are comparable; None if nothing tells."""
        if not (self.same or self.other):
            return None
        return self.same > self.other  # a few were changed by chmod


def compare(library: LibraryView, recorded: Sequence[tuple[bytes, FileState]]) -> Votes:
    """The votes of *recorded* files of *library*. May hang in its disk."""
    same = other = 0
    for source, state in recorded:
        try:
            entry = library.entry(source)
        except OSError:
            continue
        if not isinstance(entry, Entry) or entry.is_folder:
            continue
        now = library.file(b"", entry).state
        if now == state:
            same += 1
        elif now.has_content_of(state):
            other += 1
    return Votes(same, other, len(recorded) - same - other)


def compare_within(
    library: LibraryView, recorded: Sequence[tuple[bytes, FileState]], seconds: float = _PATIENCE
) -> Votes | None:
    """The same; None if the library doesn't answer in time. Its thread is left alone then."""
    found: list[Votes] = []
    thread = threading.Thread(
        target=lambda: found.append(compare(library, recorded)), name="zipfs-probe", daemon=True
    )
    thread.start()
    thread.join(seconds)
    return found[0] if found else None
