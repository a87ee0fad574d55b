"""One run of `make endure` against one mount: blocks of work, and a quiet moment after each."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.endure.chores import Chores
from bench.endure.clients import Clients
from bench.endure.day import Day, Job, Kind
from bench.endure.library import Library
from bench.endure.probe import Probe
from bench.endure.programs import Programs
from bench.mount import Mount
from bench.session import Progress, Stop
from bench.web import Server

DAY: Final = 3600.0
"""Seconds of a run with a whole day's work; a shorter one has its share."""
EVERY: Final = 5.0
"""Seconds from one sample to the next."""
BLOCK: Final = 360.0
"""Seconds from one quiet moment to the next..."""
FEWEST_BLOCKS: Final = 2
QUIET: Final = 45.0
"""...and of one. Half a minute after the last file the process that hashes ends."""
JUDGED: Final = 3
"""Samples, a second from one to the next, at the end of a quiet moment that count."""
EARLY: Final = 10.0
"""Seconds by which all is to be begun before the end."""
FINISH: Final = 90.0
"""Seconds for what is under way when a quiet moment begins, or the end."""


class Endurance:
    """A run of so many *seconds*; *folder* is for what is downloaded."""

    def __init__(
        self,
        mount: Mount,
        server: Server,
        library: Library,
        *,
        index: Path,
        folder: Path,
        kinds: Sequence[Kind],
        seconds: float,
        seed: int,
    ) -> None:
        self._mount = mount
        self._server = server
        self._library = library
        self._blocks = max(FEWEST_BLOCKS, round(seconds / BLOCK))
        self._working = seconds / self._blocks - QUIET
        if self._working < EVERY * 3:
            raise BenchError("that is too short: 2 minutes are the least")
        jobs: dict[str, Job] = {}
        active = self._working * self._blocks - EARLY
        self.day = Day(kinds, jobs, active=active, share=seconds / DAY, seed=seed)
        programs = Programs(mount.mountpoint, self.day.quiet, self.day.ended)
        self.clients = Clients(server, library, programs, folder)
        self.chores = Chores(mount, library, programs, self.clients, folder)
        for kind in kinds:
            jobs[kind.key] = getattr(self.clients, kind.key, None) or self.chores.job(kind.key)
        self.start = time.monotonic()
        self.probe = Probe(pid=mount.process.pid, index=index, start=self.start)

    def run(self, progress: Progress, stop: Stop) -> None:
        """All of it; raises :exc:`BenchError` if the mount ends, or something doesn't."""
        try:
            self.day.start()
            for block in range(self._blocks):
                progress.begin(f"Block {block + 1} of {self._blocks}")
                self.day.open()
                self._sample("load", self._working, EVERY, stop)
                if block == self._blocks - 1:
                    self._sample_while(lambda: self.day.unfinished, "load", stop)
                self.day.close()
                self._be_quiet(progress, stop)
        finally:
            self.day.end(FINISH)

    def check_all(self) -> None:
        """Download each archive once more; raises if one isn't there, or isn't right."""
        self.chores.wait_sealed()
        for path in self._library.stable() + self._library.changing():
            if not self.clients.fetch(path):
                raise BenchError(f"{path} isn't there in the end")
        self._library.verify()

    def _be_quiet(self, progress: Progress, stop: Stop) -> None:
        self._sample_while(lambda: self.day.busy, "quiet", stop)
        if busy := self.day.busy:
            raise BenchError(f"not finished after {FINISH:.0f} s: {', '.join(busy)}")
        progress.show("Quiet")
        self._server.process.send_signal(signal.SIGHUP)
        self._sample("quiet", QUIET - JUDGED, EVERY, stop)
        self._sample("judged", JUDGED - 0.5, 1.0, stop)

    def _sample_while(self, going_on: Callable[[], object], phase: str, stop: Stop) -> None:
        until = time.monotonic() + FINISH
        while going_on() and time.monotonic() < until:
            self._sample(phase, 1.0, 1.0, stop)

    def _sample(self, phase: str, seconds: float, every: float, stop: Stop) -> None:
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            self._mount.check()
            self.probe.take(phase, sum(self.day.done.values()), self.clients.received)
            following = min(until, now + every)
            while (left := following - time.monotonic()) > 0:
                stop.check()
                # Not a sleep: what it says is read as it comes, or the socket's buffer fills.
                self._mount.wait(min(left, 0.5))
