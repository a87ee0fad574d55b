"""Names as the library lists them, on disks that find a name by another case as well.

FAT, exFAT, NTFS, SMB, HFS+ and ext4's casefold find ``Roms`` where ``roms`` is. A name that
isn't listed isn't there for zipfs, whose rules go by names, and whose archives are the same on
every disk. What a disk does is found out by asking, once for each folder, as it can differ
between two folders of one disk: where a name exists and the same in the other case doesn't, names
are exact, and nothing more is asked. Elsewhere a name counts if the folder lists it.

The answer to an unlisted name costs a listing, that to a listed one a look at the folder's state.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from zipfs.library.filestate import FileState

_FOLDERS: Final = 10_000
"""Number of folders with exact names that are remembered."""
_NAMES: Final = 50_000
"""Number of names kept of other folders; a single one may have more."""


class ExactNames:
    """Knows how folders look up names. Paths are sources; it belongs to worker threads.

    *exists* returns whether there is something at a path, and True if that isn't known; *state*
    and *names* are a folder's. What is known holds for one *generation*.
    """

    def __init__(
        self,
        exists: Callable[[bytes], bool],
        state: Callable[[bytes], FileState],
        names: Callable[[bytes], list[bytes]],
        generation: Callable[[], int],
    ) -> None:
        self._exists = exists
        self._state = state
        self._list = names
        self._generation = generation
        self._known_in = -1
        self._lock = threading.Lock()
        self._exact: set[bytes] = set()
        self._listed: OrderedDict[bytes, tuple[FileState, frozenset[bytes]]] = OrderedDict()

    def is_listed(self, source: bytes) -> bool:
        """Whether the folder of *source*, which was found there, lists it by that very name.

        Raises :exc:`OSError`.
        """
        generation = self._generation()
        if generation != self._known_in:
            with self._lock:
                self._exact.clear()
                self._listed.clear()
                self._known_in = generation
        folder, _, name = source.rpartition(b"/")
        if folder in self._exact:
            return True
        other = name.swapcase()  # of ASCII letters, which every such disk folds
        if other != name:
            beside = source[: len(source) - len(name)] + other
            if not self._exists(beside) and self._exists(source):
                with self._lock:
                    if len(self._exact) >= _FOLDERS:
                        self._exact.clear()
                    self._exact.add(folder)
                return True
        return self._is_in_listing(folder, name)

    def _is_in_listing(self, folder: bytes, name: bytes) -> bool:
        state = self._state(folder)
        known = self._listed.get(folder)
        if known and known[0] == state and name in known[1]:
            return True
        names = frozenset(self._list(folder))
        with self._lock:
            self._listed[folder] = state, names
            self._listed.move_to_end(folder)
            while (
                len(self._listed) > 1
                and sum(len(listed) for _, listed in self._listed.values()) > _NAMES
            ):
                self._listed.popitem(last=False)
        return name in names
