"""Changes of the library by inotify(7): they speed scanning up, and are never relied on.

inotify doesn't report what other machines change on a network file system, drops
events when its queue is full, and has a limit on watched folders. So an event only
causes an examination earlier that would happen anyway; where there are no events, the
library is scanned more often (:func:`zipfs.system.filesystems.needs_polling`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

import trio

from zipfs.system.changes import Change
from zipfs.system.inotify import Inotify

log = logging.getLogger(__name__)

_STEP: Final = 0.1
"""Seconds without an event after which the collected ones are passed on."""
_DEBOUNCE: Final = 0.4
"""Longest time for which events are collected, in seconds."""
_SOON: Final = 0.005, 0.05
"""The same two for a folder alone, of lists: somebody waits for the archive of each."""


async def watch(
    folder: bytes,
    changed: Callable[[Iterable[bytes]], None],
    ready: Callable[[], None],
    *,
    deep: bool = True,
    heard: Callable[[bytes, Change], None] | None = None,
) -> None:
    """Call *changed* with the changed paths in *folder*, relative to it, for ever.

    *deep* watches the folders in it as well. *ready* is called when all watches are set, so that
    no change is missed from then on. *heard* is told of each event before, in a thread of its
    own (:class:`zipfs.system.inotify.Inotify`). Logs and returns if the kernel can't watch the
    folder.
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
                inotify.add()
                token.run_sync_soon(ready)
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
