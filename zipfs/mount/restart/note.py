"""The note of a service's mount: which it is, and with what it was made.

The mount of a service is made by one process of root, and unmounted by another, maybe after the
config was changed or removed, or when something else is mounted there. So the first writes device
and path of its mount to a file that only root may write, the *note*, and the others use only that.

It imports little: readers of the mount wait while it is read (:mod:`zipfs.mount.restart.unit`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from typing import NamedTuple

from zipfs.errors import FuseError, MountpointError
from zipfs.system import mounts


class Note(NamedTuple):
    """A mount: *device* and *path* are those of mountinfo."""

    device: str
    path: str
    options: tuple[str, ...] = ()
    """Its options, sorted; the kernel never changes them."""
    config: str = ""
    """:func:`fingerprint` of the config that it was made by."""

    def mounted(self) -> mounts.Mount | None:
        """The mount, if it is still there: not another file system at its path."""
        there = mounts.mounted_at(self.path)
        if there is None or (there.device, there.kind) != (self.device, mounts.ZIPFS):
            return None
        return there


def read(file: str) -> Note | None:
    """The note in *file*; None without that file. Raises :exc:`MountpointError`."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as stream:
            found = json.load(stream)
        return Note(
            str(found["device"]),
            str(found["path"]),
            tuple(map(str, found.get("options", ()))),
            str(found.get("config", "")),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MountpointError(
            f"the note {file} can't be read ({error}); unmount by hand, and remove it"
        ) from None


def write(file: str, note: Note) -> None:
    """Write *note* to *file*. Raises :exc:`FuseError`."""
    try:
        with open(file, "w", encoding="utf-8", errors="surrogateescape") as stream:
            json.dump(note._asdict(), stream)
    except OSError as error:
        raise FuseError(f"can't note down the mount in {file}: {error.strerror}") from None


@contextlib.contextmanager
def locked(file: str) -> Iterator[None]:
    """Have the mount of the note *file* examined and changed by one process at a time.

    The lock is a file of its own, since the note is replaced, and only root may open it.
    """
    import fcntl  # noqa: PLC0415 - Windows has none

    try:
        lock = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:  # nor can there be a note
        yield
        return
    except OSError as error:
        raise FuseError(f"can't lock the note {file}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def fingerprint(config: str) -> str:
    """A hash of the file *config*, "" if it can't be read: equal, and its options are."""
    try:
        with open(config, "rb") as file:
            return hashlib.blake2b(file.read(), digest_size=16).hexdigest()
    except OSError:
        return ""
