"""What a check of ``zipfs doctor`` has found, and how bad that is."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["ok", "note", "warning", "problem"]
"""``note``: it works, with a consequence to know. ``warning``: something works badly, or not
for everybody. ``problem``: what was asked for doesn't work."""

LEVELS: Final[tuple[Level, ...]] = ("ok", "note", "warning", "problem")

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True, slots=True)
class Finding:
    """What the check *name* has found."""

    name: str
    level: Level
    what: str
    """For people: a line, without a full stop."""
    remedy: str = ""
    """A command, or an edit, where there is one."""


def worst(findings: Iterable[Finding]) -> Level:
    """The highest level among *findings*; ``ok`` if there are none."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")


def size(count: float) -> str:
    """*count* bytes, for people."""
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            return (
                f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
            )
        count /= 1024
    raise AssertionError("the last unit takes all")


def counted(count: int, one: str, *, at_least: bool = False) -> str:
    """``1 folder``, ``2 folders``, ``at least 3 folders``."""
    text = f"{count} {one if count == 1 else one + 's'}"
    return f"at least {text}" if at_least else text


def quoted(path: str) -> str:
    """*path* as a shell takes it, and as any terminal shows it."""
    text = shlex.quote(path)
    return text if text.isprintable() else repr(path)


def printable(path: str) -> str:
    """*path* as any terminal shows it."""
    return path if path.isprintable() else repr(path)
