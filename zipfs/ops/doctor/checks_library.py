"""Checks of the library: its folder, its file systems, its content, the states of its files.

Nothing in it is written; one byte of a few files is read. Each access has a time limit
(:mod:`zipfs.system.subprocesses`).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from zipfs.errors import UnansweredError
from zipfs.library.vouching import Prove, decide
from zipfs.ops.doctor.findings import Finding
from zipfs.ops.doctor.headcount import Headcount
from zipfs.ops.doctor.remedies import chmod_remedy
from zipfs.system.filesystems import file_system, settle_wanted
from zipfs.system.mounts import Mount, is_inside, mounts_below
from zipfs.system.paths import listing
from zipfs.system.subprocesses import ask
from zipfs.system.syscalls import READ_FILE, keep_atime
from zipfs.text import counted, printable, quoted, size

_FEW: Final = 8
"""Most files of the sample that are opened."""
_MANY_SECONDS: Final = 20
"""Number of files from which on it is no chance that all dates are whole seconds."""
_WEAK: Final = (
    "until then Apache gives its archive a weak ETag, and a download can't be resumed, unless it"
    " is mounted with --timestamps fixed"
)
_NAME: Final = "library"
_NOT_OURS: Final = "its FUSE mount lets in only the user who made it"
_LET_IN: Final = "mount that with -o allow_other, or run zipfs as that user"
_NAME_ANOTHER: Final = "name the folder that is meant, or mount what holds it"


@dataclass(frozen=True, slots=True)
class Located:
    """A folder: its absolute path if it can be listed, otherwise the finding about it."""

    root: str | None
    finding: Finding | None


def locate(library: str, mounted: Iterable[Mount], name: str = _NAME) -> Located:
    """Check that the folder *library* can be listed; *name* is the name of its finding."""
    shown = quoted(library)
    try:
        return Located(ask(_locate, library), None)
    except UnansweredError:
        what = f"{shown} doesn't answer"
        remedy = "see what it is mounted from, and that it runs: findmnt -T " + shown
    except FileNotFoundError:
        what, remedy = f"there is no folder {shown}", _NAME_ANOTHER
    except NotADirectoryError:
        what, remedy = f"{shown} isn't a folder", _NAME_ANOTHER
    except PermissionError:
        what = f"{shown} can't be listed by this user"
        remedy = f"namei -l {shown} shows which folder is closed; open it with chmod"
        on = next(iter(mounts_below(os.path.abspath(library), mounted)), None)
        if on and _lets_nobody_in(on):
            what, remedy = f"{what}: {_NOT_OURS}", _LET_IN
    except OSError as error:
        what, remedy = f"{shown} can't be listed: {error.strerror}", _remedy_of(error, shown)
    return Located(None, Finding(name, "problem", what, remedy))


def _locate(library: str) -> str:
    root = os.path.realpath(library, strict=True)
    with listing(root) as entries:
        next(entries, None)
    return root


def _remedy_of(error: OSError, shown: str) -> str:
    if error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.ESTALE):
        return f"what was mounted there has died: umount -l {shown}, and mount it again"
    return f"findmnt -T {shown} and dmesg tell more"


def check_file_systems(
    root: str, mounted: Iterable[Mount], settle: float, prove: Prove = "auto"
) -> tuple[list[Finding], list[str]]:
    """Check the file systems of the library at *root*; returns findings, and mounts to skip."""
    findings: list[Finding] = []
    dead: list[str] = []
    for mount in mounts_below(root, list(mounted)):
        # The first mount holds the library; others are in it.
        place = root if len(mount.path) <= len(root) else mount.path
        if any(place.startswith(f"{folder}/") for folder in dead):
            continue
        name = f"file system {mount.kind}"
        shown = quoted(place)
        try:
            ask(_listed, place)
        except FileNotFoundError:
            continue  # another one is mounted over it
        except UnansweredError as error:
            dead.append(place)
            findings.append(
                Finding(
                    name,
                    "problem",
                    f"{shown} doesn't answer: {error}",
                    f"see that what it is mounted from runs, or take it away: umount -l {shown}",
                )
            )
            continue
        except PermissionError:
            # Another closed folder is reported when the library is counted.
            if _lets_nobody_in(mount):
                dead.append(place)
                findings.append(Finding(name, "problem", f"{shown}: {_NOT_OURS}", _LET_IN))
                continue
        except OSError as error:
            dead.append(place)
            what = f"{shown} can't be listed: {error.strerror}"
            findings.append(Finding(name, "problem", what, _remedy_of(error, shown)))
            continue
        on = file_system(mount.kind, mount.options)
        level, remedy = on.level, on.remedy
        if level == "problem":
            dead.append(place)  # nothing in it is a game
            if place != root:
                level, remedy = "warning", f"name a library that {shown} isn't in"
        vouching = decide(on, prove)
        by = "content" if vouching.by_content else "state"
        what = f"{shown} {on.note}"
        if level != "problem":
            what += f"; vouched for by the {by} of files: {vouching.why}"
        if wanted := settle_wanted(on.granularity, settle):
            level = "warning"
            what += f"; the settle time of {settle:g} s is no longer than the steps of its dates"
            remedy = f"{remedy}; or mount with --settle {wanted:g}".removeprefix("; or ")
        findings.append(Finding(name, level, what, remedy))
    return findings, dead


def _lets_nobody_in(mount: Mount) -> bool:
    """Whether *mount* lets in only the user who mounted it, not even root: fuse(4)."""
    mine = f"user_id={os.geteuid()}" in mount.options
    return mount.kind.startswith("fuse") and not mine and "allow_other" not in mount.options


def _listed(folder: str) -> None:
    os.statvfs(folder)
    with listing(folder) as entries:
        next(entries, None)


def check_content(root: str, found: Headcount) -> Iterator[Finding]:
    """Report the counts of the library at *root*."""
    if found.stuck:
        place = os.path.join(root, found.stuck) if found.stuck != "." else root
        yield Finding(
            _NAME,
            "problem",
            f"{quoted(place)}, or something in it, doesn't answer",
            f"see what it is mounted from, and that it runs: findmnt -T {quoted(place)}",
        )
    at_least = not found.complete
    what = (
        f"{counted(found.folders, 'folder', at_least=at_least)},"
        f" {counted(found.files, 'file')}, {size(found.size)}"
    )
    if found.complete and not found.files:
        yield Finding(
            _NAME,
            "warning",
            f"{quoted(root)} holds no file",
            "name the folder that holds the games, or mount what it should hold",
        )
    else:
        yield Finding(_NAME, "ok", what)
    if found.closed:
        names = ", ".join(map(printable, found.closed_names))
        path = root if found.closed > 1 else os.path.join(root, found.closed_names[0])
        yield Finding(
            "permissions",
            "warning",
            f"{'at least ' if at_least else ''}{found.closed} of its files and folders can't be"
            f" read by this user, and will be skipped: {names}",
            f"{chmod_remedy(path, below=found.closed > 1)}, or mount as their owner",
        )


def check_dates(
    found: Headcount, root: str, settle: float, now: float, *, fixed: bool
) -> Iterator[Finding]:
    """Check the clock, *now* in Unix time, against the dates of files.

    *fixed*: archives don't have the dates of their files.
    """
    if now < 315_532_800:  # 1980-01-01
        yield Finding(
            "clock",
            "warning",
            "this machine's clock is before 1980",
            "timedatectl set-ntp true, or date -s",
        )
    elif found.future:
        names = ", ".join(map(printable, found.future_names))
        newest = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(max(now, found.newest)))
        yield Finding(
            "clock",
            "note",
            f"{found.future} of its files and folders are dated in the future ({names}; the newest"
            f" file {newest} UTC): after each start, a game with one waits {settle:g} s more"
            + ("" if fixed or found.newest <= now else f", and {_WEAK}"),
            f"see whether the clock is right (date); find {quoted(root)} -newermt now lists them,"
            " and -exec touch {} + brings them back",
        )
    else:
        yield Finding("clock", "ok", "no file is dated later than now")


def check_states(root: str, found: Headcount, settle: float) -> Iterator[Finding]:
    """Check whether the state of an unchanged file is the same at each access."""
    if not found.sample:
        return
    step = max(1, len(found.sample) // _FEW)
    try:
        seen = ask(_states, root, found.sample[::step][:_FEW])
    except UnansweredError as error:
        yield Finding(
            "file states",
            "problem",
            f"files can't be checked: {error}",
            f"findmnt -T {quoted(root)}",
        )
        return
    if seen["unsteady"]:
        yield Finding(
            "file states",
            "problem",
            f"{printable(seen['unsteady'][0])} has another inode or date at each access, so"
            " zipfs will count it as changed each time, and it will never be in an archive",
            "mount it with options that keep inode numbers and dates, or copy it elsewhere",
        )
    elif found.files >= _MANY_SECONDS and not found.fractions:
        wanted = settle_wanted(1.0, settle)
        yield Finding(
            "file states",
            "warning" if wanted else "note",
            "dates are kept in whole seconds: of two writes within the same one, with the same"
            " size, the second is seen only while the game hasn't settled",
            f"mount with --settle {wanted:g}" if wanted else "",
        )
    elif seen["steady"]:
        yield Finding(
            "file states",
            "ok",
            f"{counted(seen['steady'], 'file')} tried: inodes and dates are the same each time",
        )
    if seen["failed"]:
        path, why = seen["failed"][0]
        yield Finding(
            "reading",
            "warning",
            f"{printable(path)} can't be read: {why}",
            f"dmesg may tell more; findmnt -T {quoted(root)} tells what it is on",
        )
    if seen["slow"]:
        yield Finding(
            "reading",
            "note",
            f"{printable(seen['slow'][0])} is on a file system without RWF_NOWAIT: each read of it"
            " takes a thread, cached or not, which is slower",
        )


def _states(root: str, sample: Sequence[str]) -> dict[str, Any]:
    """Whether each file of *sample* keeps its state, and supports ``RWF_NOWAIT``."""
    steady = 0
    unsteady = []
    slow = []
    failed = []
    for path in sample:
        absolute = os.path.join(root, path)
        try:
            before = os.lstat(absolute)
            descriptor = os.open(absolute, READ_FILE)
        except OSError:
            continue  # no permission, or it is gone
        try:
            keep_atime(descriptor, READ_FILE)
            opened = os.fstat(descriptor)
            # One byte brings a page into the cache; the second read finds it there.
            if os.pread(descriptor, 1, 0) and not _knows_nowait(descriptor):
                slow.append(path)
            states = {_state(before), _state(opened), _state(os.lstat(absolute))}
        except OSError as error:
            failed.append([path, error.strerror])
            continue
        finally:
            os.close(descriptor)
        if len(states) == 1:
            steady += 1
        elif before.st_size == opened.st_size and time.time() - before.st_mtime > 60:
            unsteady.append(path)
    return {"steady": steady, "unsteady": unsteady, "slow": slow, "failed": failed}


def check_access_times(root: str, mounted: Sequence[Mount], found: Headcount) -> Iterator[Finding]:
    """Check whether reading the library at *root* moves the access times of its files."""
    below = {mount.path: mount for mount in mounts_below(root, mounted)}
    holding: dict[Mount, list[str]] = {}
    for path in found.sample:
        absolute = os.path.join(root, path)
        if at := max((at for at in below if is_inside(absolute, at)), key=len, default=None):
            holding.setdefault(below[at], []).append(absolute)
    for mount, sample in holding.items():
        # What programs and other machines provide has access times of its own, or none.
        local = file_system(mount.kind, mount.options).events
        if {"noatime", "ro"} & mount.options or not local:
            continue
        paths = sample[:: max(1, len(sample) // _FEW)][:_FEW]
        shown = quoted(mount.path)
        if not ask(_moves, paths):
            yield Finding("access times", "ok", f"reading {shown} leaves them as they are")
        elif "relatime" in mount.options:
            what = f"reading {shown} moves them once a day at most, as it is mounted with relatime"
            yield Finding("access times", "ok", what)
        else:
            yield Finding(
                "access times",
                "note",
                f"each reading of {shown} moves them, as this user isn't the files' owner",
                f"mount -o remount,relatime {shown}, or mount zipfs as the files' owner",
            )


def _moves(paths: Sequence[str]) -> bool:
    """Whether the access time of one of the files at *paths* can't be left as it is."""
    for path in paths:
        try:
            descriptor = os.open(path, READ_FILE)
        except OSError:
            continue  # no permission, or it is gone
        try:
            if not keep_atime(descriptor, READ_FILE):
                return True
        finally:
            os.close(descriptor)
    return False


def _state(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _knows_nowait(descriptor: int) -> bool:
    try:
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except OSError as error:
        return error.errno == errno.EAGAIN  # supported; the data aren't cached
    return True
