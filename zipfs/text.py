"""Bytes, sizes, dates and spans of time as text for people. Pure."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Final

_KIB: Final = 1024
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB")


def shown(path: bytes) -> str:
    """*path*, of any bytes, as text on one line; for the log."""
    return clean(path.decode("utf-8", "backslashreplace"))


def clean(text: object) -> str:
    """*text* with control characters escaped, so that a terminal doesn't interpret them."""
    text = str(text)
    if text.isprintable():  # nearly always, and there may be 100,000 of them
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def size(count: float) -> str:
    """A number of bytes: ``1.5 GiB``."""
    if count < _KIB:
        return f"{count:.0f} bytes"
    power = 1
    while power < len(_UNITS) and count >= _KIB ** (power + 1):
        power += 1
    return f"{count / _KIB**power:.1f} {_UNITS[power - 1]}"


def span(seconds: float) -> str:
    """A span of time, with two units at most: ``3 min 20 s``."""
    whole = round(seconds)
    for unit, name, smaller, small in _SPANS:
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit} {name}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


_SPANS: Final = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def duration(seconds: float | None) -> str:
    """The duration of a request: ``13 µs``, ``1.20 ms``; empty for None."""
    if seconds is None:
        return ""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def date(seconds: float) -> str:
    """Unix time in UTC: ``2026-01-31 23:59:59``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def counted(count: int, one: str, *, at_least: bool = False) -> str:
    """``1 folder``, ``2 folders``, ``at least 3 folders``."""
    text = f"{count} {one if count == 1 else one + 's'}"
    return f"at least {text}" if at_least else text


def quoted(path: str) -> str:
    """*path* quoted for a shell; as a Python literal if it isn't printable."""
    text = shlex.quote(path)
    return text if text.isprintable() else repr(path)


def printable(path: str) -> str:
    """*path* itself; as a Python literal if it isn't printable."""
    return path if path.isprintable() else repr(path)
