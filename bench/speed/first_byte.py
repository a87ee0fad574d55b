"""How soon the first byte of an archive of 8 GiB is there.

Its files are holes, so it takes no room; whoever sends the first byte doesn't notice.
"""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.peers.built import Build
from bench.speed.case import Case, Sample
from bench.speed.cases import SLOW_ROUNDS, TRIES, Bench, Game
from bench.speed.results import BUILT, NULLFS, STORED, ZIPFS
from bench.speed.target import Target

NAME: Final = "Eight GiB"
SIZE: Final = 8 << 30
# What isn't a hole in the archive is at its start and its end.
EDGE: Final = 1 << 20


def build(library: Path) -> str:
    """Make the game; returns the archive's path."""
    folder = library / "roms/bench" / NAME
    folder.mkdir(parents=True)
    with (folder / "a.bin").open("wb") as file:
        file.truncate(SIZE)
    (folder / "b.txt").write_text("What makes a game of one file an archive.\n")
    return f"roms/bench/{NAME}.zip"


def copy_sparse(mounted: Path, plain: Path) -> None:
    """Copy the archive out of the mount, but not the holes."""
    size = mounted.stat().st_size
    with mounted.open("rb") as source, plain.open("wb") as copy:
        copy.truncate(size)
        for offset in (0, size - EDGE):
            os.pwrite(copy.fileno(), os.pread(source.fileno(), EDGE, offset), offset)


@dataclass(kw_only=True)
class FirstByte:
    """*targets*: the archive of 8 GiB; *game*: what is built on disk, in two sizes."""

    bench: Bench
    targets: dict[str, Target]
    game: Game
    builds: list[Build] = field(default_factory=list)

    def cases(self) -> list[Case]:
        pair: dict[str, int | None] = {STORED: None, ZIPFS: None}
        return [
            Case(
                key="first-byte-first",
                what="8 GiB, first byte, first touch",
                unit="ms",
                higher_is_better=False,
                contenders={**pair, NULLFS: None, BUILT: SLOW_ROUNDS},
                measure=lambda who: self._built() if who == BUILT else self._measure(who, True),
                note=self._note,
            ),
            Case(
                key="first-byte-cached",
                what="8 GiB, first byte, cached",
                unit="ms",
                higher_is_better=False,
                contenders=pair,
                measure=lambda who: self._measure(who, False),
            ),
        ]

    def _measure(self, who: str, first_touch: bool) -> Sample:
        return Sample(value=self.bench.first_byte(self.targets[who], TRIES, cold=first_touch))

    def _built(self) -> Sample:
        """What building 8 GiB would take: scaled by the quicker of two smaller ones."""

        def sample(_target: Target, build: Build) -> Sample:
            self.builds.append(build)
            return Sample(value=1000 * build.seconds * SIZE / build.size)

        return min(
            (
                self.bench.build_and(self.game, sample, members)
                for members in (max(1, self.game.members // 2), self.game.members)
            ),
            key=lambda found: found.value,
        )

    def _note(self) -> str:
        by_size: dict[int, list[float]] = {}
        for one in self.builds:
            by_size.setdefault(one.size, []).append(one.seconds / one.size * 1e9)
        measured = " and ".join(
            f"{statistics.median(rates):.2f} s per GB at {size / 1e9:.1f} GB"
            for size, rates in sorted(by_size.items())
        )
        return f"built first: scaled to 8 GiB by its size from {measured}" if measured else ""
