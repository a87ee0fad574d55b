"""Counts a library in limited time: folders, files, bytes, and a sample of paths.

Only folders are opened, and links aren't followed. zipfs sets a watch on each folder, and its
index has a record of each file. A subprocess walks the library (:mod:`zipfs.system.subprocesses`);
it writes its position to shared memory, so that a folder which doesn't answer can be named.
"""

from __future__ import annotations

import mmap
import os
import stat
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from zipfs.errors import UnansweredError
from zipfs.library.filestate import BLOCK
from zipfs.system.paths import listing, may_read
from zipfs.system.permissions import grants_us
from zipfs.system.subprocesses import PATIENCE, ask_each

SECONDS: Final = 10.0
"""Time limit of the walk."""
SAMPLE: Final = 256
"""Most files of the sample; it has at least half as many, if the library does."""
_REPORT: Final = 0.25
"""Seconds between two interim counts."""
_FEW: Final = 3
"""Most paths in each list of names."""
_ROOM: Final = 8192
"""Bytes of shared memory for the position."""
_MOST_CALLS: Final = 1000
"""Files and folders counted as closed, after which permission bits decide, not access(2)."""


@dataclass(slots=True)
class Headcount:
    """The counts so far; paths are relative to the library."""

    folders: int = 0
    """The library included."""
    files: int = 0
    size: int = 0
    blocks: int = 0
    """Blocks of :data:`zipfs.library.filestate.BLOCK` bytes, of files of more than one."""
    closed: int = 0
    """Folders that this user can't list, and files that it can't read."""
    closed_names: list[str] = field(default_factory=list)
    future: int = 0
    """Files and folders dated later than now."""
    future_names: list[str] = field(default_factory=list)
    newest: float = 0.0
    """The latest mtime of all files, Unix time."""
    fractions: int = 0
    """Files whose ctime isn't a whole second."""
    sample: list[str] = field(default_factory=list)
    """Paths of files, evenly spread over all of them."""
    stride: int = 1
    complete: bool = False
    stuck: str = ""
    """The folder that doesn't answer, ``.`` for the library itself; empty if all answer."""

    def index_size(self) -> int:
        """Bytes of the index: 150 for each file (measured), 8 for each block."""
        return 150 * self.files + 8 * self.blocks

    def _add(self, path: str, status: os.stat_result) -> None:
        if self.files % self.stride == 0:
            self.sample.append(path)
            if len(self.sample) > SAMPLE:
                self.sample = self.sample[::2]
                self.stride *= 2
        self.files += 1
        self.size += status.st_size
        if status.st_size > BLOCK:
            self.blocks += -(-status.st_size // BLOCK)
        self.newest = max(self.newest, status.st_mtime)
        self.fractions += status.st_ctime_ns % 1_000_000_000 != 0


def count(
    root: str, without: Collection[str] = (), *, seconds: float = SECONDS, stall: float = PATIENCE
) -> Headcount:
    """Count the library at *root*, for *seconds* at most, without the mounts *without*.

    *stall* is the time limit for a single access, in seconds. Raises no error: a folder that
    can't be listed is counted as closed.
    """
    found = Headcount()
    with mmap.mmap(-1, _ROOM) as place:
        try:
            for value in ask_each(_walk, root, frozenset(without), seconds, place, patience=stall):
                found = Headcount(**value)
        except UnansweredError:
            found.stuck = os.fsdecode(place[:].rstrip(b"\0")) or "."
    return found


def _walk(
    root: str, without: frozenset[str], seconds: float, place: mmap.mmap
) -> Iterator[dict[str, Any]]:
    found = Headcount()
    now = time.time()
    until = time.monotonic() + seconds
    report_at = 0.0  # the first folder is reported at once: it counts even if it hangs
    todo = [""]
    while todo:
        path = todo.pop()
        _write_position(place, path)
        found.folders += 1
        if time.monotonic() > report_at:
            yield asdict(found)
            report_at = min(until, time.monotonic() + _REPORT)
        try:
            with listing(os.path.join(root, path)) as entries:
                for entry in entries:
                    child = os.path.join(path, entry.name)
                    if entry.is_symlink():
                        continue
                    folder = entry.is_dir(follow_symlinks=False)
                    if folder and os.path.join(root, child) in without:
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if status.st_mtime > now:
                        found.future += 1
                        _add_name(found.future_names, child)
                    if folder:
                        todo.append(child)
                    elif stat.S_ISREG(status.st_mode):
                        found._add(child, status)
                        if not _may_read(os.path.join(root, child), status, found):
                            found.closed += 1
                            _add_name(found.closed_names, child)
                    if time.monotonic() > report_at:
                        yield asdict(found)
                        if time.monotonic() > until:
                            return
                        report_at = min(until, time.monotonic() + _REPORT)
        except FileNotFoundError:
            continue  # removed meanwhile
        except OSError:
            found.closed += 1
            _add_name(found.closed_names, path or ".")
    found.complete = True
    yield asdict(found)


def _may_read(path: str, status: os.stat_result, found: Headcount) -> bool:
    if grants_us(status):
        return True
    return found.closed < _MOST_CALLS and may_read(os.fsencode(path))


def _add_name(names: list[str], name: str) -> None:
    if len(names) < _FEW:
        names.append(name)


def _write_position(place: mmap.mmap, path: str) -> None:
    name = os.fsencode(path)[: _ROOM - 1]
    place[: len(name) + 1] = name + b"\0"
    place[len(name) + 1 :] = bytes(_ROOM - len(name) - 1)
