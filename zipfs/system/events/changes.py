"""What is told of a change, wherever that comes from: inotify(7) on Linux, nothing elsewhere."""

from __future__ import annotations

import enum


class Change(enum.Enum):
    """What an event tells of a path."""

    RENAMED = enum.auto()
    """Something has this name now that had another one."""
    ATTRIBUTES = enum.auto()
    """Its permissions, owner, dates or number of links are others."""
    CLOSED = enum.auto()
    """Who could write to it has closed it."""
    ANY = enum.auto()
    """It came, went or was written to; of the root itself: events were lost."""
