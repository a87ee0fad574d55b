"""What vouches for a byte: the state of its file, or its content.

A byte may be returned if it is known to belong to the version that was opened (DESIGN R1, R2).
Two things can show that:

- **The state** (:class:`zipfs.library.filestate.FileState`): inode, size, mtime and ctime are
  those in which the file was hashed. That is enough if the file system changes a date before it
  changes data, can't be told to put the ctime back, and tells the dates that belong to the data
  it has just returned. One ``fstat`` a read. Local file systems do so, and NFSv3, whose READ
  carries the file's attributes.
- **The content**: each block of 1 MiB has the XXH3-64 that it had when the file was hashed. That
  is enough wherever the bytes come from, page cache included. Costs reading the whole block for
  the first byte of it, and its checksum. The state is then only a hint that there may be a new
  version.

State can't vouch where it is told late or can be forged:

- SMB: a server tells a file's write time as of the opening while any client has the file open,
  and often has no other ctime (seen with Samba).
- NFSv4: READ carries no attributes. The kernel asks for them after a READ, to learn the access
  time; not so with ``noatime``, and then they come from a cache (``acregmax``).
- FUSE: attributes come from the kernel's cache or the program's, data from elsewhere (seen with
  sshfs and rclone).
- FAT: there is no ctime, so an mtime that was put back hides a change.
- What isn't known.

The inode and the ctime of some of these don't last: drivers make inodes up, or restore the ctime
from the mtime when the inode is read again. Such parts aren't in the state, or everything would
be hashed again at each mount. Bytes don't depend on them there.

The decision is one a file system. It is made by the kind and the options of the mount that holds
the file (:mod:`zipfs.system.filesystems`); ``--prove`` overrides it. It is remembered by the
number of the device, for as long as the table of mounts is the same.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple

from zipfs.library.filestate import FileState
from zipfs.library.scan import SourceFile
from zipfs.system.filesystems import FileSystem, file_system
from zipfs.system.mounts import Mount, mounts, mounts_below

Prove = Literal["auto", "always", "never"]
"""Which bytes are proven by their checksums: where the state can't vouch for them, all, none."""
HashSingles = Literal["auto", "always", "never"]
"""Which files that are in no archive get checksums: those whose state can't vouch for their bytes
(with ``--prove always`` all), all, none."""

PLATFORM_VOUCHES: bool = os.name != "nt"
"""Whether states vouch on this system at all: on Windows, ctime is when a file was made."""
_UNKNOWN: Final = file_system("")
_LOCAL: Final = file_system("ext4")
_HAS_TABLE: Final = sys.platform.startswith("linux")
"""Whether the system has a table of mounts; where it has none (macOS), disks count as local."""


class Vouching(NamedTuple):
    """The decision for one file system."""

    by_content: bool
    """Whether bytes are proven by their checksums."""
    inode_lasts: bool
    ctime_is_own: bool
    why: str
    """The reason, as a clause."""
    costs: bool = False
    """Whether reading costs money, so that nothing is read unasked."""

    def state(self, status: os.stat_result) -> FileState:
        """The state in *status*, without the parts that don't last."""
        state = FileState.of(status)
        if self.inode_lasts and self.ctime_is_own:
            return state
        return state.without(inode=not self.inode_lasts, ctime=not self.ctime_is_own)

    def file(self, path: bytes, source: bytes, status: os.stat_result) -> SourceFile:
        """The file at *source*, called *path* in its game, with that *status*."""
        executable = bool(status.st_mode & 0o111)
        return SourceFile(path, source, self.state(status), executable, self.by_content)


def decide(row: FileSystem, prove: Prove = "auto") -> Vouching:
    """The decision for a file system of the table."""
    lasts = row.inodes_last, row.own_ctime
    if prove != "auto":
        return Vouching(prove == "always", *lasts, f"as --prove {prove} says", row.costs)
    if not PLATFORM_VOUCHES:
        return Vouching(True, *lasts, "this system has no ctime", row.costs)
    why = row.stale or "its dates show each change"
    return Vouching(bool(row.stale), *lasts, why, row.costs)


class Vouchers:
    """The decisions for the file systems of a library, by device. Thread-safe.

    *table* returns the mounts; the decisions are made anew after :meth:`forget`.
    """

    def __init__(
        self, prove: Prove = "auto", table: Callable[[], Iterable[Mount]] = mounts
    ) -> None:
        self.prove: Final = prove
        self._table = table
        self._known: dict[int, Vouching] = {}
        self._lock = threading.Lock()

    def of(self, absolute: bytes, device: int) -> Vouching:
        """The decision for a file at the path *absolute*, without links, on *device* (st_dev)."""
        found = self._known.get(device)
        if found is None:
            with self._lock:
                known = self._known
            found = known[device] = decide(self._row(absolute), self.prove)
        return found

    def forget(self) -> None:
        """The table of mounts has changed: a device may be another now."""
        with self._lock:
            self._known = {}

    def _row(self, absolute: bytes) -> FileSystem:
        # Not by the device in the table: files of a Btrfs subvolume, or of an overlay, have others.
        try:
            below = mounts_below(os.fsdecode(absolute), self._table())
        except OSError:
            return _UNKNOWN if _HAS_TABLE else _LOCAL
        return file_system(below[0].kind, below[0].options) if below else _UNKNOWN


def report(library: bytes, prove: Prove = "auto") -> list[tuple[Mount, Vouching]]:
    """Each mount that *library*, an absolute path, is on or has below it, with its decision."""
    below = mounts_below(os.fsdecode(library), mounts())
    return [(mount, decide(file_system(mount.kind, mount.options), prove)) for mount in below]
