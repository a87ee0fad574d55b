"""A thread in place of the process that hashes, so that a test can put itself in its way.

All else is as it is with the process: pipes, messages, who serves them. A thread can't be
killed; one that hangs ends when it comes back and finds that nobody listens any more.
"""

from __future__ import annotations

import os
import threading

from zipfs.index.hash_process import serve

NAME = "zipfs-hasher"


class ThreadChild:
    """Instead of :class:`zipfs.index.hash_client.Process`."""

    def __init__(self) -> None:
        theirs, self.requests = os.pipe2(os.O_CLOEXEC)
        self.answers, ours = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=serve, args=(theirs, ours), name=NAME, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        pass

    def reap(self) -> str | None:
        return None if self._thread.is_alive() else "the thread has ended"

    def abandon(self) -> None:
        pass


def is_hashing() -> bool:
    """Whether there is such a thread."""
    return any(thread.name == NAME for thread in threading.enumerate())
