"""From a list to its archive: the list is written, and the archive appears."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

from zipfs.front.calls import Breaker, CallPool
from zipfs.front.settings import Settings

HANGS = "disk or mount doesn't answer"
NOT_YET = "no archive yet"
LARGEST = 64 << 20
"""Bytes of a list that is held back; what is larger goes on as it comes."""

log = logging.getLogger("zipfs.front")


class Outcome(NamedTuple):
    """A list that the application has answered with, and why there is no archive of it.

    *start* is the beginning of the answer, in the form that the protocol has for it.
    """

    name: str
    """The list's name: the SHA-256 of its text, in hex."""
    reason: str
    """Empty: there is one."""
    start: Any
    text: bytes
    """Empty if there is an archive."""


def name_of(text: bytes) -> str:
    """What the list with this *text* is called; equal lists are one."""
    return hashlib.sha256(text).hexdigest()


class Archives:
    """The folder of lists, and the archives that zipfs shows for them.

    :meth:`write` and :meth:`look` start calls whose result is empty, or the reason why not.
    """

    FIRST_PAUSE = 0.01
    LONGEST_PAUSE = 0.25
    """Seconds between two looks; each is longer than the one before."""
    LEAST = 1.0
    """Seconds that a call has in any case: a loaded machine isn't one that hangs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.breaker = Breaker((settings.lists, settings.shown))
        self._pool = CallPool()

    def limit(self, end: float) -> float:
        """Seconds that a call may take, if nobody wants to wait beyond *end* (monotonic)."""
        return max(end - time.monotonic(), self.LEAST)

    def write(self, name: str, text: bytes) -> Future[str]:
        """See to it that the list is there."""
        return self._pool.start(partial(_reason, write, self.settings.lists, name, text))

    def look(self, name: str) -> Future[str]:
        """Whether the archive can be read."""
        return self._pool.start(partial(_reason, look, self.settings.shown, name))


def _reason(call: Callable[..., str], *arguments: Any) -> str:
    """The result of *call*. A defect of ours costs a download its ranges, and nothing else."""
    try:
        return call(*arguments)
    except Exception as error:  # noqa: BLE001 - as above; the reason is logged
        return f"unexpected error: {error!r}"


def write(folder: str, name: str, text: bytes) -> str:
    """Write the list, or date it anew: lists that nobody asks for can be told by their dates."""
    path = os.path.join(folder, f"{name}.list")
    try:
        if _is_there(path, len(text)):
            return ""
        descriptor, draft = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(text)
                os.fchmod(descriptor, 0o644)  # whoever runs zipfs
            if _is_there(path, len(text)):  # another process was faster
                os.unlink(draft)
            else:
                os.rename(draft, path)
        except OSError:
            os.unlink(draft)
            raise
    except FileNotFoundError:
        return f"there is no folder {folder}"
    except OSError as error:
        return f"the list can't be written: {error.strerror}"
    return ""


def _is_there(path: str, size: int) -> bool:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    if status.st_size != size:  # a machine that went down while it was written
        return False
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:
        pass  # another user's, or nobody may write there: it is there all the same
    return True


def look(folder: str, name: str) -> str:
    """Whether the archive of the list is there and can be read."""
    path = os.path.join(folder, f"{name}.zip")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return NOT_YET if os.path.isdir(folder) else f"there is no folder {folder}"
    except OSError as error:
        return f"the mount can't be read: {error.strerror}"
    # root may read everything, but the web server seldom is root.
    readable = stat.S_IMODE(mode) & 0o444 and os.access(path, os.R_OK)
    return "" if readable else "the archive can't be read: Permission denied"


class AnswerCache:
    """Answers that may serve again, for so many *seconds* each, and no more than *most*."""

    def __init__(self, seconds: float, most: int = 1000) -> None:
        self._seconds = seconds
        self._most = most
        self._lock = threading.Lock()
        self._answers: OrderedDict[bytes, tuple[float, Outcome]] = OrderedDict()

    def get(self, key: bytes) -> Outcome | None:
        with self._lock:
            until, answer = self._answers.get(key, (0.0, None))
            if answer is None or time.monotonic() < until:
                return answer
            del self._answers[key]
            return None

    def put(self, key: bytes, answer: Outcome) -> None:
        with self._lock:
            self._answers[key] = time.monotonic() + self._seconds, answer
            self._answers.move_to_end(key)
            if len(self._answers) > self._most:
                self._answers.popitem(last=False)

    def drop(self, key: bytes) -> None:
        with self._lock:
            self._answers.pop(key, None)


class Notes:
    """Tells why there was no archive: a line a minute for each reason."""

    EVERY = 60.0

    def __init__(self, logger: Any) -> None:
        self._log = logger
        self._told: dict[str, float] = {}

    def fallback(self, outcome: Outcome) -> None:
        now = time.monotonic()
        if now - self._told.get(outcome.reason, -self.EVERY) >= self.EVERY:
            self._told[outcome.reason] = now
            self._log.warning(
                "zipfs: not from an archive: %s (list %s)", outcome.reason, outcome.name
            )
