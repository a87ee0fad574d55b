"""Checks of inotify's limits against the library's size: inotify(7).

zipfs watches each folder of the library, those in games included, and the folder of lists. The
limits are per user, for all processes together; a user namespace may have lower ones
(``/proc/sys/user``, namespaces(7)).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from zipfs.ops.doctor.findings import Finding
from zipfs.ops.doctor.headcount import Headcount
from zipfs.text import counted

_LIMITS: Final = "/proc/sys/fs/inotify"
_OF_NAMESPACE: Final = "/proc/sys/user"
_QUEUE: Final = 16384
"""The kernel's own default for ``max_queued_events``."""
_NAME: Final = "inotify"
_POLLED: Final = "is scanned every ten seconds instead"


@dataclass(frozen=True, slots=True)
class InotifyLimits:
    """The limits of a user; None where the kernel has no such file."""

    watches: int | None
    instances: int | None
    queue: int | None


@dataclass(frozen=True, slots=True)
class InotifyUse:
    """Watches and instances of a user's visible processes; the *own* ones are those of zipfs."""

    watches: int = 0
    own: int = 0
    instances: int = 0
    own_instances: int = 0


def limits(folder: str = _LIMITS, of_namespace: str = _OF_NAMESPACE) -> InotifyLimits:
    """The limits in force."""
    return InotifyLimits(
        watches=_least(f"{folder}/max_user_watches", f"{of_namespace}/max_inotify_watches"),
        instances=_least(f"{folder}/max_user_instances", f"{of_namespace}/max_inotify_instances"),
        queue=_least(f"{folder}/max_queued_events"),
    )


def _least(*files: str) -> int | None:
    values = []
    for file in files:
        with contextlib.suppress(OSError, ValueError), open(file, encoding="ascii") as stream:
            values.append(int(stream.read()))
    return min(values, default=None)


def in_use(uid: int, folder: str = "/proc") -> InotifyUse:
    """Watches and instances of a user's visible processes: proc_pid_fdinfo(5)."""
    watches = own = instances = own_instances = 0
    for pid in filter(str.isdigit, os.listdir(folder)):
        with contextlib.suppress(OSError):
            if os.stat(f"{folder}/{pid}").st_uid != uid:
                continue
            of_process = instances_of_process = 0
            for number in os.listdir(f"{folder}/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"{folder}/{pid}/fd/{number}") != "anon_inode:inotify":
                        continue
                    with open(f"{folder}/{pid}/fdinfo/{number}", "rb") as lines:
                        of_process += sum(line.startswith(b"inotify wd:") for line in lines)
                    instances_of_process += 1
            watches += of_process
            instances += instances_of_process
            if instances_of_process and _is_zipfs(f"{folder}/{pid}"):
                own += of_process
                own_instances += instances_of_process
    return InotifyUse(watches, own, instances, own_instances)


def _is_zipfs(process: str) -> bool:
    with open(f"{process}/cmdline", "rb") as file:
        words = file.read().split(b"\0")
    return any(os.path.basename(word) in (b"zipfs", b"mount.zipfs") for word in words[:4])


def check(
    limit: InotifyLimits, use: InotifyUse, found: Headcount, *, instances: int, polled: bool
) -> Iterator[Finding]:
    """Check whether the folders counted in *found* can be watched.

    *instances* is the number that zipfs needs; *polled* is whether it scans the library anyway.
    """
    need = found.folders + instances - 1
    if limit.watches is None:
        yield Finding(
            _NAME,
            "warning",
            f"this kernel has no inotify: the library {_POLLED}",
            "use a kernel with CONFIG_INOTIFY_USER",
        )
        return
    others = use.watches - use.own
    free = limit.watches - others
    needed = f"{counted(need, 'folder', at_least=not found.complete)} to watch"
    have = f"{limit.watches} are allowed, {others} of them in use by other programs"
    if need <= free:
        yield Finding(_NAME, "ok", f"{needed}; {have}")
    else:
        wanted = 1 << (2 * (need + others) - 1).bit_length()
        yield Finding(
            _NAME,
            "note" if polled else "warning",
            f"{needed}, and {have}: the library {_POLLED}"
            + (", as it is anyway" if polled else ""),
            f"echo fs.inotify.max_user_watches={wanted} > /etc/sysctl.d/60-zipfs.conf"
            " && sysctl --system",
        )
    if limit.instances is not None:
        taken = use.instances - use.own_instances
        if taken + instances > limit.instances:
            yield Finding(
                _NAME,
                "note" if polled else "warning",
                f"{taken} of {limit.instances} instances are in use by other programs, so zipfs"
                f" gets none: the library {_POLLED}",
                f"echo fs.inotify.max_user_instances={max(256, 2 * limit.instances)}"
                " > /etc/sysctl.d/61-zipfs.conf && sysctl --system",
            )
    if limit.queue is not None and limit.queue < _QUEUE:
        yield Finding(
            _NAME,
            "note",
            f"the queue holds {limit.queue} events only: when it overflows, the whole library is"
            " scanned again",
            f"echo fs.inotify.max_queued_events={_QUEUE} > /etc/sysctl.d/62-zipfs.conf"
            " && sysctl --system",
        )
