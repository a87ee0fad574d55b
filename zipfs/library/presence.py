"""Whether the library's own place is there: its root, and each mount point below.

Theory. An unmounted disk leaves an empty folder, or none, and looks like a library from which
everything was deleted; who mirrors that deletes everything (DESIGN H6). What tells the two
apart is the folder itself. So each *place* is known by its identity (device, inode, mount) while
it is in order:

    its folder is           and holds           so the place is
    the one that it was     anything, nothing   there: what is gone from it was removed
    another                 something           gone, until it was looked at anew; then there
    another                 nothing but litter  gone
    not to be looked at                         gone

A place that is gone stays so until :meth:`Presence.accept`; until then all that is asked of it
ends in :exc:`GoneError`. So "back" comes before the first answer: whoever accepts it has found
out the library's structure (:mod:`zipfs.catalog.presence`).

When it is looked at:

- An answer that is *nothing* (no such name, an empty folder, a game that isn't there), or an
  error, is only given once the places on its way are still the same (:meth:`Presence.asking`):
  one statx(2) each, after the answer, in the same worker thread. What was seen while a place was
  exchanged isn't given either (:attr:`Presence.generation`).
- When the table of mounts changes, those places whose line in it changed.
- Once a second while one is gone.

Where a mount is made and unmade at an access (autofs), being unmounted is no news: such places
aren't looked at for the table's sake, since that would mount them again, for ever.

Where inodes change by themselves, the device and the mount are the identity.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from zipfs.errors import GoneError
from zipfs.library.place import (
    NO_LINE,
    Gone,
    KnownPlace,
    Seen,
    has_content,
    holding,
    is_in,
    line_of,
    look,
    reason_of,
    see,
    stays,
)
from zipfs.system.filesystems import file_system
from zipfs.system.mounts import mounts, mounts_below
from zipfs.system.paths import is_within
from zipfs.system.syscalls import Identity

ANOTHER: Final = "another folder is there now"
EMPTY: Final = "the folder there is empty, and another one than before"
STILL_EMPTY: Final = "it is empty, and the index knows files of it"


class Presence:
    """The places of the library at the absolute path *root*. Any thread may use it.

    The root is gone from the beginning if that has a reason: *gone*.
    """

    def __init__(self, root: bytes, gone: str = "") -> None:
        self.root: Final = root
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        top = KnownPlace(b"", root)
        if not gone:
            top.seen = see(root)
        self._places: dict[bytes, KnownPlace] = {b"": top}  # replaced as a whole
        self._gone: dict[bytes, Gone] = {}  # likewise
        self._inodes_last: dict[bytes, bool] = {}
        self.generation = 0
        """Changes with whatever makes an answer that was begun before worthless."""
        self.lost: Callable[[], object] = lambda: None
        """Called, in any thread, when a place is found gone."""
        if gone:
            self._lose(top, gone)

    # -- What is known, without a look at a disk ---------------------------------

    @property
    def gone(self) -> Sequence[Gone]:
        """The places that are gone."""
        return tuple(self._gone.values())

    @property
    def is_gone(self) -> bool:
        """Whether the library as a whole is."""
        return b"" in self._gone

    @property
    def places(self) -> Sequence[bytes]:
        """The sources of all places; ``b""`` is the root."""
        return tuple(self._places)

    def gone_at(self, source: bytes) -> Gone | None:
        """The place that is gone, and *source* is or is in; None if there is none."""
        if not self._gone:
            return None
        return next((gone for gone in self._gone.values() if is_in(source, gone.source)), None)

    def check(self, source: bytes, *, inside: bool = False) -> None:
        """Raise :exc:`GoneError` if *source* is in a place that is gone, or *inside* holds one."""
        if self._gone:
            for gone in self._gone.values():
                if is_in(source, gone.source) or (inside and is_in(gone.source, source)):
                    raise _gone_error(gone.reason)

    def missing_in(self, folder: bytes) -> list[bytes]:
        """The names of the places that are gone, and were in the folder with that source."""
        sources = (source for source in self._gone if source)
        return [
            source.rpartition(b"/")[2] for source in sources if source.rpartition(b"/")[0] == folder
        ]

    def last_seen(self, source: bytes) -> os.stat_result | None:
        """The folder of the place at *source*, when it was last there."""
        place = self._places.get(source)
        return place.seen.status if place and place.seen else None

    # -- Answers ------------------------------------------------------------------

    def asking(self, source: bytes, *, inside: bool = False) -> Asking:
        """A context for a question about *source*, and what is in it, if *inside*."""
        return Asking(self, source, inside=inside)

    def confirm(
        self, source: bytes, since: int, *, inside: bool = False, thoroughly: bool = False
    ) -> None:
        """Raise :exc:`GoneError` unless all places on the way to *source* are what they were.

        *since* is the :attr:`generation` before what is to be confirmed. With *thoroughly* each
        is listed, as a dead disk may have attributes, but nothing else. In a worker thread.
        """
        for place in list(self._places.values()):
            if place.seen is None or not (
                is_in(source, place.source) or (inside and is_in(place.source, source))
            ):
                continue
            try:
                now = look(place.path, listed=thoroughly)
            except TimeoutError:
                raise
            except OSError as error:
                if self._is_denied(place, error):
                    continue
                if self._is_elsewhere(place):
                    continue
                raise self._lose(place, reason_of(error)) from None
            if not self._is_same(place, now):
                raise self._lose(place, ANOTHER)
        self.check(source, inside=inside)
        if since != self.generation:
            raise _gone_error(ANOTHER)

    def is_root(self, status: os.stat_result) -> bool:
        """Whether *status*, of the root now, is that of the folder it was."""
        seen = self._places[b""].seen
        if seen is None:
            return False
        return seen.identity.device == status.st_dev and (
            seen.identity.inode == status.st_ino or not self._has_inodes(b"")
        )

    def has_content(self) -> bool:
        """Whether the root holds more than systems leave behind; raises :exc:`OSError`."""
        return has_content(self.root)

    def identities(self) -> list[Identity | None]:
        """What all places are now, to compare; None for those that can't be looked at.

        In a worker thread. Raises :exc:`OSError` for the root.
        """
        found: list[Identity | None] = [look(self.root)]
        for place in list(self._places.values()):
            try:
                found.append(look(place.path))
            except OSError:
                found.append(None)
        return found

    # -- The places ---------------------------------------------------------------

    def expect(self) -> None:
        """The library held files once: it is gone if it is empty."""
        place = self._places[b""]
        try:
            if not has_content(place.path):
                self._lose(place, STILL_EMPTY)
        except OSError as error:
            self._lose(place, reason_of(error))

    def read_mounts(self) -> list[bytes]:
        """Read the table of mounts; returns the places that have to be looked at for it.

        Touches no disk. Raises :exc:`OSError` where there is no such table.
        """
        with self._reading:
            return self._read_mounts()

    def _read_mounts(self) -> list[bytes]:
        root = os.fsdecode(self.root)
        table = list(mounts())
        lines = {line_of(mount): os.fsencode(mount.path) for mount in table}
        below = mounts_below(root, table)
        mounted = {os.fsencode(mount.path): mount for mount in below}
        places = dict(self._places)
        for path, mount in mounted.items():
            source = path[len(self.root.rstrip(b"/")) + 1 :]
            if is_within(path, self.root) and source not in places and stays(mount):
                places[source] = KnownPlace(source, path)
        doubtful = []
        for source, place in list(places.items()):
            on = mounted.get(place.path) or holding(place.path, below)
            if on:
                self._inodes_last[source] = file_system(on.kind, on.options).inodes_last
            is_automatic = on is not None and on.kind == "autofs"
            if source and place.path not in mounted:
                if is_automatic:
                    del places[source]
                    continue
                place.moved = lines.get(place.own)
            elif on:
                place.own = line_of(on)
            line = line_of(on) if on else NO_LINE
            if line != place.line:
                place.line = line
                if not is_automatic:
                    doubtful.append(source)
        with self._lock:
            self._places = places
            self._gone = {key: gone for key, gone in self._gone.items() if key in places}
        return doubtful

    def look(self, source: bytes) -> Seen | None:
        """Look at the place at *source*; None if it is gone. In a worker thread.

        What is seen is in order, or can become so by :meth:`accept`: see :meth:`is_news`.
        """
        place = self._places.get(source)
        if place is None:
            return None
        try:
            seen = see(place.path)
            is_same = place.seen is not None and self._is_same(place, seen.identity)
            trusted = is_same and not place.gone
            is_known = place.seen is not None or place.gone is not None
            if not trusted and is_known and not has_content(place.path):
                self._lose(place, EMPTY)
                return None
        except TimeoutError:
            raise
        except OSError as error:
            if place.seen is None:  # such as a mount that only its user may enter
                return None  # or gone from the beginning
            if self._is_denied(place, error):
                return place.seen
            if not self._is_elsewhere(place):
                self._lose(place, reason_of(error))
            return None
        if not is_same and place.seen is not None:
            self._lose(place, ANOTHER)
        return seen

    def is_news(self, source: bytes) -> bool:
        """Whether the place at *source* has to be accepted: it is new, or counts as gone."""
        place = self._places.get(source)
        return place is not None and (place.gone is not None or place.seen is None)

    def accept(self, source: bytes, seen: Seen, *, is_old: bool = False) -> bool:
        """*seen* is the place from now on, unless it is another one again.

        *is_old* if it was mounted all the time, and answers knew of it.
        """
        place = self._places.get(source)
        if place is None or look(place.path) != seen.identity:
            return False
        with self._lock:
            place.seen = seen
            place.gone = None
            self._gone = {key: gone for key, gone in self._gone.items() if key != source}
            if not is_old:
                self.generation += 1
        return True

    def _lose(self, place: KnownPlace, reason: str) -> GoneError:
        with self._lock:
            was = place.gone
            if was is None or was.reason == ANOTHER != reason:  # it is known better now
                place.gone = Gone(place.source, reason, was.since if was else time.time())
                self._gone = {**self._gone, place.source: place.gone}
                self.generation += 1
        if was is None:
            self.lost()
        return _gone_error(reason)

    def _drop(self, source: bytes) -> None:
        with self._lock:
            self._places = {key: at for key, at in self._places.items() if key != source}
            self._gone = {key: gone for key, gone in self._gone.items() if key != source}
            self.generation += 1

    def _is_same(self, place: KnownPlace, now: Identity) -> bool:
        seen = place.seen
        if seen is None or seen.identity == now:
            return seen is not None
        return not self._has_inodes(place.source) and (seen.identity._replace(inode=0)) == (
            now._replace(inode=0)
        )

    def _is_elsewhere(self, place: KnownPlace) -> bool:
        """Whether a place that can't be looked at is still there, at another path.

        That is no event in the table of mounts. It is a place at its new path then.
        """
        try:
            self.read_mounts()
            if place.moved is None or place.seen is None:
                return False
            if look(place.moved) != place.seen.identity:
                return False
        except OSError:
            return False
        self._drop(place.source)
        self.lost()  # to have the new one looked at
        return True

    def _has_inodes(self, source: bytes) -> bool:
        return self._inodes_last.get(source, True)

    def _is_denied(self, place: KnownPlace, error: OSError) -> bool:
        """Whether the folder that it was is there, but not for us: that is told as it is."""
        if not isinstance(error, PermissionError):
            return False
        try:
            return self._is_same(place, look(place.path))
        except OSError:
            return False


class Asking:
    """A question, answered in a worker thread; see :meth:`Presence.asking`.

    Raises :exc:`GoneError` for an answer that can't be relied on: at the beginning, at
    :meth:`confirm`, and in place of an :exc:`OSError` of the source.
    """

    __slots__ = ("_inside", "_presence", "_since", "_source")

    def __init__(self, presence: Presence, source: bytes, *, inside: bool) -> None:
        self._presence = presence
        self._source = source
        self._inside = inside
        self._since = presence.generation

    def __enter__(self) -> Self:
        self._presence.check(self._source, inside=self._inside)
        return self

    def confirm(self, *, thoroughly: bool = False) -> None:
        """The answer is nothing, or another one than before; *thoroughly*: or a failure."""
        self._presence.confirm(
            self._source, self._since, inside=self._inside, thoroughly=thoroughly
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, TimeoutError | GoneError):
            self.confirm(thoroughly=not isinstance(error, FileNotFoundError | NotADirectoryError))


def _gone_error(reason: str) -> GoneError:
    return GoneError(errno.EIO, reason)
