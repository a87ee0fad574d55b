"""Saying a thing once, however often it happens."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

REMEMBERED = 10_000
"""How many things are remembered as said; the oldest is forgotten first."""


class Once:
    """A logger that passes each distinct message a single time."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def warning(self, message: str, *arguments: object) -> None:
        text = message % arguments
        with self._lock:
            if text in self._said:
                self._said.move_to_end(text)
                return
            self._said[text] = None
            if len(self._said) > REMEMBERED:
                self._said.popitem(last=False)
        self._logger.warning("%s", text)


def shown(path: bytes) -> str:
    """*path* for a line of the log: on one line, whatever bytes are in it."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
