"""A place of the library: a folder known by its identity, and how it is looked at.

Everything that touches a disk raises :exc:`OSError`, and belongs into worker threads.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from zipfs.library.rules.general import is_litter
from zipfs.system.filesystems import holds_files
from zipfs.system.mounts import Mount
from zipfs.system.paths import is_within, lstat, open_path
from zipfs.system.syscalls import ENTER_FOLDER, LISTS_DESCRIPTORS, READ_FOLDER, Identity, identity
from zipfs.text import shown


class Gone(NamedTuple):
    """A place that isn't there."""

    source: bytes
    reason: str
    since: float
    """Unix time."""


class Seen(NamedTuple):
    """A place as it was seen at a moment when it can be in order."""

    identity: Identity
    status: os.stat_result


Line = tuple[int, str, str]
NO_LINE: Final[Line] = (0, "", "")


def line_of(mount: Mount) -> Line:
    """What tells *mount* from others in the table."""
    return mount.number, mount.device, mount.kind


class KnownPlace:
    """The folder at *path*, the library's root or a mount point in it, and what is known of it."""

    __slots__ = ("gone", "line", "moved", "own", "path", "seen", "source")

    def __init__(self, source: bytes, path: bytes) -> None:
        self.source = source
        self.path = path
        self.seen: Seen | None = None
        """None until it is looked at."""
        self.gone: Gone | None = None
        self.line = NO_LINE
        """What the table of mounts has of it: of its mount, or of the one that its folder is on."""
        self.own = NO_LINE
        """What the table had of its own mount."""
        self.moved: bytes | None = None
        """Where its mount may be now, as a folder above has another name."""


def place_name(source: bytes) -> str:
    """The place at *source*, for people."""
    return f"the disk on {shown(source)}" if source else "the library"


def look(path: bytes, *, listed: bool = False) -> Identity:
    """What the folder at *path* is now; *listed* to see whether it can be."""
    if not ENTER_FOLDER:  # not Linux
        status = os.stat(path)
        return Identity(status.st_dev, status.st_ino, 0)
    # Both flags mount what autofs has there.
    descriptor = open_path(path, READ_FOLDER if listed else ENTER_FOLDER)
    try:
        if listed:
            next(_names(descriptor), None)
        return identity(descriptor)
    finally:
        os.close(descriptor)


def see(path: bytes) -> Seen:
    """The same with its attributes."""
    return Seen(look(path), lstat(path))


def has_content(path: bytes) -> bool:
    """Whether the folder at *path* holds more than systems leave behind."""
    if not LISTS_DESCRIPTORS:
        return not all(map(is_litter, os.listdir(path)))
    descriptor = open_path(path, READ_FOLDER)
    try:
        return not all(map(is_litter, _names(descriptor)))
    finally:
        os.close(descriptor)


def _names(descriptor: int) -> Iterator[bytes]:
    with os.scandir(descriptor) as entries:
        for entry in entries:
            yield os.fsencode(entry.name)


def stays(mount: Mount) -> bool:
    """Whether *mount* holds files, and isn't made and unmade by each access."""
    return holds_files(mount.kind) and mount.kind != "autofs"


def holding(path: bytes, below: Sequence[Mount]) -> Mount | None:
    """The mount of *below* that *path* is on."""
    held = [mount for mount in below if is_within(path, os.fsencode(mount.path))]
    return max(held, key=lambda mount: len(mount.path), default=None)


def is_in(source: bytes, folder: bytes) -> bool:
    """Whether *source* is *folder* or in it; ``b""`` holds all."""
    return not folder or is_within(source, folder)


def reason_of(error: OSError) -> str:
    """What *error* says, without the path."""
    return error.strerror or os.strerror(error.errno or errno.EIO)
