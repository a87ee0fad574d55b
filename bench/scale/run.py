"""One run of `make bench-scale`: its folder, its mounts, and its figures so far."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.status import Status

from bench.live import Live
from bench.mount import mounted, zipfs_program
from bench.scale.growth import Series
from bench.session import Stop

CLIENTS: Final = 500
FILES: Final = 10
OLD_SECONDS: Final = 10.5
"""After that what is known of a game is old, however long it took to look at it."""


@dataclass(kw_only=True, slots=True)
class Row:
    """A line of the table; *bar* is what it is to be, *met* whether it is."""

    what: str
    value: str
    figure: float
    bar: str = ""
    met: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    games: int
    members: int
    platform: int
    clients: tuple[int, ...]
    file_mib: tuple[int, ...]

    def series(self, largest: int, smallest: int) -> list[int]:
        """Powers of ten up to *largest*."""
        found = []
        while largest >= smallest:
            found.append(largest)
            largest //= 10
        return found[::-1]


FULL: Final = Sizes(
    games=100_000,
    members=100_000,
    platform=20_000,
    clients=(1, 5, 50, CLIENTS),
    file_mib=(1, 16, 256, 4096),
)
QUICK: Final = Sizes(
    games=10_000,
    members=10_000,
    platform=2_000,
    clients=(1, 5, 50, CLIENTS),
    file_mib=(1, 16, 256),
)


@dataclass(kw_only=True)
class Scale:
    """One run: where, with what, and what was found so far."""

    folder: Path
    sizes: Sizes
    stop: Stop
    status: Status
    rows: list[Row] = field(default_factory=list)
    growth: list[Series] = field(default_factory=list)

    @property
    def mountpoint(self) -> Path:
        return self.folder / "www/mount"

    def add(self, what: str, figure: float, unit: str, bar: float | None = None) -> None:
        digits = 0 if figure >= 1000 else 1 if figure >= 10 else 3
        limit = "" if bar is None else f"≤ {bar:g} {unit}".rstrip()
        met = None if bar is None else figure <= bar
        value = f"{figure:,.{digits}f} {unit}".rstrip()
        self.rows.append(Row(what=what, value=value, figure=figure, bar=limit, met=met))

    def measure(self, what: str, cost: str, unit: str) -> Series:
        series = Series(what=what, cost=cost, unit=unit)
        self.growth.append(series)
        return series

    # -- What is done over and over --------------------------------------------

    def index_of(self, library: Path) -> Path:
        return self.folder / f"{library.name}-index/index.sqlite3"

    def hash(self, library: Path) -> tuple[float, int]:
        """Seconds that `zipfs index` takes, and the bytes of the index."""
        self.status.update(f"Hashing {library.name} …")
        index = self.index_of(library)
        started = time.monotonic()
        self.stop.run(zipfs_program(), "index", "--index", str(index), str(library))
        took = time.monotonic() - started
        return took, sum(path.stat().st_size for path in index.parent.iterdir())

    @contextlib.contextmanager
    def mount(self, library: Path) -> Iterator[Live]:
        self.status.update(f"Mounting {library.name} …")
        log = self.folder / f"{library.name}.log"
        with (
            log.open("wb") as stderr,
            mounted(
                library,
                self.mountpoint,
                workdir=self.folder,
                options=["--index", str(self.index_of(library))],
                stderr=stderr,
            ) as mount,
        ):
            yield Live(mount, log, self.stop)
