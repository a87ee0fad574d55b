"""The same archive as zipfs or a peer has it, and how to bring it into a known state."""

from __future__ import annotations

import enum
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.process import find_program
from bench.session import Stop
from bench.synthetic import drop_cache, read_through
from bench.usage import Usage

# So much may be read where nothing should be: the reader of the counters isn't alone.
SLACK: Final = 0.05


class State(enum.Enum):
    """What is in the page cache when it begins."""

    CACHED = enum.auto()
    """The archive."""
    FIRST_TOUCH = enum.auto()
    """Its sources, but nothing of a mount's."""
    ON_DISK = enum.auto()
    """Nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One archive behind one URL."""

    url: str
    size: int | None
    """None: nobody says beforehand."""
    sources: Path
    """The files that hold the data: a folder, or the stored archive."""
    mounted: Path | None = None
    """The same archive in a mount."""
    own: int | None = None
    """The process that makes it what it is: a daemon, a server of its own."""
    server: int | None = None
    """The web server in front of it."""
    checked: bool = True
    """Whether its own counters tell what was cached. (bindfs' don't: it splices.)"""

    def usage(self) -> tuple[Usage, Usage]:
        """Its own, and the server's."""
        return Usage.of(self.own), Usage.of(self.server)

    def prepare(self, state: State, stop: Stop) -> None:
        """Bring the caches into *state*.

        Read again each time: memory that nobody uses for a while may be taken away, by a balloon
        driver or a kernel that gives back what is idle.
        """
        if state is State.CACHED:
            read_through(self.mounted or self.sources, stop)
            return
        if state is State.FIRST_TOUCH:
            read_through(self.sources, stop)
        else:
            drop_cache(self.sources)
        if self.mounted is not None:
            drop_cache(self.mounted)
            if (cached := _cached(self.mounted, stop)) > SLACK * (self.size or 0):
                raise BenchError(f"{cached} bytes stay in the mount's cache")
        if self.mounted is not None or state is State.ON_DISK:
            _warm_memory(self.size or 0)

    def check(self, state: State, used: Usage, sent: float) -> None:
        """Raise :exc:`BenchError` if something else was measured than *state* says."""
        if state is State.ON_DISK:
            if used.from_disk < (1 - SLACK) * sent:
                raise BenchError("part of the sources were in the memory; give a larger --size")
            return
        if used.from_disk > SLACK * sent:
            raise BenchError("the sources left the memory; give a smaller --size")
        if state is State.CACHED and used.read > SLACK * sent:
            raise BenchError("the archive left the memory; give a smaller --size")
        if state is State.FIRST_TOUCH and used.read < (1 - SLACK) * sent:
            raise BenchError("part of the archive was cached; give a larger --size")


def _cached(path: Path, stop: Stop) -> int:
    """How many bytes of a file are in the page cache."""
    fincore = find_program("fincore", package="util-linux")
    return int(stop.run(fincore, "--bytes", "--noheadings", "--output", "RES", str(path)))


def _warm_memory(size: int) -> None:
    """Make sure that the next *size* bytes that the kernel takes are really there.

    A virtual machine may have given them back to its host, and to find them again costs more
    than to read a file (seen: the daemon's CPU time four times as high).
    """
    if size:
        # Unmapped at once: it is now what the kernel takes first.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        mmap.mmap(-1, size, flags=flags).close()
