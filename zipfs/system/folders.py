"""Open folders, kept for a moment: a file is opened below its folder and not from ``/`` on.

A walk from the root asks a source about each folder on the way, for each file of a game of
thousands. With the folder kept open, the kernel looks up one name. What
:mod:`zipfs.system.paths` promises stays true: the folder was reached without following a link, and
in it a name alone is opened with ``O_NOFOLLOW``.

A folder that is open can have been renamed, deleted or replaced since; what is opened in it is
then not what has the path now. So a caller that doesn't find what it looks for opens it by its
path (:meth:`Folders.forget`); one that finds the file it looks for, by its state or its content,
has it, wherever that is by now.

Open folders keep a disk from being unmounted, as open files do: the owner closes them soon
(:meth:`Folders.idle`).
"""

from __future__ import annotations

import contextlib
import os
import time
from _thread import allocate_lock  # as in zipfs.system.syscalls
from collections import OrderedDict

from zipfs.system import syscalls
from zipfs.system.paths import open_path
from zipfs.system.syscalls import ENTER_FOLDER, NO_LINK


class _Folder:
    """An open folder; *users* are the calls that use its descriptor."""

    __slots__ = ("answers", "descriptor", "kept", "used_at", "users")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.kept = True
        self.users = 0
        self.used_at = 0.0
        self.answers = False
        """Whether its files can be opened without waiting, if the kernel knows their names."""


class Folders:
    """Up to *limit* open folders, the least recently used closed first. Thread-safe.

    Calls of the system are made outside the lock: a folder that hangs delays nobody else.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit if ENTER_FOLDER else 0
        self._lock = allocate_lock()
        self._kept: OrderedDict[bytes, _Folder] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def open(self, path: bytes, flags: int) -> int:
        """A descriptor of the file at the absolute *path*, as of :func:`open_path`.

        Raises :exc:`OSError`.
        """
        place, _, name = path.rpartition(b"/")
        if not self._limit or not place or name in (b"", b".", b".."):
            return open_path(path, flags)
        folder = self._enter(place)
        try:
            descriptor = os.open(name, flags | NO_LINK, dir_fd=folder.descriptor)
        finally:
            self._leave(folder)
        syscalls.keep_atime(descriptor, flags)
        return descriptor

    def open_at_once(self, path: bytes, flags: int) -> int | None:
        """The same without waiting for a disk, or None: only in a folder that *answers* so."""
        place, _, name = path.rpartition(b"/")
        folder = self._kept.get(place)
        if folder is None or not folder.answers or syscalls.open_known is None:
            return None
        with self._lock:
            if self._kept.get(place) is not folder:
                return None
            self._use(folder)
        try:
            descriptor = syscalls.open_known(folder.descriptor, name, flags | NO_LINK)
        except OSError:  # EAGAIN: the kernel doesn't know the name; others come again in a thread
            return None
        finally:
            self._leave(folder)
        syscalls.keep_atime(descriptor, flags)
        return descriptor

    def answers(self, path: bytes) -> None:
        """Record that the file at *path* is on a file system that answers from memory at once."""
        if folder := self._kept.get(path.rpartition(b"/")[0]):
            folder.answers = True

    def forget(self, path: bytes) -> bool:
        """Look for the folder of *path* anew the next time; whether it was kept."""
        place = path.rpartition(b"/")[0]
        with self._lock:
            known = place in self._kept
            closed = self._drop([place] if known else [])
        _close(closed)
        return known

    def idle(self, seconds: float) -> list[int]:
        """The descriptors of the folders unused for *seconds*, for the caller to close."""
        until = time.monotonic() - seconds
        with self._lock:
            kept = self._kept.items()
            return self._drop([p for p, f in kept if not f.users and f.used_at <= until])

    def close(self) -> None:
        """Close all folders that aren't in use, and wait for that."""
        _close(self.idle(-1))

    def _enter(self, place: bytes) -> _Folder:
        """The folder at *place*, to be left again."""
        with self._lock:
            if folder := self._kept.get(place):
                self._kept.move_to_end(place)
                return self._use(folder)
        found = _Folder(open_path(place, ENTER_FOLDER))
        with self._lock:
            if folder := self._kept.get(place):  # by another thread meanwhile
                closed = [found.descriptor]
            else:
                idle = [place for place, kept in self._kept.items() if not kept.users]
                closed = self._drop(idle[: max(0, len(self._kept) + 1 - self._limit)])
                folder = self._kept[place] = found
            self._use(folder)
        _close(closed)
        return folder

    def _use(self, folder: _Folder) -> _Folder:
        folder.users += 1
        folder.used_at = time.monotonic()
        return folder

    def _leave(self, folder: _Folder) -> None:
        with self._lock:
            folder.users -= 1
            unused = not folder.users and not folder.kept
        if unused:
            _close([folder.descriptor])

    def _drop(self, places: list[bytes]) -> list[int]:
        """Keep the folders at *places* no longer; the descriptors of those that nobody uses."""
        closed = []
        for place in places:
            folder = self._kept.pop(place)
            folder.kept = False
            if not folder.users:
                closed.append(folder.descriptor)
        return closed


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # as in zipfs.library.files.close_all
            os.close(descriptor)
