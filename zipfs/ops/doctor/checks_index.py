"""Checks of the index, or of the place where it would be created. They create nothing."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any, Final

from zipfs.errors import UnansweredError
from zipfs.ops.doctor.findings import Finding
from zipfs.ops.doctor.headcount import Headcount
from zipfs.system.filesystems import file_system
from zipfs.system.mounts import Mount, mounts_below
from zipfs.system.paths import is_within
from zipfs.system.subprocesses import ask
from zipfs.text import quoted, size

_NAME: Final = "index"
_problem = functools.partial(Finding, _NAME, "problem")
_FILES: Final = 3
"""SQLite's database, write-ahead log, and the log's index."""
_EMPTY: Final = 1 << 20
"""Bytes of an empty index with its log, rounded up."""
_ELSEWHERE: Final = "name another place with --index FILE"
_READ_ONLY: Final = "its file system is mounted read-only"


def check(
    file: str, root: str | None, found: Headcount | None, mounted: Iterable[Mount]
) -> Iterator[Finding]:
    """Check whether the index *file* of the library at *root* can be written, and has space."""
    shown = quoted(file)
    try:
        seen = ask(_look, file)
    except UnansweredError as error:
        yield _problem(f"where {shown} would be doesn't answer: {error}", _ELSEWHERE)
        return
    except OSError as error:
        yield _problem(f"can't check {shown}: {error.strerror}", _ELSEWHERE)
        return
    if root is not None and is_within(os.fsencode(seen["real"]), os.fsencode(root)):
        yield _problem(f"{shown} would lie in the library, where zipfs writes nothing", _ELSEWHERE)
        return
    if seen["refused"]:
        given = f"{_given(seen)}, or " if seen["closed"] else ""
        yield _problem(f"{shown} can't be written: {seen['refused']}", f"{given}{_ELSEWHERE}")
        return
    kind = next((m.kind for m in mounts_below(seen["folder"], mounted)), "")
    if not file_system(kind).events:
        yield Finding(
            _NAME,
            "warning",
            f"{shown} is on {kind}: SQLite's write-ahead log needs shared memory, which network and"
            " user-space file systems don't all have (https://www.sqlite.org/wal.html)",
            "keep it on a local disk: --index FILE",
        )
    elif kind in ("tmpfs", "ramfs"):
        yield Finding(
            _NAME,
            "warning",
            f"{shown} is in memory: after a reboot the whole library is hashed again",
            "keep it on a disk: --index FILE",
        )
    yield _space(shown, seen, found)


def _given(seen: dict[str, Any]) -> str:
    """The command that lets this user write there."""
    if seen["missing"]:  # the nearest existing folder may be / itself
        return f"as root: install -d -m 700 -o {os.geteuid()} {quoted(seen['missing'])}"
    return f"chown {os.geteuid()} {quoted(seen['closed'])}"


def _space(shown: str, seen: dict[str, Any], found: Headcount | None) -> Finding:
    free, has = seen["free"], seen["has"]
    if seen["inodes"] is not None and seen["inodes"] < _FILES and not has:
        return _problem(
            f"{shown} can't be made: its file system has {seen['inodes']} inodes left",
            f"remove files there (df -i), or {_ELSEWHERE}",
        )
    need = _EMPTY + (found.index_size() if found else 0)
    about = f"takes {'at least ' if found and not found.complete else 'about '}{size(need)}"
    what = f"{shown} {about}, and {size(free)} are free" + (
        f" beside its {size(has)}" if has else ""
    )
    if seen["missing"]:
        what += f"; the folder {quoted(seen['missing'])} will be made, for this user alone"
    # The write-ahead log may hold the whole content a second time.
    if free + has < need:
        return _problem(what, f"free some space (df -h), or {_ELSEWHERE}")
    if free + has < 2 * need:
        return Finding(_NAME, "warning", what, f"free some space (df -h), or {_ELSEWHERE}")
    return Finding(_NAME, "ok", what)


def _look(file: str) -> dict[str, Any]:
    """Facts about *file*, and the nearest existing folder above it; sizes in bytes."""
    real = os.path.realpath(file)
    folder = wanted = os.path.dirname(real)
    while not os.path.isdir(folder):
        # lexists: a file in place of a folder.
        if os.path.lexists(folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        folder = os.path.dirname(folder)
    has = 0
    refused, closed = "", folder
    if os.path.isdir(real):
        refused, closed = "it is a folder", real
    elif os.path.lexists(real):
        has = sum(os.path.getsize(real + end) for end in ("", "-wal") if os.path.exists(real + end))
        if not os.access(real, os.R_OK | os.W_OK):
            refused, closed = "this user may not write the file", real
            if os.statvfs(real).f_flag & os.ST_RDONLY:
                refused, closed = _READ_ONLY, ""
    if not refused and not os.access(folder, os.W_OK | os.X_OK):
        refused = f"this user may not write in the folder {folder}"
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            refused, closed = _READ_ONLY, ""
    status = os.statvfs(folder)
    return {
        "real": real,
        "folder": folder,
        "missing": "" if folder == wanted else wanted,
        "refused": refused,
        "closed": closed,
        "has": has,
        "free": status.f_bavail * status.f_frsize,
        # A total of 0: the file system has no fixed number of inodes, like btrfs.
        "inodes": status.f_favail if status.f_files else None,
    }
