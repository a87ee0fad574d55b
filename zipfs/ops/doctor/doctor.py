"""``zipfs doctor``: all checks, one after the other; an error in one doesn't stop the others.

Checks yield :class:`zipfs.ops.doctor.findings.Finding`, and are in the module of their subject.
This module runs them in order, and passes the results of one to another. Nothing is written, and
each wait has a time limit.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from zipfs.config import Settings
from zipfs.errors import ConfigError, UnansweredError
from zipfs.ops.doctor import checks_access as access
from zipfs.ops.doctor import checks_changes as changes
from zipfs.ops.doctor import checks_container as container_checks
from zipfs.ops.doctor import checks_index as index
from zipfs.ops.doctor import checks_library as library
from zipfs.ops.doctor import checks_mount as mount
from zipfs.ops.doctor import checks_romm as romm
from zipfs.ops.doctor import checks_shared as shared
from zipfs.ops.doctor import checks_system as system
from zipfs.ops.doctor.findings import Finding
from zipfs.ops.doctor.headcount import Headcount, count
from zipfs.sealing.sealers import index_file
from zipfs.system.containers import in_container, in_user_namespace
from zipfs.system.filesystems import needs_polling
from zipfs.system.mounts import Mount, mounts
from zipfs.system.subprocesses import ask

log = logging.getLogger(__name__)

T = TypeVar("T")

_SEE_THE_KERNEL: Final = "dmesg may tell more"


@dataclass(frozen=True, slots=True)
class Subject:
    """What to check."""

    settings: Settings
    library: str | None
    """None: only the machine."""
    web_users: Sequence[str] = ()
    """Names; empty for those of :data:`access.WEB_USERS` that exist."""
    romm: str | None = None
    """The URL of a download of RomM."""


def examine(subject: Subject) -> Iterator[Finding]:
    """All findings, as they are made. Raises :exc:`zipfs.errors.ConfigError`."""
    container = in_container()
    for finding in _examine(subject, container=container):
        yield container_checks.possible(finding) if container else finding


def _examine(subject: Subject, *, container: bool) -> Iterator[Finding]:
    settings = subject.settings
    allow_other = settings.allow_other or "allow_other" in ",".join(settings.options).split(",")
    users = access.web_users(subject.web_users, wanted=allow_other)
    yield from _safely("FUSE", lambda: system.check_device(container=container))
    yield from _safely(
        "right to mount",
        lambda: system.check_mounting(allow_other=allow_other, container=container),
    )
    yield from _safely("versions", system.check_versions)
    yield from _safely("open files", system.check_limits)
    yield from _safely("programs", system.check_programs)
    mounted = list(mounts())
    root: str | None = None
    found: Headcount | None = None
    named = subject.library
    if named is not None:
        place, failed = _tried("library", lambda: library.locate(named, mounted))
        yield from failed
        if place is not None:
            root = place.root
            yield from [place.finding] if place.finding else []
    if root is not None:
        found = yield from _library(root, settings, mounted)
    if named is not None and settings.lists is not None:
        yield from _lists(settings.lists, settings, mounted)
    point: mount.Point | None = None
    if settings.mountpoint is not None:
        at = settings.mountpoint
        located, failed = _tried("mount point", lambda: mount.locate(at, root, mounted))
        yield from failed
        if located is not None:
            point, finding = located
            path = point.path
            bound = container_checks.bound(path, mounted) if container else None
            yield bound or finding
            if container and not bound:
                alone = in_user_namespace()
                yield from _safely(
                    "propagation", lambda: container_checks.check_reach(path, mounted, alone=alone)
                )
            yield from _safely("overlayfs", lambda: mount.check_overlays(path, mounted))
    there = point.mount if point else None
    yield from _safely("read-ahead", lambda: mount.check_tuning(there, settings.read_ahead))
    if root is not None or point is not None:
        yield from _safely("web server", lambda: _access(users, root, found, point))
    # In a container the defaults are seldom what the daemon was started with.
    told = container_checks.document_of(there.path) if container and there else None
    if told is not None and settings.index is None:
        document = told
        yield from _safely("index", lambda: container_checks.check_daemon(document, root))
    elif subject.library is not None:
        yield from _safely("index", lambda: _index(settings, root, found, mounted))
    if settings.shared_index is not None:
        at, known = settings.shared_index, root is not None
        yield from _safely("shared index", lambda: shared.check(at, settings, library=known))
    if subject.romm is not None:
        url, point_of = subject.romm, settings.mountpoint
        shown = os.path.join(point_of, settings.lists_folder) if point_of else None
        here = romm.Here(settings.lists, shown if settings.lists else None)
        yield from _safely("RomM", lambda: romm.check(url, here))


def _library(
    root: str, settings: Settings, mounted: Sequence[Mount]
) -> Generator[Finding, None, Headcount]:
    seen, failed = _tried(
        "file systems",
        lambda: library.check_file_systems(root, mounted, settings.settle, settings.prove),
    )
    found_on, dead = seen or (failed, [])
    yield from found_on
    if root in dead:
        return Headcount()
    counted, failed = _tried("library", lambda: count(root, dead))
    if counted is None:
        yield from failed
        return Headcount()
    found = counted
    yield from _safely("library", lambda: library.check_content(root, found))
    yield from _safely(
        "clock",
        lambda: library.check_dates(
            found, root, settings.settle, time.time(), fixed=settings.timestamps == "fixed"
        ),
    )
    if not found.stuck:
        yield from _safely(
            "file states", lambda: library.check_states(root, found, settings.settle)
        )
        yield from _safely("access times", lambda: library.check_access_times(root, mounted, found))
    if settings.watch != "poll":
        polled = bool(needs_polling(os.fsencode(root)))
        instances = 1 if settings.lists is None else 2
        limit, use = changes.limits(), changes.in_use(os.geteuid())
        yield from _safely(
            "inotify",
            lambda: changes.check(limit, use, found, instances=instances, polled=polled),
        )
    return found


def _lists(folder: str, settings: Settings, mounted: Sequence[Mount]) -> Iterator[Finding]:
    """Check the folder of lists."""
    place, failed = _tried("lists", lambda: library.locate(folder, mounted, "lists"))
    yield from failed
    if place is None:
        return
    if place.finding is not None:
        yield place.finding
        return
    root = place.root or folder
    seen, failed = _tried(
        "file systems",
        lambda: library.check_file_systems(root, mounted, settings.settle, settings.prove),
    )
    yield from seen[0] if seen else failed


def _index(
    settings: Settings, root: str | None, found: Headcount | None, mounted: Sequence[Mount]
) -> Iterator[Finding]:
    """Check the index. Its name depends on the library's real path, which may not answer."""
    try:
        file = ask(index_file, settings)
    except UnansweredError:
        what = "its name isn't known as long as the library doesn't answer"
        yield Finding("index", "warning", what, "name it with --index FILE")
        return
    yield from index.check(file, root, found, mounted)


def _access(
    users: Sequence[access.WebUser],
    root: str | None,
    found: Headcount | None,
    point: mount.Point | None,
) -> Iterator[Finding]:
    seen = None
    if point and point.mount:
        seen = access.MountSeen(point.path, "allow_other" in point.mount.options)
    return access.check(users, root, found, point.path if point else None, seen)


def _safely(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of *check*; if it fails, one that says so."""
    findings, failed = _tried(name, lambda: list(check()))
    return failed if findings is None else findings


def _tried(name: str, call: Callable[[], T]) -> tuple[T | None, list[Finding]]:
    """The result of *call*; if it fails, None and a finding that says so."""
    try:
        return call(), []
    except ConfigError:
        raise
    except (OSError, UnansweredError) as error:
        # An error of the system, not of zipfs: no traceback.
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return None, [Finding(name, "warning", f"can't be checked: {why}", _SEE_THE_KERNEL)]
    except Exception as error:
        # A defect in one check must not stop the others.
        log.exception("the check of %s failed", name)
        what = f"the check itself failed: {type(error).__name__}: {error}".splitlines()[0]
        return None, [Finding(name, "warning", what, "please report it, with what is on stderr")]
