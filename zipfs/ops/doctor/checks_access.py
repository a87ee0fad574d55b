"""Checks whether the web server's user may read the library and the mount.

In the mount the kernel checks the permission bits that zipfs shows (FUSE's
``default_permissions``), which are those of the sources; access control lists aren't shown. So
without a mount, the check evaluates the permission bits of the library. With one, root accesses
the mount and the folders above it as that user, in a subprocess.

The folders above the library matter only to programs that read it without the mount: zipfs
itself, and a web server that sends single files from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

from zipfs.errors import ConfigError, Level, UnansweredError
from zipfs.ops.doctor.findings import Finding
from zipfs.ops.doctor.headcount import Headcount
from zipfs.ops.doctor.remedies import chmod_remedy
from zipfs.system.subprocesses import Identity, ask
from zipfs.system.users import identity_of
from zipfs.text import counted, printable, quoted

WEB_USERS: Final = ("www-data", "nginx", "caddy", "apache", "http", "lighttpd", "wwwrun")
"""Users of web servers on Debian, Fedora, Arch, openSUSE, and of the servers' own packages."""
_MOST_ENTRIES: Final = 2000
"""Most entries of a mount that are listed to find files."""
_MOST_FILES: Final = 32
"""Most files of a mount that are opened."""


@dataclass(frozen=True, slots=True)
class WebUser:
    """A user that a web server may run as."""

    identity: Identity
    serious: bool
    """Whether its lack of access is a problem: named by the operator, or running now."""


@dataclass(frozen=True, slots=True)
class MountSeen:
    """A live mount of zipfs."""

    path: str
    allow_other: bool


def web_users(named: Sequence[str], *, wanted: bool) -> list[WebUser]:
    """The users *named*, or numbered; without names, those of :data:`WEB_USERS` that exist.

    Of the latter, those with a running process are serious; if *wanted* (other users are let into
    the mount), all are. Raises :exc:`ConfigError` for a name that isn't on this system.
    """
    users = []
    for name in named:
        try:
            users.append(WebUser(identity_of(name), serious=True))
        except ValueError as error:
            raise ConfigError(
                f"{error}, whom --web-user names; give the number: --web-user 101"
            ) from None
    if named:
        return users
    running = set(_running())
    for name in WEB_USERS:
        try:
            identity = identity_of(name)
        except ValueError:
            continue
        users.append(WebUser(identity, serious=wanted or identity.uid in running))
    return users


def _running() -> Iterator[int]:
    """The uids of all visible processes."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                yield os.stat(f"/proc/{name}").st_uid
            except OSError:
                continue  # the process has ended


def grants(status: os.stat_result, identity: Identity, bits: int) -> bool:
    """Whether the permission bits grant all of *bits* (0 to 7) to a user: path_resolution(7)."""
    if identity.uid == 0:
        return True
    if status.st_uid == identity.uid:
        shift = 6
    elif status.st_gid in identity.groups:
        shift = 3
    else:
        shift = 0
    return status.st_mode >> shift & bits == bits


def way_to(path: str) -> list[str]:
    """All folders above the absolute *path*, from ``/`` on."""
    names = path.strip("/").split("/")[:-1]
    return ["/" + "/".join(names[:count]) for count in range(len(names) + 1)]


# -- Functions that run in a subprocess ------------------------------------------------


def _first_closed(folders: Iterable[str], identity: Identity, real: bool) -> str:
    """The first of *folders* that a user may not enter; empty if there is none."""
    if real:
        identity.become()
    for folder in folders:
        if real:
            if not os.access(folder, os.X_OK):
                return folder
        elif not grants(os.stat(folder), identity, 1):
            return folder
    return ""


def _refused(root: str, sample: Iterable[str], identity: Identity) -> list[list[str]]:
    """The paths of *sample* that a user may not read by permission bits, each with the path whose
    bits refuse it: the file itself, or a folder above it."""
    enterable: dict[str, str] = {}

    def closed_folder(path: str) -> str:
        if path not in enterable:
            above = closed_folder(os.path.dirname(path)) if path else ""
            status = os.stat(os.path.join(root, path))
            enterable[path] = above or ("" if grants(status, identity, 5) else path or ".")
        return enterable[path]

    refused = []
    for path in sample:
        try:
            closed = closed_folder(os.path.dirname(path))
            if not closed and not grants(os.stat(os.path.join(root, path)), identity, 4):
                closed = path
        except FileNotFoundError:
            continue
        if closed:
            refused.append([path, closed])
    return refused


def _into(mountpoint: str, identity: Identity, real: bool) -> dict[str, Any]:
    """Whether a user can list a mount and open files in it."""
    if real:
        identity.become()
    seen = {"listed": 0, "opened": 0, "refused": []}
    try:
        files = list(islice(_files_in(mountpoint), _MOST_FILES))
    except PermissionError:
        return seen
    seen["listed"] = 1
    refused = []
    opened = 0
    for path in files:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            refused.append(os.path.relpath(path, mountpoint))
            continue
        os.read(descriptor, 1)
        os.close(descriptor)
        opened += 1
    return seen | {"opened": opened, "refused": refused}


def _files_in(mountpoint: str) -> Iterator[str]:
    """Files in a mount, archives first in each folder; also the folders that can't be listed."""
    todo = [mountpoint]
    left = _MOST_ENTRIES
    while todo and left > 0:
        folder = todo.pop()
        try:
            entries = sorted(
                os.scandir(folder), key=lambda e: (not e.name.endswith(".zip"), e.name)
            )
        except PermissionError:
            if folder == mountpoint:
                raise
            yield folder
            continue
        left -= len(entries)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                todo.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                yield entry.path


