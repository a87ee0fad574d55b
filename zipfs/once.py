"""Saying a thing once, however often it happens."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict

from zipfs.showing import shown

__all__ = ["REMEMBERED", "Once", "shown"]

REMEMBERED = 10_000
"""How many things are remembered as said; the oldest is forgotten first."""


class Once:
    """A logger that passes each distinct message a single time."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._lock = threading.Lock()

    def warning(self, message: str, *arguments: object, of: bytes = b"") -> None:
        """Log the message, unless it was logged before, *of* the same state of things."""
        text = message % arguments
        key = (text, of)
        with self._lock:
            if key in self._said:
                self._said.move_to_end(key)
                return
            self._said[key] = None
            if len(self._said) > REMEMBERED:
                self._said.popitem(last=False)
        self._logger.warning(message, *arguments)
