"""The table of file systems: what zipfs can rely on, by the kind of a library's file system.

A file counts as unchanged as long as its inode, size, mtime and ctime are the same (DESIGN S1),
changes are reported by inotify if the file system has events, and cached data are read without
a thread if it supports ``RWF_NOWAIT``. A row states which of these a file system lacks, and the
remedy. What follows for bytes is in :mod:`zipfs.library.vouching`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from zipfs.errors import Level
from zipfs.system.mounts import mounts, mounts_below


class FileSystem(NamedTuple):
    """A row of the table: file systems with the same properties."""

    kinds: tuple[str, ...]
    """Types as in ``/proc/self/mountinfo``: ``ext4``, ``fuse.sshfs``."""
    level: Level
    note: str
    """The properties that users should know: a predicate without a full stop."""
    remedy: str = ""
    events: bool = True
    """Whether inotify reports all changes; False if other machines or a program can make them."""
    granularity: float = 0.0
    """Smallest difference between two dates, in seconds; 0: fine enough."""
    stale: str = ""
    """Why dates can be those of other bytes than the ones just read, as a clause; empty: they
    can't."""
    inodes_last: bool = True
    """Whether a file has the same inode after its inode was evicted, or the disk mounted again."""
    own_ctime: bool = True
    """Whether the ctime is kept on the disk, and not made from the mtime."""
    costs: bool = False
    """Whether each read may cost money, or come from far away: cloud storage."""
    refine: Callable[[FileSystem, Collection[str]], FileSystem] | None = None
    """Returns the row for a mount with certain options."""


_POLLED: Final = "sends no events: it is scanned every ten seconds, and at each access"
_PROGRAM: Final = "dates come from a cache of its own, data don't"
_BLIND: Final = "has no ctime of its own, so that an mtime that was put back hides a change"
_MAPS: Final = (
    "what a program changes later in files that it maps (some BitTorrent clients) leaves no trace"
)
_COPY: Final = "copy the library to ext4, btrfs or xfs"


def _cached_for(row: FileSystem, seconds: int, most: str = "") -> FileSystem:
    """*row* of a share whose client caches attributes for *seconds*."""
    if seconds <= 1:
        note = f"{_POLLED}; attributes are cached for a second at most"
        return row._replace(level="ok", note=note, remedy="")
    return row._replace(
        note=f"{_POLLED}; it caches attributes for {most}{seconds} seconds, so changes made on"
        " other machines may show that much later"
    )


def _seconds(options: Collection[str], name: str, default: int) -> int:
    found = [option.removeprefix(name) for option in options if option.startswith(name)]
    return int(found[0]) if found and found[0].isdigit() else default


def _nfs(row: FileSystem, options: Collection[str]) -> FileSystem:
    # nfs(5): an option that isn't listed has its default, at most 60 seconds for both.
    longest = max(_seconds(options, name, 60) for name in ("acregmax=", "acdirmax="))
    if longest and "noac" not in options and "noatime" in options and _is_nfs4(options):
        row = row._replace(
            stale="with noatime nothing asks for dates after a READ, which carries none"
        )
    return _cached_for(row, 1 if "noac" in options else longest, "up to ")


def _is_nfs4(options: Collection[str]) -> bool:
    versions = [option for option in options if option.startswith("vers=")]
    return not versions or any(version.startswith("vers=4") for version in versions)


def _cifs(row: FileSystem, options: Collection[str]) -> FileSystem:
    row = row._replace(inodes_last="serverino" in options)
    return _cached_for(row, _seconds(options, "actimeo=", 1))


def _fat(row: FileSystem, options: Collection[str]) -> FileSystem:
    if "tz=UTC" in options:
        return row
    return row._replace(note=f"{row.note}; its dates are in local time, and change with the zone")