# -- Findings -------------------------------------------------------------------------


def check(
    users: Sequence[WebUser],
    library: str | None,
    found: Headcount | None,
    mountpoint: str | None,
    mount: MountSeen | None,
) -> Iterator[Finding]:
    """Check what each of *users* may read.

    *library* and *mountpoint* are absolute paths, None if there is none; *mount* is a live mount.
    """
    if not users:
        yield Finding(
            "web server",
            "note",
            "there is no user that web servers run as, so access wasn't checked",
            "zipfs doctor --web-user NAME ...",
        )
    for user in users:
        name = f"user {user.identity.name}"
        try:
            findings = list(_of_user(user, library, found, mountpoint, mount))
        except UnansweredError as error:
            yield Finding(name, "warning", f"what this user may read can't be checked: {error}")
            continue
        except OSError as error:
            yield Finding(name, "warning", f"can't be checked: {error.strerror}")
            continue
        for found_out in findings:
            yield Finding(name, *found_out)


class _Found(NamedTuple):
    level: Level
    what: str
    remedy: str = ""


def _of_user(
    user: WebUser,
    library: str | None,
    found: Headcount | None,
    mountpoint: str | None,
    mount: MountSeen | None,
) -> Iterator[_Found]:
    identity = user.identity
    bad: Level = "problem" if user.serious else "warning"
    real = _can_become(identity)
    reached = True
    if mountpoint and (closed := ask(_first_closed, way_to(mountpoint), identity, real)):
        reached = False
        yield _Found(
            bad,
            f"may not enter {printable(closed)}, above the mount point",
            f"chmod a+x {quoted(closed)}",
        )
    if mount is not None:
        if reached:
            yield from _in_mount(identity, bad, mount, real, library)
    elif library is not None and found is not None:
        yield from _by_bits(identity, bad, library, found)
    if library is not None and (closed := ask(_first_closed, way_to(library), identity, real)):
        yield _Found(
            "note",
            f"may not enter {printable(closed)}, above the library: the mount isn't affected, but"
            " the web server can't send single files from the library itself",
            f"chmod a+x {quoted(closed)}",
        )


def _can_become(identity: Identity) -> bool:
    """Whether this process is root, and its capabilities and user namespace let it become that
    user."""
    if os.geteuid() != 0:
        return False
    try:
        ask(identity.become)
    except OSError:
        return False
    return True


def _in_mount(
    identity: Identity, bad: Level, mount: MountSeen, real: bool, library: str | None
) -> Iterator[_Found]:
    ours = real or os.geteuid() == identity.uid
    if not mount.allow_other and not ours:
        yield _Found(bad, *_NOT_LET_IN)
        return
    if not ours:
        yield _Found(
            "note",
            "is let into the mount; only root can check what it may read there",
            "run zipfs doctor as root",
        )
        return
    seen = ask(_into, mount.path, identity, real)
    opened, refused = seen["opened"], seen["refused"]
    if not seen["listed"]:
        if mount.allow_other:
            yield _Found(
                bad,
                "may not list the mount: the library's own folder is closed to this user",
                chmod_remedy(library, "a+rx") if library else "chmod a+rx LIBRARY",
            )
        else:
            yield _Found(bad, *_NOT_LET_IN)
    elif refused:
        yield _Found(
            "warning" if opened else bad,
            f"can't read {len(refused)} of {opened + len(refused)} things in the mount, such as"
            f" {printable(refused[0])}: some file in it is closed to this user",
            chmod_remedy(library, below=True) if library else "chmod -R a+rX LIBRARY",
        )
    elif opened:
        yield _Found("ok", f"lists the mount, and reads each of {counted(opened, 'file')} tried")
    else:
        yield _Found("ok", "lists the mount; there is no file in it yet")


_NOT_LET_IN: Final = (
    "isn't let into the mount: it was made without --allow-other",
    "mount with --allow-other (in the config file: allow-other = true)",
)


def _by_bits(identity: Identity, bad: Level, library: str, found: Headcount) -> Iterator[_Found]:
    if not ask(_listable, library, identity):
        yield _Found(
            bad,
            "won't be able to list the mount: the library's own folder is closed to this user",
            chmod_remedy(library, "a+rx"),
        )
        return
    refused = ask(_refused, library, found.sample, identity)
    if not refused:
        tried = counted(len(found.sample), "file")
        yield _Found("ok", f"may read each of {tried} tried, by permission bits")
        return
    closed = sorted({closed for _, closed in refused})
    yield _Found(
        bad if len(refused) == len(found.sample) else "warning",
        f"won't be able to list or read {len(refused)} of {counted(len(found.sample), 'file')}"
        f" tried, by permission bits: {printable(closed[0])} is closed to this user, and so is any"
        " archive with it",
        chmod_remedy(os.path.join(library, closed[0]))
        if len(closed) == 1
        else chmod_remedy(library, below=True),
    )


def _listable(folder: str, identity: Identity) -> bool:
    return grants(os.stat(folder), identity, 5)
