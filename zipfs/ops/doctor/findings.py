"""The results of the checks of ``zipfs doctor``, and their levels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from zipfs.errors import Level

LEVELS: Final[tuple[Level, ...]] = ("ok", "note", "warning", "problem")


@dataclass(frozen=True, slots=True)
class Finding:
    """A result of the check *name*."""

    name: str
    level: Level
    what: str
    """A line for people, without a full stop."""
    remedy: str = ""
    """A command or an edit; empty if there is none."""


def worst(findings: Iterable[Finding]) -> Level:
    """The highest level among *findings*; ``ok`` if there are none."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")
