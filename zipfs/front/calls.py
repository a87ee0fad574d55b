"""Calls that may never come back, kept away from all else: a mount that hangs, a disk that does."""

from __future__ import annotations

import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any


class CallPool:
    """At most *most* threads for calls that may hang.

    Unlike those of ``concurrent.futures`` they don't keep a process from ending.
    """

    def __init__(self, most: int = 8) -> None:
        self._free = most
        self._idle = threading.Semaphore(0)
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def start(self, call: Callable[[], Any]) -> Future[Any]:
        """Have *call* made; one that is cancelled before its turn isn't."""
        future: Future[Any] = Future()
        self._calls.put((future, call))
        if not self._idle.acquire(blocking=False):
            with self._lock:
                begin = self._free > 0
                self._free -= begin
            if begin:
                threading.Thread(target=self._work, name="zipfs", daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            try:
                future, call = self._calls.get_nowait()
            except queue.Empty:
                self._idle.release()
                future, call = self._calls.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 - it is for whoever has asked
                    future.set_exception(error)
            del future, call


class Breaker:
    """Whether *folders* answer. Who has waited in vain says so, and the others needn't wait, too.

    It is open, and everybody does without, until one of its questions comes back. A question is
    the look for a name that isn't there, which no cache can answer.
    """

    AGAIN = 10.0
    """Seconds until it asks anew: another mount may be in the place of the one that hangs."""
    MOST = 6
    """Questions on their way at once, each with a thread."""

    def __init__(self, folders: Iterable[str]) -> None:
        self._folders = tuple(folders)
        self._lock = threading.Lock()
        self._open = False
        self._asking = 0
        self._asked = 0.0

    def trip(self) -> None:
        """A call wasn't back in time."""
        with self._lock:
            if not self._open:
                self._open = True
                self._ask()

    def is_open(self) -> bool:
        """Whether a call would probably hang."""
        with self._lock:
            if self._open and time.monotonic() - self._asked > self.AGAIN:
                self._ask()
            return self._open

    def _ask(self) -> None:
        if self._asking < self.MOST:
            self._asking += 1
            self._asked = time.monotonic()
            threading.Thread(target=self._question, name="zipfs probe", daemon=True).start()

    def _question(self) -> None:
        for folder in self._folders:
            # Whatever the answer is: there is one.
            os.path.lexists(os.path.join(folder, f".{secrets.token_hex(8)}"))
        with self._lock:
            self._asking -= 1
            self._open = False
