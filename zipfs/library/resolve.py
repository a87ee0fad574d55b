"""Resolving the locations of lists to files of the library.

A path is walked from the library's root, component by component, and each folder is looked at
once for all paths through it. Links follow the rules of :mod:`zipfs.library.library`: none leads
out of the library.

Touches the disk: call it from a worker thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from zipfs.library.scan import NO_LINKS, Entry, LeftOut, Origins
from zipfs.system.paths import join
from zipfs.text import shown

_EVERYBODY_ENTERS: Final = 0o111


class UnusableError(Exception):
    """A path doesn't lead to a file that can be a member; the message says why."""


class Folders:
    """Cache of the folders above the files of one list. *look* is the library's ``entry``."""

    def __init__(self, look: Callable[[bytes, Origins], Entry | LeftOut | None]) -> None:
        self._look = look
        self._root = self._entry(b"", b"", NO_LINKS)
        self._folders: dict[bytes, Entry] = {b"": self._root}

    def file(self, path: bytes) -> Entry:
        """The file at *path*, links followed. Raises :exc:`UnusableError`."""
        parent, _, name = path.rpartition(b"/")
        folder = self._folders.get(parent) or self._folder(parent)
        found = self._entry(path, join(folder.source, name), folder.origins)
        if found.is_folder:
            raise UnusableError(f"{shown(path)} is a folder")
        return found

    def private(self) -> list[os.stat_result]:
        """Stat results of the folders that not everybody can enter.

        The others don't restrict access to what they hold.
        """
        return [
            folder.status
            for folder in self._folders.values()
            if folder.status.st_mode & _EVERYBODY_ENTERS != _EVERYBODY_ENTERS
        ]

    def _folder(self, path: bytes) -> Entry:
        # From the root, and only as far as folders exist: a path can be very long.
        folder = self._root
        start = 0
        while start <= len(path):
            end = path.find(b"/", start)
            end = len(path) if end < 0 else end
            way = path[:end]
            known = self._folders.get(way)
            if known is None:
                known = self._entry(way, join(folder.source, path[start:end]), folder.origins)
                if not known.is_folder:
                    raise UnusableError(f"{shown(way)} isn't a folder")
                self._folders[way] = known
            folder = known
            start = end + 1
        return folder

    def _entry(self, path: bytes, source: bytes, origins: Origins) -> Entry:
        """The entry at *source*, named *path* in the list. Raises :exc:`UnusableError`."""
        try:
            found = self._look(source, origins)
        except TimeoutError:
            raise
        except OSError as error:
            raise UnusableError(f"{shown(path)} can't be looked at: {error.strerror}") from None
        if found is None:
            raise UnusableError(f"there is no {shown(path)} in the library")
        if isinstance(found, LeftOut):
            raise UnusableError(f"{shown(path)} is {found.reason}")
        return found