_TABLE: Final = (
    FileSystem(
        ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "reiserfs", "xfs",
         "zfs"),
        "ok",
        "has all that zipfs relies on",
    ),
    FileSystem(("cramfs", "erofs", "iso9660", "romfs", "squashfs"), "ok", "never changes"),
    FileSystem(
        ("nfs", "nfs4"),
        "note",
        _POLLED,
        "add actimeo=1 to its mount options, unmount it, and mount it again",
        events=False,
        refine=_nfs,
    ),
    FileSystem(
        ("cifs", "smb3"),
        "note",
        _POLLED,
        "mount it with actimeo=1",
        events=False,
        stale="a server can tell the dates that a file had when it was opened",
        refine=_cifs,
    ),
    FileSystem(
        ("9p", "afs", "ceph", "glusterfs", "ncpfs", "prl_fs", "smbfs", "vboxsf", "virtiofs"),
        "note",
        f"{_POLLED}; changes made elsewhere show when it reports them",
        events=False,
        stale="dates can come from another cache than data",
        inodes_last=False,
    ),
    FileSystem(
        ("fuse", "fuseblk"),
        "note",
        f"{_POLLED}; dates, inodes and caches are as that program has them",
        events=False,
        stale=_PROGRAM,
        inodes_last=False,
    ),
    FileSystem(
        ("fuse.sshfs",),
        "note",
        f"{_POLLED}; it caches attributes for twenty seconds by default, and has dates in whole"
        " seconds",
        "mount it with -o dcache_timeout=1",
        events=False,
        stale=_PROGRAM,
        inodes_last=False,
        granularity=1.0,
    ),
    FileSystem(
        ("fuse.rclone",),
        "note",
        f"{_POLLED}; it caches folders for five minutes by default",
        "mount it with --dir-cache-time 10s",
        events=False,
        stale=_PROGRAM,
        inodes_last=False,
        costs=True,
    ),
    FileSystem(
        ("fuse.gcsfuse", "fuse.goofys", "fuse.mountpoint-s3", "fuse.s3fs"),
        "note",
        f"{_POLLED}; each read may cost money",
        events=False,
        stale=_PROGRAM,
        inodes_last=False,
        costs=True,
    ),
    FileSystem(
        ("fuse.zipfs",),
        "warning",
        "is itself a mount of zipfs: its archives would be taken for files",
        "name the library that it was mounted from",
        events=False,
        stale=_PROGRAM,
        inodes_last=False,
    ),
    FileSystem(
        ("vfat", "msdos"),
        "warning",
        f"keeps dates to two seconds and {_BLIND} until it is read",
        _COPY,
        granularity=2.0,
        stale="all its dates can be put back",
        inodes_last=False,
        own_ctime=False,
        refine=_fat,
    ),
    FileSystem(
        ("exfat",),
        "warning",
        f"{_BLIND} until it is read",
        _COPY,
        granularity=0.01,
        stale="all its dates can be put back",
        inodes_last=False,
        own_ctime=False,
    ),
    FileSystem(("ntfs", "ntfs3"), "note", "keeps dates to 100 ns", granularity=1e-7),
    FileSystem(("overlay",), "note", _MAPS),
    FileSystem(("tmpfs", "ramfs"), "note", f"is memory, and empty after a reboot; {_MAPS}"),
    FileSystem(("autofs",), "note", "is mounted at the first access, which waits for it"),
    FileSystem(
        ("binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs",
         "efivarfs", "fusectl", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs",
         "selinuxfs", "sysfs", "tracefs"),
        "problem",
        "holds no files: it is a view of the kernel",
        "name the folder that holds the games",
    ),
)  # fmt: skip
_BY_KIND: Final = {kind: row for row in _TABLE for kind in row.kinds}
_UNKNOWN: Final = FileSystem(
    (),
    "note",
    "is of a kind that zipfs doesn't know",
    stale="nothing is known of its dates",
    inodes_last=False,
)


def rows() -> tuple[FileSystem, ...]:
    """The table; each row is that for a mount without options."""
    return tuple(row.refine(row, ()) if row.refine else row for row in _TABLE)


def file_system(kind: str, options: Collection[str] = ()) -> FileSystem:
    """The row for a file system of *kind*, like ``fuse.sshfs``, mounted with *options*."""
    row = _BY_KIND.get(kind) or _BY_KIND.get(kind.partition(".")[0]) or _UNKNOWN
    return row.refine(row, options) if row.refine else row


def settle_wanted(granularity: float, settle: float) -> float | None:
    """A settle time longer than *granularity*; None if *settle* is longer. All in seconds.

    A second write within the granularity doesn't change the dates (DESIGN S1).
    """
    return None if settle > granularity else granularity * 2 + 1


def needs_polling(library: bytes) -> list[str]:
    """The kinds of the file systems in *library*, an absolute path, that send no events."""
    below = mounts_below(os.fsdecode(library), mounts())
    return sorted({mount.kind for mount in below if not file_system(mount.kind).events})


def holds_files(kind: str) -> bool:
    """Whether *kind* is a file system for files, and no view of the kernel."""
    return file_system(kind).level != "problem"
