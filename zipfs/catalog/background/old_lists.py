"""Lists that nobody asks for any more are removed (``--lists-keep``).

A list was last asked for at the later of its two times: who writes it again or dates it anew
(``utime``) moves both. Who opens its archive has it dated anew by us, once that has a meaning: a
list has no younger date than a tenth of the time for which it is kept.

A list that is old is put aside under another name, and looked at once more there, where nobody
can date it any more. If it was asked for meanwhile it is put back; a front end that comes between
finds none, and writes it. So a list is never removed that somebody has just been told is there.

What a front end has left of a list that it never finished is removed as well: ``.NAME.…``, where
NAME is a digest.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from collections.abc import Callable
from typing import Final, Self

import trio

from zipfs.config import Settings
from zipfs.library.decorators.lists import SUFFIX
from zipfs.logs import Once
from zipfs.system.threads.lanes import Threads
from zipfs.text import shown

log = logging.getLogger(__name__)

_ASIDE: Final = b".zipfs-old"
_DRAFT: Final = re.compile(rb"\.[0-9a-f]{16,64}\..+")
_LANE: Final = "lists"
_SHARE: Final = 10
"""An opened list is dated anew if it is older than this part of the time for which it is kept."""
_OFTEN: Final = 1.0
"""Seconds, at least, between two times that opened lists are dated."""
_RARELY: Final = 3600.0
"""Seconds, at most, between two times that old lists are looked for."""
_NANOSECONDS: Final = 1_000_000_000
_DAY: Final = 86400.0


class OldLists:
    """Removes lists in *folder*, shown in the mount's folder *shown_in*, after *keep* seconds.

    With 0 it keeps all.

    A call of a disk that doesn't answer is given up after *patience* seconds. All methods belong
    to trio's thread.
    """

    def __init__(
        self, folder: str, shown_in: str, keep: float, patience: float | None = None
    ) -> None:
        self._folder = os.fsencode(folder)
        self._prefix = os.fsencode(shown_in) + b"/"
        self._keep = keep
        self._threads = Threads(1, patience)
        self._asked: dict[bytes, float] = {}
        """When the archives of lists were last opened, by the list's name: time.time."""
        self._undated: set[bytes] = set()
        """Those of them whose lists don't have that date yet."""
        self._opened = trio.Event()
        self._once = Once(log)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As *settings* say; the folder's path is absolute."""
        keep = settings.lists_keep * _DAY if settings.lists else 0.0
        patience = settings.read_timeout or None
        return cls(settings.lists or "", settings.lists_folder, keep, patience)

    def opened(self, game: bytes) -> None:
        """Somebody opens the archive of the game at the path *game*, a list or not."""
        if self._keep and game.startswith(self._prefix):
            name = game.removeprefix(self._prefix) + SUFFIX
            self._asked[name] = time.time()
            self._undated.add(name)
            self._opened.set()

    async def run(self, is_open: Callable[[bytes], bool]) -> None:
        """Remove old lists, for ever; *is_open* says whether a game's archive is open."""
        if not self._keep:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._date)
            while True:
                try:
                    await self._sweep(is_open)
                except OSError as error:
                    self._once.warning(
                        "can't remove old lists in %s: %s", shown(self._folder), error.strerror
                    )
                except Exception:
                    # H4: nothing unexpected ends the mount.
                    log.exception("unexpected error about old lists")
                await trio.sleep(max(_OFTEN, min(_RARELY, self._keep / _SHARE)))

    async def _date(self) -> None:
        """Date the lists whose archives are opened."""
        while True:
            await self._opened.wait()
            self._opened = trio.Event()
            names, self._undated = self._undated, set()
            try:
                await self._threads.run(self._date_anew, names, lane=_LANE)
            except OSError as error:
                # What is kept in memory holds until the mount ends.
                log.debug("can't date lists in %s: %s", shown(self._folder), error.strerror)
            except Exception:
                # H4: nothing unexpected ends the mount.
                log.exception("unexpected error about old lists")
            await trio.sleep(_OFTEN)

    def _date_anew(self, names: set[bytes]) -> None:
        """In a worker thread: date these lists, if they are there."""
        failed: OSError | None = None
        for name in names:
            path = os.path.join(self._folder, name)
            try:
                status = os.lstat(path)
                age = time.time() - _last_ns(status) / _NANOSECONDS
                if stat.S_ISREG(status.st_mode) and age > self._keep / _SHARE:
                    os.utime(path, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                failed = error
        if failed:
            raise failed

    async def _sweep(self, is_open: Callable[[bytes], bool]) -> None:
        """Remove what is old now. Raises :exc:`OSError`."""
        limit = time.time() - self._keep
        self._asked = {name: asked for name, asked in self._asked.items() if asked > limit}
        for name in await self._threads.run(self._clear, lane=_LANE):
            game = self._prefix + name.removesuffix(SUFFIX)
            if self._is_wanted(name, game, is_open):
                continue
            if await self._threads.run(self._put_aside, name, lane=_LANE):
                # Without another wait in between: an open comes before this, or finds no list.
                wanted = self._is_wanted(name, game, is_open)
                await self._threads.run(
                    self._put_back if wanted else self._remove, name, lane=_LANE
                )

    def _is_wanted(self, name: bytes, game: bytes, is_open: Callable[[bytes], bool]) -> bool:
        return is_open(game) or self._asked.get(name, 0.0) > time.time() - self._keep

    # -- In a worker thread ------------------------------------------------------

    def _clear(self) -> list[bytes]:
        """The names of lists that are old; what is left of others that are is removed."""
        limit_ns = (time.time() - self._keep) * _NANOSECONDS
        old = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                is_list = entry.name.endswith(SUFFIX) and entry.name != SUFFIX
                is_aside = entry.name.endswith(SUFFIX + _ASIDE)
                if not (is_list or is_aside or _DRAFT.fullmatch(entry.name)):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                    if not stat.S_ISREG(status.st_mode) or _last_ns(status) >= limit_ns:
                        continue
                    if not is_list:
                        os.unlink(entry.path)
                except FileNotFoundError:
                    continue
                if is_list:
                    old.append(entry.name)
        return old

    def _put_aside(self, name: bytes) -> bool:
        """Whether the list *name* is still old, and nobody can find it any more."""
        path, aside = self._paths(name)
        try:
            before = os.lstat(path)
            if _last_ns(before) >= (time.time() - self._keep) * _NANOSECONDS:
                return False
            os.rename(path, aside)
        except FileNotFoundError:
            return False
        # The rename itself moves the other time.
        if os.lstat(aside).st_mtime_ns == before.st_mtime_ns:
            return True
        self._put_back(name)
        return False

    def _put_back(self, name: bytes) -> None:
        """Let the list *name* be there again, unless there is another one by now."""
        path, aside = self._paths(name)
        try:
            os.link(aside, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            if not os.path.lexists(path):
                os.rename(aside, path)
                return
        os.unlink(aside)

    def _remove(self, name: bytes) -> None:
        os.unlink(self._paths(name)[1])
        log.debug("removed %s: nobody has asked for it", shown(name))

    def _paths(self, name: bytes) -> tuple[bytes, bytes]:
        path = os.path.join(self._folder, name)
        return path, os.path.join(self._folder, b"." + name + _ASIDE)


def _last_ns(status: os.stat_result) -> int:
    """When a list was last asked for, nanoseconds since the epoch."""
    return max(status.st_mtime_ns, status.st_ctime_ns)
