"""A far source, zipfs on it, and nginx in front of both."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.far.kinds import Kind
from bench.live import Live
from bench.mount import mounted
from bench.peers.slowfs import NAME_SECONDS, Slow, slowfs
from bench.session import Progress, Stop
from bench.synthetic import drop_cache
from bench.web import Server, nginx
from zipfs.library.proven import LIFETIME

# What zipfs re-reads of its own accord comes when it likes, and would count.
OPTIONS: Final = ("--recheck-rate", "0")
# A game that was looked at is taken as it was for ten seconds, and a listing as well.
PAUSE: Final = 11.0
# For so long zipfs keeps what it has proven by its checksums (zipfs.library.proven).
KEPT: Final = LIFETIME + 1
# A walk under this wait takes so long that the next is far: walks take a twentieth of the time, and
# there is one in 300 s at least (zipfs.catalog.background.scanner).
WALK_WAIT: Final = 1000
WALK_SHARE: Final = 20
WALK_PAUSE: Final = 300.0
# The longest that one measurement takes, as a rule.
ENOUGH: Final = 100.0


@dataclass(kw_only=True)
class Folders:
    """Where all is. The source is `source`, seen from far through `slow`."""

    folder: Path
    program: Path
    """slowfs."""

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def slow(self) -> Path:
        return self.folder / "www/slow"

    @property
    def mountpoint(self) -> Path:
        return self.folder / "www/mount"

    @property
    def second(self) -> Path:
        return self.folder / "second"

    def stored(self, kind: Kind) -> Path:
        """The archive of its game, relative to the source."""
        return Path("stored", f"{kind.key}.zip")


def make(folders: Folders, kinds: Sequence[Kind], progress: Progress, stop: Stop) -> None:
    """All files of *kinds*, and the archives of their games, stored as files."""
    for path in (folders.slow, folders.mountpoint, folders.second, folders.source / "stored"):
        path.mkdir(parents=True)
    for kind in kinds:
        progress.begin(f"Making {kind.what}")
        library = folders.source / kind.key
        kind.make(library, stop)
        if kind.games == 1:
            with _zipfs(folders, library, folders.mountpoint, "near", stop) as live:
                live.wait_sealed()
                archive = folders.mountpoint / f"{kind.game()}.zip"
                shutil.copyfile(archive, folders.source / folders.stored(kind))


@dataclass(kw_only=True)
class Stand:
    """*kind* on a source of *wait* microseconds."""

    folders: Folders
    kind: Kind
    wait: int
    names: bool
    slow: Slow
    live: Live
    pid: int
    front: Server
    stop: Stop
    _read: float = field(default=-KEPT)
    """When the archive was last read through zipfs; time.monotonic."""
    _quiet_until: float = 0.0

    @property
    def library(self) -> Path:
        """As zipfs sees it."""
        return self.folders.slow / self.kind.key

    @property
    def stored(self) -> Path:
        return self.folders.slow / self.folders.stored(self.kind)

    @property
    def archive(self) -> Path:
        return self.folders.mountpoint / f"{self.kind.game()}.zip"

    @property
    def files(self) -> list[Path]:
        """All files of the library, as seen from far."""
        source = self.folders.source
        found = (source / self.kind.key).rglob("*.bin")
        return sorted(self.folders.slow / path.relative_to(source) for path in found)

    def url(self, path: Path) -> str:
        return self.front.url_of(path.relative_to(self.folders.slow.parent))

    @contextlib.contextmanager
    def near(self) -> Iterator[None]:
        """For what is only prepared: nothing waits."""
        self.slow.wait(0)
        try:
            yield
        finally:
            self.slow.wait(self.wait)

    def quiet(self) -> None:
        """See that zipfs doesn't look through the library while something is measured."""
        if self._quiet_until > time.monotonic() + ENOUGH:
            return
        self.slow.wait(WALK_WAIT)
        try:
            self.walk()
        finally:
            self.slow.wait(self.wait)

    def walk(self) -> float:
        """Seconds of a walk through the library."""
        took = self.live.rescan()
        self._quiet_until = time.monotonic() + min(WALK_SHARE * took, WALK_PAUSE)
        return took

    def reads(self) -> None:
        """What zipfs has of the archive is to be remembered: somebody reads it."""
        self._read = time.monotonic()

    def forget(self, *, data: bool = True, proven: bool = False, pause: float = 0.0) -> None:
        """Have the kernel's caches of the source, and of the mount, run empty.

        *proven*: and what zipfs itself has in memory.
        """
        if proven:
            pause = max(pause, self._read + KEPT - time.monotonic())
        if data:
            with self.near():
                for path in (self.library, self.stored, self.archive):
                    if path.exists():
                        drop_cache(path)
        if self.names:
            pause = max(pause, NAME_SECONDS + 0.3)
        deadline = time.monotonic() + pause
        while (left := deadline - time.monotonic()) > 0:
            self.stop.check()
            time.sleep(min(0.2, left))

    @contextlib.contextmanager
    def another(self) -> Iterator[Live]:
        """A second mount, which knows nothing."""
        with _zipfs(self.folders, self.library, self.folders.second, "second", self.stop) as live:
            yield live

    def check(self) -> None:
        """Raise :exc:`BenchError` if what zipfs serves isn't what is stored."""
        if self.kind.games > 1:
            return
        with self.near():
            one, other = (_sha256(path) for path in (self.archive, self.stored))
        if one != other:
            raise BenchError(f"{self.archive.name} is not what it was: a defect of zipfs")


@contextlib.contextmanager
def stand(folders: Folders, kind: Kind, wait: int, names: bool, stop: Stop) -> Iterator[Stand]:
    """The whole, with everything sealed; *wait* is in microseconds."""
    control = folders.folder / "control"
    seconds = NAME_SECONDS if names else 0
    with contextlib.ExitStack() as stack:
        slow = stack.enter_context(
            slowfs(folders.program, folders.source, folders.slow, control, name_seconds=seconds)
        )
        library = folders.slow / kind.key
        live = stack.enter_context(_zipfs(folders, library, folders.mountpoint, "far", stop))
        live.wait_sealed()
        front = stack.enter_context(nginx(folders.slow.parent, workdir=folders.folder))
        slow.wait(wait)
        yield Stand(
            folders=folders,
            kind=kind,
            wait=wait,
            names=names,
            slow=slow,
            live=live,
            pid=live.pid,
            front=front,
            stop=stop,
        )


@contextlib.contextmanager
def _zipfs(
    folders: Folders, library: Path, mountpoint: Path, name: str, stop: Stop
) -> Iterator[Live]:
    """A mount with an index of its own, which is gone afterwards."""
    index, log = folders.folder / f"{name}-index", folders.folder / f"{name}.log"
    index.mkdir()
    options = ["--index", str(index / "index.sqlite"), *OPTIONS]
    try:
        with (
            log.open("wb") as stderr,
            mounted(
                library, mountpoint, workdir=folders.folder, options=options, stderr=stderr
            ) as mount,
        ):
            live = Live(mount, log, stop)
            live.ready()
            yield live
    finally:
        shutil.rmtree(index)


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
