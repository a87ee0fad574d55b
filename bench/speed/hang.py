"""Whether a source that hangs slows down the archives of those that don't.

The library is a folder with two games: one of ordinary files, one on a file system that can hang.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.mount import Mount, mounted
from bench.process import start
from bench.process import stop as end
from bench.speed.case import Case, Sample
from bench.speed.cases import RATE, Bench
from bench.speed.results import ZIPFS
from bench.speed.target import State, Target
from bench.synthetic import drop_cache
from bench.web import Server, nginx
from tests.support.faultfs import Faults, faultfs

KEY: Final = "hang"
WHAT: Final = "first download, while another source hangs"
QUIET: Final = "without"
GAMES: Final = "roms/bench"
HEALTHY: Final = f"{GAMES}/Healthy.zip"
# The name of the mount that can hang, and so of the game.
STUCK: Final = f"{GAMES}/faultfs.zip"
STUCK_SIZE: Final = 4 << 20
READERS: Final = 4
# Killed after so long: not even a killed process gets away from a hung request.
WATCHDOG_SECONDS: Final = 900.0
HANG_SECONDS: Final = 20.0


@dataclass(kw_only=True)
class Hang:
    bench: Bench
    mount: Mount
    healthy: Target
    stuck: str
    """Its URL."""
    faults: Faults

    def case(self) -> Case:
        return Case(
            key=KEY,
            what=WHAT,
            unit=RATE,
            contenders={QUIET: None, ZIPFS: None},
            measure=self._measure,
        )

    def _measure(self, who: str) -> Sample:
        with contextlib.ExitStack() as stack:
            if who == ZIPFS:
                stack.enter_context(self._hanging())
            return self.bench.download(self.healthy, State.FIRST_TOUCH)

    @contextlib.contextmanager
    def _hanging(self) -> Iterator[None]:
        # Else the readers find what was released the last time in the mount's cache.
        drop_cache(self.mount.mountpoint / STUCK)
        self.faults.hang("*", "read")
        curl = [self.bench.clients.curl, "-s", "-o", "/dev/null", self.stuck]
        readers = []
        try:
            readers += [start(curl) for _ in range(READERS)]
            deadline = time.monotonic() + HANG_SECONDS
            while not self.faults.waiting("*", "read"):
                self.bench.stop.check()
                if time.monotonic() > deadline:
                    raise BenchError("nothing hangs")
                self.mount.wait(0.05)
            yield
        finally:
            self.faults.release()
            for reader in readers:
                end(reader)


def prepare(sources: Path, folder: Path) -> None:
    """Make a library in *folder*, with the game in *sources* as the healthy one.

    Before *sources* are hashed: linking them changes their state.
    """
    stuck, healthy = folder / "stuck", folder / "library" / GAMES / "Healthy"
    for path in (healthy, stuck, folder / "mount"):
        path.mkdir(parents=True)
    for file in sources.iterdir():
        os.link(file, healthy / file.name)
    for name in ("a.bin", "b.bin"):
        (stuck / name).write_bytes(os.urandom(STUCK_SIZE))


@contextlib.contextmanager
def hang(
    bench: Bench, folder: Path, wait_until_sealed: Callable[[Mount, list[Path]], None]
) -> Iterator[Hang]:
    """The library that :func:`prepare` made, mounted and served until the block ends."""
    library, stuck, mountpoint = folder / "library", folder / "stuck", folder / "mount"
    games = library / GAMES
    options = ["--index", str(folder / "index.sqlite"), "--log-level", "error"]
    try:
        with (
            faultfs(stuck, games, WATCHDOG_SECONDS) as (_, faults),
            mounted(library, mountpoint, workdir=folder, options=options) as mount,
        ):
            wait_until_sealed(mount, [mountpoint / HEALTHY, mountpoint / STUCK])
            with nginx(mountpoint, workdir=folder) as server:
                yield Hang(
                    bench=bench,
                    mount=mount,
                    healthy=_target(mount, server, games / "Healthy"),
                    stuck=server.url_of(STUCK),
                    faults=faults,
                )
    except AssertionError as error:  # that is how what tests use complains
        raise BenchError(f"the file system that hangs: {error}") from error


def _target(mount: Mount, server: Server, sources: Path) -> Target:
    archive = mount.mountpoint / HEALTHY
    return Target(
        url=server.url_of(HEALTHY),
        size=archive.stat().st_size,
        sources=sources,
        mounted=archive,
        own=mount.process.pid,
        server=server.process.pid,
    )
