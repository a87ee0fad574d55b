"""Checks of the mount point, and of the kernel's limits for a mount.

Mounts are found in mountinfo; a mount itself is accessed in a subprocess, as its daemon may not
answer.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from zipfs.errors import UnansweredError
from zipfs.mount.mountpoint import CONNECTIONS, KIND, MAX_BACKGROUND, absolute
from zipfs.ops.doctor.findings import Finding
from zipfs.system.mounts import Mount, is_inside, lower_folders
from zipfs.system.subprocesses import ask
from zipfs.text import quoted

_BDI: Final = "/sys/class/bdi"
_POINT: Final = "mount point"
_AHEAD: Final = "read-ahead"
_BACKGROUND: Final = "max_background"
_problem = functools.partial(Finding, _POINT, "problem")


@dataclass(frozen=True, slots=True)
class Point:
    """A mount point: its absolute path, and the live mount of zipfs there, or None."""

    path: str
    mount: Mount | None


def locate(mountpoint: str, root: str | None, mounted: Iterable[Mount]) -> tuple[Point, Finding]:
    """Check *mountpoint* for the library at *root*, with the *mounted* file systems."""
    shown = quoted(mountpoint)
    try:
        path = ask(absolute, mountpoint)
    except UnansweredError as error:
        finding = _problem(
            f"what is above {shown} doesn't answer: {error}", "choose a folder on a local disk"
        )
        return Point(os.path.abspath(mountpoint), None), finding
    mount = next((m for m in reversed(list(mounted)) if m.path == path), None)
    if mount is None:
        return Point(path, None), _unmounted(path, shown, root)
    if mount.kind != KIND:
        finding = _problem(f"{mount.kind} is mounted on {shown}, not zipfs", f"umount {shown}")
        return Point(path, None), finding
    try:
        ask(_alive, path)
    except UnansweredError as error:
        finding = _problem(
            f"the mount on {shown} doesn't answer: {error}",
            "its log tells why; kill -USR1 of its process dumps all stacks there",
        )
        return Point(path, None), finding
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            finding = _problem(
                f"the daemon of the mount on {shown} has died",
                f"start it again, which removes the dead mount; or zipfs unmount {shown}",
            )
            return Point(path, None), finding
        if error.errno not in (errno.EACCES, errno.EPERM):
            finding = _problem(
                f"the mount on {shown} answers: {error.strerror}", "its log tells why"
            )
            return Point(path, None), finding
        # Another user's mount, without allow_other: it counts as alive.
    return Point(path, mount), Finding(_POINT, "ok", f"zipfs is mounted on {shown}")


def _alive(path: str) -> None:
    # Not stat, which the kernel answers from its cache for a second.
    os.statvfs(path)


def _unmounted(path: str, shown: str, root: str | None) -> Finding:
    try:
        holds = ask(_holds, path)
    except UnansweredError as error:
        return _problem(f"{shown} doesn't answer: {error}", "choose a folder on a local disk")
    except FileNotFoundError:
        return _problem(f"there is no folder {shown}", f"mkdir -p {shown}")
    except OSError as error:
        return _problem(
            f"{shown} can't be used: {error.strerror}",
            "choose an empty folder that this user may list",
        )
    if holds:
        return _problem(
            f"{shown} isn't empty, and nothing is mounted there", "choose an empty folder"
        )
    if os.geteuid() != 0 and not os.access(path, os.W_OK):
        # fusermount3 requires it, so that no user mounts over another user's folder.
        return _problem(
            f"{shown} may not be written by this user, who therefore can't mount on it",
            f"chown {os.geteuid()} {shown}",
        )
    if root is not None and os.path.commonpath([path, root]) in (path, root):
        return _problem(
            f"{shown} is in the library, or the library is in it", "choose a folder elsewhere"
        )
    return Finding(_POINT, "ok", f"{shown} is an empty folder; nothing is mounted there")


def _holds(path: str) -> bool:
    with os.scandir(path) as entries:
        return next(entries, None) is not None


def check_overlays(path: str, mounted: Iterable[Mount]) -> Iterator[Finding]:
    """Check whether an overlayfs has the mount point *path*, or a folder in it, as a lower layer.

    It looks up a name in its lower layers once: that it isn't there is remembered until the
    memory is needed, and what has become another file is ``ESTALE`` as long (seen, Linux 6.18).
    """
    for mount in mounted:
        if mount.kind == "overlay" and any(is_inside(at, path) for at in lower_folders(mount)):
            shown = quoted(mount.path)
            yield Finding(
                "overlayfs",
                "warning",
                f"{shown} has this mount as a lower layer: in it, an archive that was asked for"
                " before it was there stays unknown, and one that has changed is a stale file"
                " handle",
                # By mount(2): an overlay refuses the newer call that libmount prefers since 2.39.
                "show it by mount --bind instead; until then LIBMOUNT_FORCE_MOUNT2=always"
                f" mount -o remount {shown} makes the overlay look again, once",
            )


def check_tuning(
    mount: Mount | None, read_ahead: int, bdi: str = _BDI, connections: str = CONNECTIONS
) -> Iterator[Finding]:
    """Check whether the kernel has the limits that zipfs sets for *mount*, or allows them.

    *read_ahead* is in KiB, 0 for the kernel's default.
    """
    if mount is None:
        yield _would_be_set(read_ahead, bdi)
        return
    if read_ahead:
        file = f"{bdi}/{mount.device}/read_ahead_kb"
        yield _compare(_AHEAD, file, read_ahead, "KiB", "first downloads come in smaller pieces")
    file = f"{connections}/{mount.device.partition(':')[2]}/max_background"
    if not os.path.exists(file):
        able = os.geteuid() == 0 and shutil.which("unshare") is not None
        yield Finding(
            _BACKGROUND,
            "ok" if able else "note",
            "fusectl isn't mounted here, so it can't be read"
            + (", but zipfs can set it" if able else ", nor set by zipfs"),
            "" if able else f"mount -t fusectl fusectl {connections}",
        )
    else:
        yield _compare(
            _BACKGROUND,
            file,
            MAX_BACKGROUND,
            "reads ahead at once",
            "a dozen reads of a disk that doesn't answer hold up all others",
        )


def _compare(name: str, file: str, wanted: int, unit: str, follows: str) -> Finding:
    value = None
    with contextlib.suppress(OSError, ValueError), open(file, encoding="ascii") as stream:
        value = int(stream.read())
    if value is None:
        return Finding(name, "note", f"{file} can't be read", "run zipfs doctor as root")
    if value >= wanted:
        return Finding(name, "ok", f"{value} {unit}, as set")
    return Finding(
        name,
        "note",
        f"{value} {unit} instead of {wanted}: {follows}",
        f"echo {wanted} > {file}, as root",
    )


def _would_be_set(read_ahead: int, bdi: str) -> Finding:
    if not read_ahead:
        return Finding(_AHEAD, "ok", "left as the kernel has it, as set")
    if os.geteuid() != 0:
        return Finding(
            _AHEAD,
            "note",
            "only root may set it: the mount will have the kernel's own, 128 KiB, and first"
            " downloads come in smaller pieces",
            "once it is mounted, as root: zipfs tune MOUNTPOINT",
        )
    # Any file system's file will do: it shows whether /sys is writable.
    writable = False
    with contextlib.suppress(OSError):
        files = [f"{bdi}/{name}/read_ahead_kb" for name in os.listdir(bdi)]
        writable = bool(files) and any(os.access(file, os.W_OK) for file in files)
    if writable:
        return Finding(_AHEAD, "ok", f"can be set to {read_ahead} KiB")
    return Finding(
        _AHEAD,
        "note",
        "/sys isn't writable, as in most containers: the mount will have the kernel's own, 128 KiB,"
        " and first downloads come in smaller pieces",
        f"on the host: echo {read_ahead} > /sys/class/bdi/MAJOR:MINOR/read_ahead_kb"
        " (MAJOR:MINOR: mountpoint -d MOUNTPOINT)",
    )
