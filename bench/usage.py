"""What processes use: CPU time, memory, and what they read and write."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a process and all those that it started have used so far (proc_pid_io(5))."""

    cpu_seconds: float = 0
    read: int = 0
    """Bytes by system calls; the kernel's requests to a file system are a part of them."""
    from_disk: int = 0
    to_disk: int = 0

    @classmethod
    def of(cls, leader: int | None) -> Usage:
        """Of the session that `bench.process.start` made for *leader*; nothing for None."""
        total = cls()
        for pid, fields in _session(leader):
            try:
                lines = Path(f"/proc/{pid}/io").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
            io = {key: int(value) for key, _, value in (line.partition(": ") for line in lines)}
            total += cls(
                # utime is field 14 of proc_pid_stat(5), stime 15; those of children that have
                # ended, 16 and 17. The first here is field 3.
                cpu_seconds=sum(map(int, fields[11:15])) / CLOCK_TICKS,
                read=io["rchar"],
                from_disk=io["read_bytes"],
                to_disk=io["write_bytes"],
            )
        return total

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            read=self.read + other.read,
            from_disk=self.from_disk + other.from_disk,
            to_disk=self.to_disk + other.to_disk,
        )

    def __sub__(self, before: Usage) -> Usage:
        return Usage(
            cpu_seconds=self.cpu_seconds - before.cpu_seconds,
            read=self.read - before.read,
            from_disk=self.from_disk - before.from_disk,
            to_disk=self.to_disk - before.to_disk,
        )


def peak_memory(leader: int | None) -> int:
    """The most memory, in bytes, that each process of a session had at any time, added up."""
    total = 0
    for pid, _ in _session(leader):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    return total


def stat_fields(pid: int | str) -> list[str] | None:
    """The fields of proc_pid_stat(5) from 3 on; None if there is no such process any more."""
    try:
        # The name before them may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def children(pid: int) -> Iterator[int]:
    """Those that *pid* has started and that are still there (proc_tid_children(5))."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield from map(int, task.read_text().split())


def _session(leader: int | None) -> Iterator[tuple[int, list[str]]]:
    """*leader*, what it has started and so on, and what /proc/PID/stat says of each, from field 3.

    Not by looking at all processes: one of somebody else's that hangs while it begins another
    program holds up whoever looks at it.
    """
    pids = [] if leader is None else [leader]
    while pids:
        pid = pids.pop()
        if fields := stat_fields(pid):
            yield pid, fields
            pids += children(pid)
