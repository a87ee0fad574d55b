"""Samples of a daemon and its hashing process from /proc, and of the size of its index."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.usage import CLOCK_TICKS, children, stat_fields

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """One process at one moment; memory in MiB (proc_pid_smaps(5))."""

    rss: float
    pss: float
    uss: float
    """Private to it."""
    threads: int
    descriptors: int
    cpu: float
    """CPU time so far, in seconds."""

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """None if there is no such process any more."""
        folder = Path(f"/proc/{pid}")
        try:
            memory = {
                line.split()[0].rstrip(":"): int(line.split()[1]) / 1024
                for line in (folder / "smaps_rollup").read_text().splitlines()[1:]
            }
            descriptors = len(os.listdir(folder / "fd"))
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat_fields(pid)
        if fields is None or "Rss" not in memory:  # a zombie has none
            return None
        return cls(
            rss=memory["Rss"],
            pss=memory["Pss"],
            uss=memory["Private_Clean"] + memory["Private_Dirty"],
            threads=int(fields[17]),
            descriptors=descriptors,
            cpu=sum(map(int, fields[11:13])) / CLOCK_TICKS,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """All values at one moment; *when* is in seconds since the start."""

    when: float
    phase: str
    """`load`, `quiet`, or `judged`: a quiet one that counts."""
    daemon: Process
    hasher: Process | None
    """None half a minute after the last file was hashed."""
    index: int
    """Bytes of the index."""
    wal: int
    done: int
    """Pieces of work done so far."""
    received: int
    """Bytes received by clients so far."""


@dataclass(kw_only=True, slots=True)
class Probe:
    """Takes samples of the daemon *pid*."""

    pid: int
    index: Path
    start: float
    samples: list[Sample] = field(default_factory=list)

    def take(self, phase: str, done: int, received: int) -> None:
        """Add a sample; none if the process has ended, which others check."""
        daemon = Process.of(self.pid)
        if daemon is None:
            return
        self.samples.append(
            Sample(
                when=time.monotonic() - self.start,
                phase=phase,
                daemon=daemon,
                hasher=self._hasher(),
                index=_size(self.index),
                wal=_size(Path(f"{self.index}-wal")),
                done=done,
                received=received,
            )
        )

    def _hasher(self) -> Process | None:
        child = next(children(self.pid), None)
        return Process.of(child) if child else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
