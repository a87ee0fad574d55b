"""Changes of the library by inotify(7): they speed scanning up, and are never relied on.

inotify doesn't report what other machines change on a network file system, drops
events when its queue is full, and has a limit on watched folders. So an event only
causes an examination earlier that would happen anyway; where there are no events, the
library is scanned more often (:func:`zipfs.system.filesystems.needs_polling`).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

import trio

from zipfs.catalog.listing.hearing import Hurry
from zipfs.catalog.tree import Catalog
from zipfs.config import Settings
from zipfs.library.view import LibraryView
from zipfs.system.events.changes import Change
from zipfs.system.events.inotify import Inotify
from zipfs.system.filesystems import needs_polling

log = logging.getLogger(__name__)

_STEP: Final = 0.1
"""Seconds without an event after which the collected ones are passed on."""
_DEBOUNCE: Final = 0.4
"""Longest time for which events are collected, in seconds."""
_GIVEN: Final = 5.0
_NAP: Final = 0.01
"""Seconds for which setting watches waits, in all, while somebody asks; and at a time."""
_SOON: Final = 0.005, 0.05
"""The same two for a folder alone, of lists: somebody waits for the archive of each."""


async def follow(settings: Settings, library: LibraryView, catalog: Catalog) -> None:
    """Pass events of changes to *catalog*, for ever."""
    while True:
        returned = catalog.returned
        async with trio.open_nursery() as nursery:
            if not catalog.presence.is_gone:
                nursery.start_soon(_follow_here, settings, library, catalog)
            await returned.wait()
            # What was watched is another folder, or its disk was unmounted.
            nursery.cancel_scope.cancel()
        catalog.hearing.end()


async def _follow_here(settings: Settings, library: LibraryView, catalog: Catalog) -> None:
    """The same for the library as it is now. *settings* say how; without events it is polled."""
    folders = library.watched()
    heard: dict[bytes, Hurry] = {}
    """Folders all of whose changes cause events, and how to have them told at once."""
    eventless = {folder: await trio.to_thread.run_sync(needs_polling, folder) for folder in folders}
    if settings.watch == "poll" or (settings.watch == "auto" and any(eventless.values())):
        kinds = ", ".join(sorted({kind for found in eventless.values() for kind in found}))
        log.info(
            "looking for changes every few seconds%s", f": no events from {kinds}" if kinds else ""
        )
        catalog.hearing.end()  # nobody waits for what won't come

    def ready(folder: bytes, hurry: Hurry) -> None:
        if not eventless[folder]:
            heard[folder] = hurry
        if heard.keys() == folders.keys():
            catalog.hearing.begin(tuple(heard.values()))

    def changed(folder: bytes, paths: Iterable[bytes]) -> None:
        try:
            catalog.changed(set(folders[folder](paths)))
        except Exception:
            # H4: called by the event loop itself, which an exception would end.
            log.exception("unexpected error about changes in the library")

    async def listen(folder: bytes) -> None:
        await watch(
            folder,
            functools.partial(changed, folder),
            functools.partial(ready, folder),
            deep=folder == library.root,
            heard=None if folder == library.root else functools.partial(library.heard, folder),
            is_asked=catalog.turns.is_asked,
        )
        heard.pop(folder, None)
        catalog.hearing.end()

    if settings.watch != "poll":
        async with trio.open_nursery() as nursery:
            for folder in folders:
                nursery.start_soon(listen, folder)


class _GivingWay:
    """Called, waits while *is_asked*; for :data:`_GIVEN` seconds in all."""

    def __init__(self, is_asked: Callable[[], bool]) -> None:
        self._is_asked = is_asked
        self._left = _GIVEN

    def __call__(self) -> None:
        while self._left > 0 and self._is_asked():
            time.sleep(_NAP)
            self._left -= _NAP


async def watch(
    folder: bytes,
    changed: Callable[[Iterable[bytes]], None],
    ready: Callable[[Hurry], None],
    *,
    deep: bool = True,
    heard: Callable[[bytes, Change], None] | None = None,
    is_asked: Callable[[], bool] = lambda: False,
) -> None:
    """Call *changed* with the changed paths in *folder*, relative to it, for ever.

    *deep* watches the folders in it as well. *ready* is called when all watches are set, so that
    no change is missed from then on, with what has events passed on at once. *heard* is told of
    each event before, in a thread of its own (:class:`zipfs.system.events.inotify.Inotify`).
    While *is_asked* says that somebody waits for something else, he goes first, for some seconds.
    Logs and returns if the kernel can't watch the folder.
    """
    token = trio.lowlevel.current_trio_token()
    ended = trio.Event()
    problem: list[Exception] = []
    lock = threading.Lock()
    watching: list[Inotify] = []

    def run() -> None:
        try:
            inotify = Inotify(folder, deep=deep, heard=heard)
            with lock:
                watching.append(inotify)
            try:
                inotify.add(before=_GivingWay(is_asked))
                token.run_sync_soon(ready, inotify.hurry)
                for paths in inotify.changes(*((_STEP, _DEBOUNCE) if deep else _SOON)):
                    token.run_sync_soon(changed, paths)
            finally:
                with lock:
                    watching.clear()
                    inotify.close()
        except trio.RunFinishedError:
            return
        except Exception as error:  # noqa: BLE001 - after any error the library is polled
            problem.append(error)
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(ended.set)

    # A thread of its own: to set a watch on each folder takes a while, and never ends if a
    # disk doesn't answer.
    threading.Thread(target=run, name="zipfs-watcher", daemon=True).start()
    try:
        await ended.wait()
    finally:
        with lock:
            for inotify in watching:
                inotify.stop()
    for error in problem:
        log.warning(
            "can't watch %s for changes (%s); scanning it more often",
            "the library" if deep else "the folder of lists",
            str(error).splitlines()[0] if str(error) else type(error).__name__,
        )
