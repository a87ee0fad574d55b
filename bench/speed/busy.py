"""How long small ranges take while many downloads run, with and without hashing at full speed."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.mount import Mount
from bench.speed.case import Case, Sample
from bench.speed.cases import Bench
from bench.speed.load import downloads, ranges
from bench.speed.results import ZIPFS
from bench.speed.target import State, Target
from bench.usage import Usage

QUIET: Final = "without"
GAME: Final = "roms/bench/Fresh"
DOWNLOADS: Final = 50
SECONDS: Final = 3
LENGTH: Final = 64 << 10
# Holes, which are hashed as they are read: out of the page cache, as fast as it goes. More than
# can be hashed while we measure.
FRESH_FILES: Final = 4
FRESH_SIZE: Final = 64 << 30
# So much was hashed, then it is under way. How much is hashed beside the downloads depends on what
# they leave: it has the lowest priority.
STARTED: Final = 64 << 20
START_SECONDS: Final = 60.0


@dataclass(kw_only=True)
class Busy:
    """*asked* is what ranges are asked of, *downloaded* what runs beside."""

    bench: Bench
    mount: Mount
    library: Path
    asked: Target
    downloaded: Target
    hashed: list[float] = field(default_factory=list)
    """Bytes a second, round by round."""

    def case(self) -> Case:
        return Case(
            key="busy",
            what=f"p99 of 64 KiB ranges, {DOWNLOADS} downloads and hashing",
            unit="ms",
            higher_is_better=False,
            contenders={QUIET: None, ZIPFS: None},
            measure=self._measure,
            note=self._note,
        )

    def _measure(self, who: str) -> Sample:
        stop = self.bench.stop
        self.downloaded.prepare(State.CACHED, stop)
        self.asked.prepare(State.FIRST_TOUCH, stop)
        with contextlib.ExitStack() as stack:
            if who == ZIPFS:
                stack.enter_context(self._hashing())
            running = stack.enter_context(
                downloads(self.bench.clients, self.downloaded.url, DOWNLOADS)
            )
            time.sleep(0.5)
            before, start = Usage.of(self.mount.process.pid), time.monotonic()
            answers = ranges(
                *(self.bench.clients, stop, self.asked.url, self.asked.size or 0),
                length=LENGTH,
                seconds=SECONDS,
            )
            read = (Usage.of(self.mount.process.pid) - before).read
            # Not more than once: what was read of the archive is cached.
            read -= min(answers.count * LENGTH, self.asked.size or 0)
            if running.poll() is not None:
                raise BenchError("the downloads have ended too early")
            if who == ZIPFS:
                self.hashed.append(max(0, read) / (time.monotonic() - start))
                if (self.mount.mountpoint / GAME).with_suffix(".zip").exists():
                    raise BenchError("the hashing has ended too early")
        return Sample(value=1000 * answers.p99, sent=answers.count * LENGTH)

    @contextlib.contextmanager
    def _hashing(self) -> Iterator[None]:
        """A game has come into the library, and is being hashed."""
        game = self.library / GAME
        before = Usage.of(self.mount.process.pid).read
        game.mkdir()
        try:
            for number in range(FRESH_FILES):
                with (game / f"{number}.bin").open("wb") as file:
                    file.truncate(FRESH_SIZE)
            deadline = time.monotonic() + START_SECONDS
            while Usage.of(self.mount.process.pid).read < before + STARTED:
                self.bench.stop.check()
                self.mount.check()
                if time.monotonic() > deadline:
                    raise BenchError("zipfs doesn't hash what is new")
                self.mount.wait(0.05)
            yield
        finally:
            for path in game.iterdir():
                path.write_bytes(b"")  # whoever reads it is at its end
            shutil.rmtree(game)

    def _note(self) -> str:
        if not self.hashed:
            return ""
        return f"{statistics.median(self.hashed) / 1e9:.2f} GB/s were hashed meanwhile"
