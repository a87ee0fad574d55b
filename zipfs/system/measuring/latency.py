"""How soon a file system answers: at once from memory, or after a way to a server and back."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

FAR: Final = 0.0005
"""Seconds from which on an answer has come from afar."""
_TRIES: Final = 5
_PATIENCE: Final = 1.0
"""Seconds to wait for all tries."""


def is_far(path: str, patience: float = _PATIENCE) -> bool:
    """Whether each call to the file system of *path* takes long; False if it can't be asked.

    By statvfs(3), which network and FUSE file systems ask their server each time; names and
    attributes come from a cache. What doesn't answer in time is far. Other busy threads of this
    process lengthen what is measured.
    """
    soonest: list[float] = []

    def ask() -> None:
        times = []
        try:
            for _ in range(_TRIES):
                started = time.monotonic()
                os.statvfs(path)
                times.append(time.monotonic() - started)
        except OSError:
            times = [0.0]
        soonest.append(min(times))

    # One that doesn't answer holds up nobody, and not the end of the process.
    thread = threading.Thread(target=ask, name="latency", daemon=True)
    thread.start()
    thread.join(patience)
    return not soonest or soonest[0] >= FAR
