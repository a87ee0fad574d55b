"""zipfs beside the limit, the same server sending the same archive as a plain file.

Absolute figures drift with whatever else a machine does, so each of zipfs' has one of the plain
file's beside it, taken just before, and what counts is the ratio of the two.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.load import Clients, download, ranges
from bench.session import Stop
from bench.synthetic import SMALL_MEMBERS, Archive, drop_cache, read_through, warm_memory

CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
# So much may be read where nothing should be: the reader of the counters isn't alone.
SLACK: Final = 0.05
RATE: Final = "MB/s"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One thing to measure: a whole download, or ranges of *length* bytes."""

    key: str
    what: str
    archive: Archive
    length: int = 0
    first_touch: bool
    """Whether the mount's cache is empty. The sources are in the page cache either way."""

    @property
    def unit(self) -> str:
        return "/s" if self.length else RATE


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a process has used so far (proc_pid_stat(5), proc_pid_io(5))."""

    cpu_seconds: float
    read: int
    """Bytes by system calls; the kernel's requests to a file system are a part of them."""
    from_disk: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        # Behind the name, which may hold anything: state is field 3, utime 14, stime 15.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        io = {key: int(value) for key, _, value in (line.partition(": ") for line in lines)}
        return cls(
            cpu_seconds=(int(fields[11]) + int(fields[12])) / CLOCK_TICKS,
            read=io["rchar"],
            from_disk=io["read_bytes"],
        )

    def since(self, before: Usage) -> Usage:
        return Usage(
            cpu_seconds=self.cpu_seconds - before.cpu_seconds,
            read=self.read - before.read,
            from_disk=self.from_disk - before.from_disk,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Several measurements of the same thing."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        return min(self.samples)

    @property
    def high(self) -> float:
        return max(self.samples)


@dataclass(kw_only=True, slots=True)
class Result:
    """What came out for a case, one value a round. Rates are in the case's unit."""

    case: Case
    plain: list[float] = field(default_factory=list)
    zipfs: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """The daemon's CPU seconds for each GB that was sent."""

    @property
    def ratio(self) -> Spread:
        pairs = zip(self.zipfs, self.plain, strict=True)
        return Spread(samples=tuple(zipfs / plain for zipfs, plain in pairs))


def cases(big: Archive, small: Archive) -> list[Case]:
    """All of them, in the order that spares most reading: the first download fills the cache."""
    found = [
        Case(key="first", what="first download", archive=big, first_touch=True),
        Case(key="cached", what="download, cached", archive=big, first_touch=False),
    ]
    for first_touch in (False, True):
        for kib in (4, 64):
            touch = "first touch" if first_touch else "cached"
            found.append(
                Case(
                    key=f"ranges-{kib}k-{'first' if first_touch else 'cached'}",
                    what=f"{kib} KiB ranges, {touch}",
                    archive=big,
                    length=kib << 10,
                    first_touch=first_touch,
                )
            )
    return [
        *found,
        Case(
            key="small-first",
            what=f"{SMALL_MEMBERS} files, first download",
            archive=small,
            first_touch=True,
        ),
        Case(
            key="small-ranges-4k-first",
            what=f"{SMALL_MEMBERS} files, 4 KiB, first touch",
            archive=small,
            length=4 << 10,
            first_touch=True,
        ),
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What is measured with. *url* gives the URL of a file of the server's."""

    clients: Clients
    stop: Stop
    url: Callable[[Path], str]
    daemon: int
    """zipfs' process id."""

    def rounds(
        self, todo: Sequence[Case], rounds: int, results: Sequence[Result]
    ) -> Iterator[tuple[int, Case]]:
        """Measure all cases again and again, and fill *results*; yields before each.

        Round 0 warms up, the machine's memory as well, and doesn't count.
        """
        for number in range(rounds + 1):
            for case, result in zip(todo, results, strict=True):
                yield number, case
                plain, zipfs, cpu = self._pair(case)
                if number:
                    result.plain.append(plain)
                    result.zipfs.append(zipfs)
                    result.cpu.append(cpu)

    def _pair(self, case: Case) -> tuple[float, float, float]:
        """The plain file's rate, zipfs' rate, and the daemon's CPU seconds per GB."""
        # Read again each time: memory that nobody uses for a while may be taken away, by a balloon
        # driver or a kernel that gives back what is idle.
        read_through(case.archive.plain, self.stop)
        plain, _ = self._rate(case, case.archive.plain)
        if case.first_touch:
            read_through(case.archive.sources, self.stop)
            drop_cache(case.archive.mounted)
            warm_memory(case.archive.size)
        else:
            read_through(case.archive.mounted, self.stop)
        before = Usage.of(self.daemon)
        zipfs, sent = self._rate(case, case.archive.mounted)
        used = Usage.of(self.daemon).since(before)
        self._check(case, used, sent)
        return plain, zipfs, used.cpu_seconds / sent * 1e9

    def _rate(self, case: Case, path: Path) -> tuple[float, float]:
        """The rate in the case's unit, and about how many bytes were sent."""
        arguments = self.clients, self.stop, self.url(path), case.archive.size
        if case.length:
            answers = ranges(*arguments, case.length)
            return answers.rate, answers.count * case.length
        return download(*arguments) / 1e6, case.archive.size

    def _check(self, case: Case, used: Usage, sent: float) -> None:
        """Raise :exc:`BenchError` if something else was measured than what *case* says."""
        if used.from_disk > SLACK * sent:
            raise BenchError(f"{case.what}: the sources left the memory; give a smaller --size")
        if not case.first_touch and used.read > SLACK * sent:
            raise BenchError(f"{case.what}: it left the memory; give a smaller --size")
        if case.first_touch and used.read < (1 - SLACK) * sent:
            raise BenchError(f"{case.what}: part of it was cached; give a larger --size")
