"""`make bench`: zipfs beside the limit, and beside what people do without it.

Everything is measured by turns with what it is compared with, so what counts are the ratios. Ends
with tables, plots and a JSON file. Ctrl-C ends it and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import BenchError, readme
from bench.process import find_program
from bench.session import Progress, Stop, add_output, console, ended, temporary_folder
from bench.speed import hang, hashing, romm
from bench.speed.busy import Busy
from bench.speed.case import Case, Measured, measure
from bench.speed.cases import Bench, cases
from bench.speed.first_byte import FirstByte
from bench.speed.load import CONNECTIONS, Clients
from bench.speed.plots import draw
from bench.speed.reach import judge
from bench.speed.report import tables
from bench.speed.results import Results
from bench.speed.stand import HANG, Stand, stand, wait_until_sealed
from bench.synthetic import MIB, check_room

ROUNDS: Final = 5
SIZE_MIB: Final = 1024
# Not in the repository: whoever measures on his own machine changes nothing.
OUT: Final = Path(".bench/results")
PUBLISHED: Final = readme.RESULTS.parent


class _Run:
    """Measures what *only* is a part of, and says where it is."""

    def __init__(self, rounds: int, only: str, progress: Progress) -> None:
        self.results: list[Measured] = []
        self.progress = progress
        self._rounds = rounds
        self._only = only

    def wants(self, key: str, what: str) -> bool:
        return self._only in key or self._only in what

    def chosen(self, todo: Sequence[Case]) -> list[Measured]:
        return [Measured(case=case) for case in todo if self.wants(case.key, case.what)]

    def measure(self, chosen: Sequence[Measured], running: Stand) -> None:
        shown = -1
        for number, case, who in measure(chosen, self._rounds):
            running.mount.check()
            label = f"Round {number} of {self._rounds}" if number else "Warming up"
            if number != shown:
                names = f": {case.what}" if len(chosen) == 1 else ""
                self.progress.begin(f"{label}{names}")
            self.progress.show(f"{label}: {case.what}, {who}")
            shown = number
        self.results += chosen


def _run(arguments: argparse.Namespace, console: Console, stop: Stop) -> Results:
    """Measure, and return all that is known of it."""
    load, start = os.getloadavg()[0], time.monotonic()
    size: int = arguments.size * MIB
    # Before minutes of work: whether everything is here.
    clients = Clients.find()
    for name, package in (("nginx", "nginx"), ("caddy", "caddy"), ("bindfs", "bindfs")):
        find_program(name, package=package)
    programs = hashing.about(stop)
    with (
        temporary_folder("zipfs-bench-") as folder,
        # Seldom: what draws takes time from what is measured.
        console.status("", refresh_per_second=2) as status,
    ):
        check_room(folder, size)
        run = _Run(arguments.rounds, arguments.only, Progress(console, status))
        with stand(folder, size, run.progress, stop) as running:
            bench = Bench(clients=clients, stop=stop, folder=folder, builds=[])
            with _blaming(running):
                memory = _measure(run, running, bench)
        rows = [
            measured.row() for measured in run.results if measured.samples and not measured.failure
        ]
        return Results(
            date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            seconds=round(time.monotonic() - start),
            rounds=arguments.rounds,
            cpus=len(os.sched_getaffinity(0)),
            linux=".".join(platform.release().split(".")[:2]),
            load_before=load,
            archives={
                game.targets["stored"].sources.stem: game.targets["stored"].size or 0
                for game in (running.big, running.small)
            },
            connections=CONNECTIONS,
            about={**running.about, "programs": programs},
            rows=rows,
            memory=memory,
            left_out=[*running.left_out, *(one.failure for one in run.results if one.failure)],
        )


def _measure(run: _Run, running: Stand, bench: Bench) -> dict[str, int]:
    """All of it; returns the memory that each took for what they all did."""
    big, small = running.big, running.small
    first_byte = FirstByte(bench=bench, targets=running.eight, game=big)
    run.measure(run.chosen([*cases(bench, big, small), *first_byte.cases()]), running)
    memory = running.memory()
    if bench.builds:
        memory["built"] = max(build.memory for build in bench.builds)
    file = min(big.targets["zipfs"].sources.iterdir())
    run.measure(run.chosen([hashing.Hashing(file=file, stop=bench.stop).case()]), running)
    busy = Busy(
        bench=bench,
        mount=running.mount,
        library=running.library,
        asked=big.targets["zipfs"],
        downloaded=small.targets["zipfs"],
    )
    run.measure(run.chosen([busy.case()]), running)
    if run.wants(romm.KEY, romm.WHAT):
        run.progress.begin("Starting what stands for RomM")
        game = big.targets["zipfs"].sources
        with romm.romm(bench, running.folder / romm.KEY, game) as three:
            run.measure(run.chosen(three.cases()), running)
        if not three.can_stream:
            running.left_out.append(romm.LEFT_OUT)
    if run.wants(hang.KEY, hang.WHAT):
        run.progress.begin("Making a library with a source that hangs")
        with hang.hang(
            bench,
            running.folder / HANG,
            lambda mount, archives: wait_until_sealed(mount, archives, bench.stop),
        ) as hanging:
            run.measure(run.chosen([hanging.case()]), running)
    return memory


@contextlib.contextmanager
def _blaming(running: Stand) -> Iterator[None]:
    """If the mount has ended, that is the reason for whatever fails."""
    try:
        yield
    except (BenchError, OSError):
        running.mount.check()
        raise


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--rounds", type=_positive, default=ROUNDS, help=f"how often (default: {ROUNDS})"
    )
    parser.add_argument(
        "--size",
        type=_positive,
        default=SIZE_MIB,
        metavar="MIB",
        help=f"size of the big archive (default: {SIZE_MIB})",
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only what has this in its name or its key"
    )
    add_output(parser, OUT, PUBLISHED)
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    stop = Stop()
    terminal = console()
    with ended() as end:
        results = _run(arguments, terminal, stop)
        results = results.model_copy(update={"reach": list(judge(results))})
        for part in tables(results):
            terminal.print(part, highlight=False, soft_wrap=isinstance(part, str))
        folder = PUBLISHED if arguments.publish else OUT
        file: Path = arguments.json or folder / "results.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{results.model_dump_json(indent=2)}\n")
        drawn = draw(results, folder)
        print(f"{results.seconds:.0f} s. All figures: {file}")
        print("Plots:", *drawn, sep="\n    ")
        if arguments.publish:
            readme.update(results)
    return end.status


if __name__ == "__main__":
    sys.exit(main())
