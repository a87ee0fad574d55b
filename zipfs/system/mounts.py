"""The table of mounts, ``/proc/self/mountinfo``: proc_pid_mountinfo(5).

It is read instead of accessing the paths themselves: a dead FUSE mount returns ``ENOTCONN``,
and even ``stat`` of a live one waits for its daemon.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import subprocess
import threading
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

TABLE: Final = "/proc/self/mountinfo"
PATIENCE: Final = 5.0
"""Seconds to wait for the daemon of a mount."""
PROBE: Final = ("stat", "--file-system", "--format=", "--")
"""A program of GNU coreutils that calls statfs(2); then the path."""
ZIPFS: Final = "fuse.zipfs"
"""Kind of a zipfs mount in the table."""


class Copy(NamedTuple):
    """A mount of a file system in some mount namespace, and one process in that."""

    path: str
    pid: int
    name: str
    """Of the process."""
    ours: bool
    """Whether the namespace is that of this process."""


class Mount(NamedTuple):
    """One line of mountinfo: *device* is ``MAJOR:MINOR``, *kind* like ``fuse.zipfs``."""

    device: str
    path: str
    kind: str
    options: frozenset[str] = frozenset()
    """Of the mount and of its file system, such as ``ro`` and ``allow_other``."""
    number: int = 0
    """Its ID, which another mount can get as soon as this one is gone."""
    shared: bool = False
    """Whether mounts made in it get out of this mount namespace: mount_namespaces(7)."""
    bound: bool = False
    """Whether it shows a folder of its file system only, as a bind mount does."""


def mounts(table: str = TABLE) -> Iterator[Mount]:
    """All mounts of this mount namespace, in the order they were made."""
    with open(table, "rb") as lines:
        for line in lines:
            before, _, after = line.partition(b" - ")
            fields = before.split()
            path = _unescaped(fields[4])
            kind, *rest = after.split()
            options = frozenset(map(os.fsdecode, b",".join([fields[5], *rest[1:]]).split(b",")))
            device, number = fields[2].decode(), int(fields[0])
            shared = any(field.startswith(b"shared:") for field in fields[6:])
            bound = fields[3] != b"/"
            yield Mount(device, os.fsdecode(path), kind.decode(), options, number, shared, bound)


class MountEvents:
    """Changes of the table, as proc_pid_mountinfo(5) tells of them: by ``POLLPRI``.

    The descriptor, :meth:`fileno`, is readable once something was mounted or unmounted, until
    :meth:`clear`. Raises :exc:`OSError` where there is no such table.

    Whoever polls the table is told of a change once. An epoll set in an epoll set polls it at
    times that nobody sees, so a thread of its own does, and it alone.
    """

    def __init__(self) -> None:
        self._table = open(TABLE, "rb")  # noqa: SIM115 - closed by close
        self._changed = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        poll = select.poll()
        poll.register(self._table, select.POLLPRI)
        poll.register(self._end, select.POLLIN)
        poll.poll(0)  # what was mounted until now
        self._thread = threading.Thread(
            target=self._listen, args=(poll,), name="zipfs-mounts", daemon=True
        )
        self._thread.start()

    def _listen(self, poll: select.poll) -> None:
        while self._end not in dict(poll.poll()):
            os.eventfd_write(self._changed, 1)

    def fileno(self) -> int:
        return self._changed

    def clear(self) -> None:
        """Forget the changes so far."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._changed)

    def close(self) -> None:
        os.eventfd_write(self._end, 1)
        self._thread.join()
        os.close(self._end)
        os.close(self._changed)
        self._table.close()


def mounted_at(path: str) -> Mount | None:
    """The topmost mount at the absolute *path*."""
    found = None
    for mount in mounts():
        if mount.path == path:
            found = mount
    return found


def lower_folders(mount: Mount) -> list[str]:
    """The lower layers of *mount*, an overlayfs, as they were named when it was made.

    Kernel documentation, filesystems/overlayfs: ``lowerdir=A:B``, or ``lowerdir+=A`` for each.
    """
    found = []
    for option in mount.options:
        name, _, value = option.partition("=")
        folders = os.fsdecode(_unescaped(os.fsencode(value)))
        if name == "lowerdir+":
            found.append(folders)
        elif name == "lowerdir":
            parts = re.split(r"(?<!\\):+", folders)
            found += [re.sub(r"\\(.)", r"\1", part) for part in parts]
    return found


def _unescaped(text: bytes) -> bytes:
    """*text* of mountinfo, with the characters that are in octal there."""
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text)


def copies(device: str) -> tuple[list[Copy], bool]:
    """All mounts of the file system *device*, ``MAJOR:MINOR``, and whether they are all.

    mount_namespaces(7): one for each container, and for many services. Those of other users'
    processes can be seen by root alone.
    """
    found = []
    complete = True
    ours = os.readlink("/proc/self/ns/mnt")
    seen = set()
    for pid in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))):
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace in seen:
                continue
            paths = [m.path for m in mounts(f"/proc/{pid}/mountinfo") if m.device == device]
            seen.add(namespace)
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                name = file.read().strip()
        except PermissionError:
            complete = False
        except (OSError, ValueError):  # the process has ended, or its namespace is gone
            continue
        else:
            found += [Copy(path, pid, name, namespace == ours) for path in paths]
    return found, complete


def is_dead(path: str, patience: float = PATIENCE) -> bool:
    """Whether the daemon of the FUSE mount at *path* has died; False if it doesn't answer."""
    return asked(path, patience) is False


def asked(path: str, patience: float = PATIENCE) -> bool | None:
    """Whether the file system at *path* answers; None if nothing came within *patience* seconds.

    False is a FUSE mount whose daemon has died. One that outlives its daemon has none for a while.
    """
    # A program, which can be killed: a thread of ours that waits there would keep the mount busy.
    # Not stat(2): for a second the kernel answers that from its cache.
    with subprocess.Popen(
        [*PROBE, path],
        env=dict(os.environ, LC_ALL="C"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as asking:
        try:
            _, said = asking.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            asking.kill()
            return None
    dead = (errno.ENOTCONN, errno.ECONNABORTED)
    return not any(os.strerror(number).encode() in said for number in dead)


def mounts_below(folder: str, mounted: Iterable[Mount]) -> list[Mount]:
    """Those of *mounted* that *folder*, an absolute path, is on, and those in it."""
    holding = ""
    topmost: dict[str, Mount] = {}
    for mount in mounted:
        topmost[mount.path] = mount
        if is_inside(folder, mount.path) and len(mount.path) >= len(holding):
            holding = mount.path
    inside = sorted(path for path in topmost if path != holding and is_inside(path, folder))
    return [topmost[path] for path in (holding, *inside) if path in topmost]


def is_inside(path: str, folder: str) -> bool:
    """Whether the absolute *path* is *folder* or in it; no link is followed."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
