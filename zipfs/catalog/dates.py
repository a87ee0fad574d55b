"""When archives came to be here, and when listings changed (DESIGN F1).

An archive's mtime is a function of its content (DESIGN V3), so it goes back and forth with it.
What copies or serves what is new goes by other dates: GNU tar's incremental backups by ``ctime``,
``find -newer`` and media centres by the ``mtime`` of the folder, NFS clients by both. So

- an archive's ``ctime`` is the moment at which this version was published at this path. If it
  was away meanwhile, and be it for a moment, it is the moment at which it came back: a backup may
  have been made in between. It never goes back, also if the clock was set back;
- a folder's ``mtime`` and ``ctime`` are when its listing last changed: by a change in the
  library, which moves the times of its source, or by an archive that came or went.

Both are in the index, saved in batches: a crash loses the last moments, and losing the index
costs the truth of the dates, nothing else. A restart is no change. So what is published for the
first time since the start is compared with what the index has of its path; and after the first
scan in which all disks answer, what the index has and the mount hasn't is withdrawn.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar

from zipfs.catalog.saver import Saver, drop_saved
from zipfs.index.index import Index
from zipfs.index.rows import NONE, Published
from zipfs.library.filestate import FileState
from zipfs.system.threads.lanes import Threads

T = TypeVar("T")

_SAVE_SECONDS: Final = 0.2
"""Seconds between two times that dates are saved: less than archives take to become another
version, so that a crash doesn't hide one."""


_MEMORY: Final = 10_000
"""Number of archives that went, lists above all, whose dates are in memory."""


class Dates:
    """Dates of archives and folders, by their path in the mount, saved to *index*.

    *redated* is called with the path of each folder that has other dates now.

    The methods belong to trio's thread, unless they say otherwise. Times are nanoseconds since
    the epoch.
    """

    def __init__(self, index: Index, redated: Callable[[bytes], object]) -> None:
        self._index = index
        self._redated = redated
        # A thread of its own: saving must not wait for the library's disk.
        self._in_thread = Threads(1).run
        self._folders: dict[bytes, int] = {}
        self._withdrawn: OrderedDict[bytes, int] = OrderedDict()
        """Archives that went, and when: the last :data:`_MEMORY`. The index has them, too, but
        who examines may have asked it before."""
        self._is_loaded = False
        self._is_compared = False
        self._archives_unsaved: dict[bytes, Published] = {}
        self._folders_unsaved: dict[bytes, int] = {}
        self._saver = Saver(self._save, _SAVE_SECONDS)

    async def load(self) -> None:
        """Load the dates of all folders, once; before that they are those of the library."""
        if not self._is_loaded:
            self._is_loaded = True
            for path, changed_ns in (await self._in_thread(self._index.folders)).items():
                self._folders[path] = max(changed_ns, self._folders.get(path, changed_ns))

    def last(self, archive: bytes) -> Published | None:
        """In a worker thread: what the index has of the path *archive*."""
        return self._index.archive(archive)

    def of_folder(self, path: bytes, status: os.stat_result) -> int:
        """When the listing of the folder at *path* last changed; in any thread.

        *status* is the stat result of its source. A modification time in the future was set by
        somebody, and would hide all changes until then.
        """
        state = FileState.of(status)
        changed_ns = max(state.ctime_ns, self._folders.get(path, state.ctime_ns))
        return max(changed_ns, state.mtime_ns) if state.mtime_ns <= time.time_ns() else changed_ns

    def published(self, archive: bytes, inode: int, last: Published | None) -> int:
        """The version *inode* of *archive* is there from now on; since when it counts as there.

        *last* is what the index had of it.
        """
        withdrawn_ns = self._withdrawn.pop(archive, None)
        if withdrawn_ns is not None:
            last = Published(NONE, withdrawn_ns)
        if last and last.inode == inode:
            return last.since_ns  # since before the start
        since_ns = _later_than(last.since_ns if last else None)
        self._note(archive, Published(inode, since_ns))
        return since_ns

    def withdrawn(self, archive: bytes, since_ns: int) -> None:
        """The version of *archive* that was there since *since_ns* isn't any more."""
        now = _later_than(since_ns)
        self._withdrawn[archive] = now
        self._withdrawn.move_to_end(archive)
        self._note(archive, Published(NONE, now))

    def _note(self, archive: bytes, published: Published) -> None:
        self._archives_unsaved[archive] = published
        self.moved(archive)

    def moved(self, path: bytes) -> None:
        """The folder that *path* is in shows something else there now."""
        folder = path.rpartition(b"/")[0]
        now = _later_than(self._folders.get(folder))
        self._folders[folder] = self._folders_unsaved[folder] = now
        self._redated(folder)
        self._saver.changed()

    async def compare(self, is_there: Callable[[bytes], object]) -> None:
        """Withdraw what the index has and *is_there* denies, once: it went before the start.

        *is_there* is called in any thread.
        """
        if self._is_compared:
            return
        self._is_compared = True
        after: bytes | None = b""
        while after is not None:
            missing, after = await self._in_thread(self._missing, after, is_there)
            for path, since_ns in missing:
                if not (is_there(path) or path in self._withdrawn):
                    self.withdrawn(path, since_ns)

    def _missing(
        self, after: bytes, is_there: Callable[[bytes], object]
    ) -> tuple[list[tuple[bytes, int]], bytes | None]:
        found, following = self._index.archives_after(after)
        missing = [
            (path, last.since_ns)
            for path, last in found
            if last.inode != NONE and not is_there(path)
        ]
        return missing, following

    async def run(self) -> None:
        """Save what changes, for ever."""
        await self._saver.run()

    async def save(self) -> None:
        """Save all that isn't saved."""
        await self._saver.now()

    async def _save(self) -> None:
        archives, folders = dict(self._archives_unsaved), dict(self._folders_unsaved)
        if not (archives or folders):
            return
        await self._in_thread(self._index.put_dates, archives, folders)
        drop_saved(self._archives_unsaved, archives)
        drop_saved(self._folders_unsaved, folders)
        while len(self._withdrawn) > _MEMORY:
            if next(iter(self._withdrawn)) in self._archives_unsaved:
                break
            self._withdrawn.popitem(last=False)


def _later_than(before: int | None) -> int:
    """Now, or if that isn't later than *before*, a nanosecond after that."""
    now = time.time_ns()
    return now if before is None else max(now, before + 1)
