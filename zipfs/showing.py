"""Bytes for people to read. Pure."""

from __future__ import annotations


def shown(path: bytes) -> str:
    """*path* for a line of the log: on one line, whatever bytes are in it."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
