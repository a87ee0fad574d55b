"""What a check of ``zipfs doctor`` has found, and how bad that is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from zipfs.errors import Level

LEVELS: Final[tuple[Level, ...]] = ("ok", "note", "warning", "problem")


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
