"""What is measured on a far source, by zipfs and by those that it is compared with."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.far.kinds import PLATFORM
from bench.far.results import CAT, COPY, FILES, LIST, TAR
from bench.far.stand import PAUSE, Stand
from bench.peers.slowfs import Calls
from bench.speed.case import Case, Sample
from bench.speed.cases import RATE
from bench.speed.load import Clients, download, ranges
from bench.speed.results import STORED, ZIPFS
from bench.synthetic import read_through
from bench.usage import Usage

RANGE: Final = 4096
RANGE_SECONDS: Final = 2


@dataclass(kw_only=True)
class Far:
    """Measures on *on*."""

    on: Stand
    clients: Clients

    def cases(self) -> Iterator[Case]:
        on = self.on
        yield self._case("seal", "sealed from nothing", "s", self._seal, ZIPFS, TAR)
        if on.kind.games == 1:
            others = (FILES, CAT, COPY, TAR)
            yield self._case("first", "first download", RATE, self._first, ZIPFS, STORED, *others)
            yield self._case("later", "later download", RATE, self._later, ZIPFS, STORED)
            yield self._case(
                "ranges", "4 KiB ranges, first touch", "/s", self._ranges, ZIPFS, STORED
            )
        yield self._case("list", "ls -l of the platform", "s", self._list, ZIPFS, LIST)
        yield self._case("rescan", "walk through the library", "s", self._rescan, ZIPFS, LIST)

    def _case(
        self, key: str, what: str, unit: str, measure: Callable[[str], Sample], *who: str
    ) -> Case:
        return Case(
            key=key,
            what=what,
            unit=unit,
            higher_is_better=unit != "s",
            contenders=dict.fromkeys(who),
            measure=measure,
            warm_up=False,
        )

    def _metered(self, work: Callable[[], tuple[float, float]]) -> Sample:
        """*work* gives the value and the bytes that were sent."""
        own, before = Usage.of(self.on.pid), self.on.slow.calls()
        value, sent = work()
        calls, after = self.on.slow.calls() - before, Usage.of(self.on.pid)
        return Sample(value=value, sent=sent, own=after - own, calls=self._each(calls))

    def _each(self, calls: Calls) -> dict[str, float]:
        """For each file."""
        return {
            kind: count / self.on.kind.all_files
            for kind, count in dataclasses.asdict(calls).items()
        }

    def _timed(self, *command: str) -> Sample:
        """Seconds that it takes."""

        def work() -> tuple[float, float]:
            started = time.monotonic()
            self.on.stop.run(*command)
            return time.monotonic() - started, 0

        return self._metered(work)

    def _as_rate(self, sample: Sample) -> Sample:
        size = self.on.kind.all_bytes
        return dataclasses.replace(sample, value=size / 1e6 / sample.value, sent=size)

    # ------------------------------------------------------------ the cases

    def _seal(self, who: str) -> Sample:
        self.on.quiet()
        self.on.forget()
        if who == TAR:
            return self._tar()

        def work() -> tuple[float, float]:
            started = time.monotonic()
            with self.on.another() as live:
                live.wait_sealed()
                taken.append(time.monotonic() - started)
                calls.append(self.on.slow.calls() - before)
                if not (self.on.folders.second / f"{self.on.kind.game()}.zip").exists():
                    raise BenchError("everything is sealed, but the game isn't there")
            return taken[-1], 0

        taken: list[float] = []
        calls: list[Calls] = []
        before = self.on.slow.calls()
        value, _ = work()
        return Sample(value=value, calls=self._each(calls[-1]))

    def _first(self, who: str) -> Sample:
        self.on.quiet()
        self.on.forget(proven=who == ZIPFS)
        if who in (ZIPFS, STORED):
            return self._download(who)
        if who == FILES:
            return self._file_by_file()
        if who == TAR:
            return self._as_rate(self._tar())
        if who == CAT:
            command = 'find "$0" -type f -print0 | sort -z | xargs -0 cat > /dev/null'
            return self._as_rate(self._timed("sh", "-c", command, str(self.on.library)))
        copy = self.on.folders.folder / "copy"
        try:
            return self._as_rate(self._timed("cp", "-r", str(self.on.library), str(copy)))
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def _later(self, who: str) -> Sample:
        self.on.quiet()
        self.on.forget()
        with self.on.near():
            read_through(self._archive(who), self.on.stop)
        if who == ZIPFS:
            self.on.reads()
        # What was read stays; what is known of names doesn't.
        self.on.forget(data=False)
        return self._download(who)

    def _ranges(self, who: str) -> Sample:
        self.on.quiet()
        self.on.forget(proven=who == ZIPFS)
        archive = self._archive(who)
        size = archive.stat().st_size

        def work() -> tuple[float, float]:
            answers = ranges(
                *(self.clients, self.on.stop, self.on.url(archive), size),
                length=RANGE,
                seconds=RANGE_SECONDS,
            )
            return answers.rate, answers.count * RANGE

        return self._read(who, work)

    def _list(self, who: str) -> Sample:
        self.on.quiet()
        self.on.forget(data=False, pause=PAUSE)
        top = self.on.folders.mountpoint if who == ZIPFS else self.on.library
        return self._timed("ls", "-l", str(top / PLATFORM))

    def _rescan(self, who: str) -> Sample:
        self.on.forget(data=False)
        if who == LIST:
            return self._timed("ls", "-lR", str(self.on.library))
        return self._metered(lambda: (self.on.walk(), 0))

    # ------------------------------------------------------------ their parts

    def _archive(self, who: str) -> Path:
        return self.on.archive if who == ZIPFS else self.on.stored

    def _download(self, who: str) -> Sample:
        archive = self._archive(who)
        size = (self.on.folders.source / self.on.folders.stored(self.on.kind)).stat().st_size

        def work() -> tuple[float, float]:
            done = download(self.clients, self.on.stop, self.on.url(archive), size)
            return done.size / 1e6 / done.seconds, done.size

        return self._read(who, work)

    def _read(self, who: str, work: Callable[[], tuple[float, float]]) -> Sample:
        sample = self._metered(work)
        if who == ZIPFS:
            self.on.reads()
        return sample

    def _file_by_file(self) -> Sample:
        """By one client that keeps its connection."""
        config = self.on.folders.folder / "files.curl"
        lines = (f'url = "{self.on.url(path)}"\noutput = "/dev/null"\n' for path in self.on.files)
        config.write_text("".join(lines))

        def work() -> tuple[float, float]:
            started = time.monotonic()
            said = self.on.stop.run(
                *(self.clients.curl, "-sS", "--fail", "-w", "%{size_download}\\n"),
                *("-K", str(config)),
            )
            seconds = time.monotonic() - started
            size = sum(map(int, said.split()))
            if size != self.on.kind.all_bytes:
                raise BenchError(f"all files together gave {size} bytes")
            return size / 1e6 / seconds, size

        return self._metered(work)

    def _tar(self) -> Sample:
        # Into a pipe: tar doesn't read for /dev/null.
        return self._timed("sh", "-c", 'tar cf - -C "$0" . | cat > /dev/null', str(self.on.library))
