"""Changes of the library, as the kernel tells them: a shortcut, never relied on.

inotify(7) says nothing of what other machines do to a network file system, drops
events when its queue is full, and has a limit on watched folders. So events only
make a look happen sooner that would happen anyway; where there are none, the whole
library is looked through more often (:func:`zipfs.system.filesystems.needs_polling`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

import trio

from zipfs.system.inotify import Inotify

log = logging.getLogger(__name__)

_STEP: Final = 0.1
"""Seconds without an event after which those gathered are passed on."""
_DEBOUNCE: Final = 0.4
"""Seconds at most for which events are gathered."""


async def watch(
    folder: bytes,
    tell: Callable[[Iterable[bytes]], None],
    ready: Callable[[], None],
    *,
    deep: bool = True,
) -> None:
    """Call *tell* with the paths, relative to *folder*, of what has changed in it, for ever.

    Folders in it are watched as well if *deep*. *ready* is called when nothing is missed any
    more. Returns, with a line in the log, if the kernel can't watch the folder.
    """
    token = trio.lowlevel.current_trio_token()
    ended = trio.Event()
    problem: list[Exception] = []
    lock = threading.Lock()
    watching: list[Inotify] = []

    def run() -> None:
        try:
            inotify = Inotify(folder, deep=deep)
            with lock:
                watching.append(inotify)
            try:
                inotify.add()
                token.run_sync_soon(ready)
                for paths in inotify.changes(_STEP, _DEBOUNCE):
                    token.run_sync_soon(tell, paths)
            finally:
                with lock:
                    watching.clear()
                    inotify.close()
        except trio.RunFinishedError:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, polling goes on
            problem.append(error)
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(ended.set)

    # A thread of its own: to set up a watch for each folder takes a while, and as long
    # as it likes if a disk doesn't answer.
    threading.Thread(target=run, name="zipfs-watcher", daemon=True).start()
    try:
        await ended.wait()
    finally:
        with lock:
            for inotify in watching:
                inotify.stop()
    for error in problem:
        log.warning(
            "the kernel can't tell of changes in %s (%s); looking through it more often",
            "the library" if deep else "the folder of lists",
            str(error).splitlines()[0] if str(error) else type(error).__name__,
        )
