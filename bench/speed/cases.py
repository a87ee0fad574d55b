"""Downloads and ranges of one archive, by zipfs and by those that it is compared with."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.peers.built import Build
from bench.session import Stop
from bench.speed.case import Case, Sample
from bench.speed.load import Clients, Download, download, download_in_parts, first_byte, ranges
from bench.speed.results import (
    BINDFS,
    BUILT,
    HFS,
    NULLFS,
    PROVING,
    STORED,
    STREAMED,
    STREAMED_BARE,
    ZIPFS,
)
from bench.speed.target import State, Target
from bench.synthetic import SMALL_MEMBERS, drop_cache, read_through
from bench.usage import Usage

RATE: Final = "MB/s"
# Whoever takes seconds for each is measured this often.
SLOW_ROUNDS: Final = 3
RESUME_AT: Final = 0.9
# For one figure of what takes a millisecond.
TRIES: Final = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Game:
    """One game, as everybody has it."""

    targets: Mapping[str, Target]
    """BUILT: the game's folder, and what its archive will be once it is built."""
    built_file: Path | None = None
    """Where BUILT is to be built."""
    caddy: Mapping[str, Target]
    """The same behind Caddy."""
    members: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What is measured with."""

    clients: Clients
    stop: Stop
    folder: Path
    """For downloads."""
    builds: list[Build]
    """All that were made."""

    def metered(
        self, target: Target, state: State, work: Callable[[], tuple[float, float]]
    ) -> Sample:
        """*work* gives the value and the bytes that were sent."""
        target.prepare(state, self.stop)
        own, server = target.usage()
        value, sent = work()
        own_after, server_after = target.usage()
        own, server = own_after - own, server_after - server
        if target.mounted is not None and target.checked:
            target.check(state, own, sent)
        elif state is State.ON_DISK:
            target.check(state, own + server, sent)
        return Sample(value=value, sent=sent, own=own, server=server)

    def download(self, target: Target, state: State) -> Sample:
        def work() -> tuple[float, float]:
            done = download(self.clients, self.stop, target.url, target.size)
            return _rate(done), done.size

        return self.metered(target, state, work)

    def download_in_parts(self, target: Target, state: State) -> Sample:
        def work() -> tuple[float, float]:
            size = target.size or 0
            done = download_in_parts(self.clients, self.stop, target.url, size, self.folder)
            return _rate(done), done.size

        return self.metered(target, state, work)

    def ranges(self, target: Target, state: State, length: int) -> Sample:
        def work() -> tuple[float, float]:
            size = target.size or 0
            answers = ranges(self.clients, self.stop, target.url, size, length=length)
            # What is asked for again is cached, and so no first touch.
            if target.mounted and state is State.FIRST_TOUCH and answers.count * length > size:
                raise BenchError("it was all read before the time was up; give a larger --size")
            return answers.rate, answers.count * length

        return self.metered(target, state, work)

    def resume(self, target: Target, tries: int = 1) -> Sample:
        """Milliseconds until the first byte near the end is there: the median of *tries*."""
        size = target.size or sum(file.stat().st_size for file in target.sources.iterdir())

        def work() -> tuple[float, float]:
            return self.first_byte(target, tries, int(size * RESUME_AT)), 0

        # Nothing is read but a little, so there is nothing to check.
        return self.metered(replace(target, checked=False), State.FIRST_TOUCH, work)

    def first_byte(self, target: Target, tries: int, start: int = 0, *, cold: bool = True) -> float:
        seconds = []
        for _ in range(tries):
            if cold and target.mounted is not None:
                drop_cache(target.mounted)
            seconds.append(first_byte(self.stop, target.url, start))
        return 1000 * statistics.median(seconds)

    def build(self, game: Game, members: int) -> Build:
        """Build the archive on disk; the caller removes it."""
        if game.built_file is None:
            raise BenchError("nowhere to build")
        read_through(game.targets[BUILT].sources, self.stop)
        build = Build.run(game.targets[BUILT].sources, game.built_file, members, self.stop)
        self.builds.append(build)
        return build

    def build_and(
        self, game: Game, work: Callable[[Target, Build], Sample], members: int | None = None
    ) -> Sample:
        """Build the archive, do *work*, and remove it again."""
        file = game.built_file
        if file is None:
            raise BenchError("nowhere to build")
        try:
            build = self.build(game, game.members if members is None else members)
            target = replace(game.targets[BUILT], sources=file, size=build.size)
            done = work(target, build)
        finally:
            file.unlink(missing_ok=True)
        spent = Usage(cpu_seconds=build.cpu_seconds, to_disk=build.written)
        return replace(done, own=done.own + spent)


def cases(bench: Bench, big: Game, small: Game) -> list[Case]:
    """In the order that spares most reading: the first download fills the cache."""
    return [*_downloads(bench, big, small), *_ranges(bench, big, small), *_resume(bench, big)]


def _downloads(bench: Bench, big: Game, small: Game) -> list[Case]:
    def built(target: Target, build: Build) -> Sample:
        sample = bench.download(target, State.CACHED)
        seconds = build.seconds + build.size / 1e6 / sample.value
        return replace(sample, value=build.size / 1e6 / seconds)

    def first(who: str) -> Sample:
        if who == BUILT:
            return bench.build_and(big, built)
        return bench.download(big.targets[who], State.FIRST_TOUCH)

    slow = {who: SLOW_ROUNDS for who in (STREAMED, STREAMED_BARE, HFS, BUILT) if who in big.targets}
    streamed = [who for who in slow if who in (STREAMED, STREAMED_BARE)]
    return [
        Case(
            key="first",
            what="first download",
            unit=RATE,
            contenders={
                STORED: None,
                ZIPFS: None,
                PROVING: None,
                BINDFS: None,
                NULLFS: None,
                **slow,
            },
            measure=first,
        ),
        Case(
            key="cached",
            what="download, cached",
            unit=RATE,
            contenders={STORED: None, ZIPFS: None, **dict.fromkeys(streamed, SLOW_ROUNDS)},
            measure=lambda who: bench.download(big.targets[who], State.CACHED),
        ),
        Case(
            key="disk",
            what="download, sources on disk",
            unit=RATE,
            contenders=_pair(None),
            measure=lambda who: bench.download(big.targets[who], State.ON_DISK),
            warm_up=False,
        ),
        Case(
            key="small-first",
            what=f"{SMALL_MEMBERS} files, first download",
            unit=RATE,
            contenders={STORED: None, ZIPFS: None, PROVING: None, BINDFS: None},
            measure=lambda who: bench.download(small.targets[who], State.FIRST_TOUCH),
        ),
        Case(
            key="caddy-first",
            what="Caddy, first download",
            unit=RATE,
            contenders=_pair(SLOW_ROUNDS),
            measure=lambda who: bench.download(big.caddy[who], State.FIRST_TOUCH),
        ),
        Case(
            key="caddy-cached",
            what="Caddy, download, cached",
            unit=RATE,
            contenders=_pair(SLOW_ROUNDS),
            measure=lambda who: bench.download(big.caddy[who], State.CACHED),
        ),
        Case(
            key="aria2c",
            what="aria2c -x16 to disk, cached",
            unit=RATE,
            contenders=_pair(SLOW_ROUNDS),
            measure=lambda who: bench.download_in_parts(big.targets[who], State.CACHED),
        ),
    ]


def _ranges(bench: Bench, big: Game, small: Game) -> list[Case]:
    def fuse(game: Game) -> dict[str, int | None]:
        return {who: None for who in (PROVING, BINDFS, NULLFS) if who in game.targets}

    def case(game: Game, kib: int, state: State, key: str, what: str) -> Case:
        cached = state is State.CACHED
        return Case(
            key=f"{key}ranges-{kib}k-{'cached' if cached else 'first'}",
            what=f"{what}{kib} KiB ranges, {'cached' if cached else 'first touch'}",
            unit="/s",
            contenders=_pair(None) | ({} if cached else fuse(game)),
            measure=lambda who: bench.ranges(game.targets[who], state, kib << 10),
        )

    many = f"{SMALL_MEMBERS} files, "
    return [
        *(case(big, kib, State.CACHED, "", "") for kib in (4, 64)),
        *(case(big, kib, State.FIRST_TOUCH, "", "") for kib in (4, 64)),
        case(small, 4, State.FIRST_TOUCH, "small-", many),
    ]


def _resume(bench: Bench, big: Game) -> Sequence[Case]:
    def built(target: Target, build: Build) -> Sample:
        sample = bench.resume(target)
        return replace(sample, value=sample.value + 1000 * build.seconds)

    def resume(who: str) -> Sample:
        if who == BUILT:
            return bench.build_and(big, built)
        # Who builds takes seconds for each.
        return bench.resume(big.targets[who], 1 if who == HFS else TRIES)

    slow = {who: SLOW_ROUNDS for who in (HFS, BUILT) if who in big.targets}
    return [
        Case(
            key="resume",
            what=f"resume at {RESUME_AT:.0%}, first byte",
            unit="ms",
            higher_is_better=False,
            contenders={**_pair(None), **slow},
            measure=resume,
        )
    ]


def _pair(rounds: int | None) -> dict[str, int | None]:
    return {STORED: rounds, ZIPFS: rounds}


def _rate(done: Download) -> float:
    return done.size / 1e6 / done.seconds
