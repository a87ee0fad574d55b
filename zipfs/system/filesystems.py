"""What follows from the kind of file system that a library is on; pure.

zipfs takes a file for unchanged as long as its inode, size, mtime and ctime are the same
(DESIGN S1), hears of changes by inotify where there are events, and reads cached data
without a thread where the kernel knows ``RWF_NOWAIT``. What a file system lacks of that
is told here, with what can be done about it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from zipfs.errors import Level
from zipfs.system.mounts import mounts, mounts_below


class Footing(NamedTuple):
    """What there is to say of a file system; *granularity* of its times is in seconds."""

    level: Level
    what: str
    remedy: str = ""
    granularity: float = 0.0


_POLLED: Final = "sends no events: it is looked through every ten seconds, and on each access"
_HASHED_AGAIN: Final = (
    "numbers its files anew after a while: they are taken for changed, and hashed again"
)

_FINE: Final = Footing("ok", "has all that zipfs relies on")
_LOCAL: Final = frozenset(
    ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "reiserfs", "xfs", "zfs")
)
_NEVER_CHANGES: Final = frozenset(("cramfs", "erofs", "iso9660", "romfs", "squashfs"))
_OF_THE_KERNEL: Final = frozenset(
    (
        "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs",
        "efivarfs", "fusectl", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs",
        "selinuxfs", "sysfs", "tracefs",
    )
)  # fmt: skip
_NO_EVENTS: Final = (
    "9p", "afs", "ceph", "cifs", "fuse", "fuseblk", "glusterfs", "ncpfs", "nfs", "nfs4",
    "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs",
)  # fmt: skip
_ATTRIBUTE_CACHES: Final = ("acregmax=", "acdirmax=")


def _options(options: Collection[str], prefix: str) -> list[str]:
    return [option.removeprefix(prefix) for option in options if option.startswith(prefix)]


def _nfs(options: Collection[str]) -> Footing:
    # nfs(5): what isn't shown has its default, 60 seconds at most for both.
    values = [_options(options, name) for name in _ATTRIBUTE_CACHES]
    longest = max(int(found[0]) if found and found[0].isdigit() else 60 for found in values)
    if "noac" in options or longest <= 1:
        return Footing("ok", f"{_POLLED}; attributes are cached for a second at most")
    return Footing(
        "note",
        f"{_POLLED}; it caches attributes for up to {longest} seconds, so changes made on"
        " other machines may show that much later",
        "add actimeo=1 to its mount options, unmount it, and mount it again",
    )


def _cifs(options: Collection[str]) -> Footing:
    longest = max((int(n) for n in _options(options, "actimeo=") if n.isdigit()), default=1)
    if longest <= 1:
        return Footing("ok", f"{_POLLED}; attributes are cached for a second at most")
    return Footing(
        "note",
        f"{_POLLED}; it caches attributes for {longest} seconds, so changes made on other"
        " machines may show that much later",
        "mount it with actimeo=1",
    )


def _fat(options: Collection[str]) -> Footing:
    local = "" if "tz=UTC" in options else "; its dates are in local time, and move with the zone"
    return Footing(
        "warning",
        f"keeps dates to two seconds and has no ctime of its own, so that a file rewritten with"
        f" its old size and date goes unnoticed; it {_HASHED_AGAIN}{local}",
        "copy the library to ext4, btrfs or xfs",
        granularity=2.0,
    )


def _exfat(_: Collection[str]) -> Footing:
    return Footing(
        "warning",
        "has no ctime of its own, so that a file rewritten with its old size and date goes"
        f" unnoticed; it {_HASHED_AGAIN}",
        "copy the library to ext4, btrfs or xfs",
        granularity=0.01,
    )


def _fuse(options: Collection[str]) -> Footing:
    return Footing("note", f"{_POLLED}; dates, inodes and caches are as that program has them")


def _sshfs(_: Collection[str]) -> Footing:
    return Footing(
        "note",
        f"{_POLLED}; it caches attributes for twenty seconds, unless told otherwise, and has dates"
        " in whole seconds",
        "mount it with -o dcache_timeout=1",
        granularity=1.0,
    )


def _rclone(_: Collection[str]) -> Footing:
    return Footing(
        "note",
        f"{_POLLED}; it caches folders for five minutes, unless told otherwise",
        "mount it with --dir-cache-time 10s",
    )


def _says(level: Level, what: str, remedy: str = "") -> Callable[[Collection[str]], Footing]:
    return lambda _: Footing(level, what, remedy)


_share = _says("note", f"{_POLLED}; changes made elsewhere show when it tells of them")
_maps = (
    "what a program changes later in files that it maps (some BitTorrent clients) leaves no trace"
)

_KINDS: Final[dict[str, Callable[[Collection[str]], Footing]]] = {
    "nfs": _nfs,
    "nfs4": _nfs,
    "cifs": _cifs,
    "smb3": _cifs,
    "vfat": _fat,
    "msdos": _fat,
    "exfat": _exfat,
    "fuse": _fuse,
    "fuseblk": _fuse,
    "fuse.sshfs": _sshfs,
    "fuse.rclone": _rclone,
    "overlay": _says("note", _maps),
    "tmpfs": _says("note", f"is memory, and empty after a reboot; {_maps}"),
    "ramfs": _says("note", f"is memory, and empty after a reboot; {_maps}"),
    "autofs": _says("note", "is mounted when somebody first looks, which waits for it"),
    "ntfs": _says("note", "keeps dates to 100 ns"),
    "ntfs3": _says("note", "keeps dates to 100 ns"),
    "fuse.zipfs": _says(
        "warning",
        "is itself what zipfs shows: its archives would be taken for files",
        "name the library that it was mounted from",
    ),
} | dict.fromkeys(
    ("9p", "afs", "ceph", "glusterfs", "ncpfs", "prl_fs", "smbfs", "vboxsf", "virtiofs"), _share
)


def footing_of(kind: str, options: Collection[str]) -> Footing:
    """What follows from a file system of *kind*, like ``fuse.sshfs``, with these *options*."""
    if kind in _LOCAL:
        return _FINE
    if kind in _NEVER_CHANGES:
        return Footing("ok", "never changes")
    if kind in _OF_THE_KERNEL:
        return Footing(
            "problem",
            "holds no files: it is a view of the kernel",
            "name the folder that holds the games",
        )
    judge = _KINDS.get(kind) or _KINDS.get(kind.partition(".")[0])
    if judge is None:
        return Footing("note", "is of a kind that nothing is known of here")
    return judge(options)


def settle_wanted(granularity: float, settle: float) -> float | None:
    """A settle time that is longer than the steps of a file system's dates, if *settle* isn't.

    A write within the same step as the last one leaves no trace in the dates (DESIGN S1).
    """
    return None if settle > granularity else granularity * 2 + 1


def sends_events(kind: str) -> bool:
    """Whether inotify tells of all changes on a file system of this *kind*."""
    return kind.partition(".")[0] not in _NO_EVENTS


def needs_polling(library: bytes) -> list[str]:
    """The kinds of file systems in *library*, an absolute path, that send no events.

    Others than this machine may change what is on them, and inotify is silent then.
    """
    below = mounts_below(os.fsdecode(library), mounts())
    return sorted({mount.kind for mount in below if not sends_events(mount.kind)})
