"""`make bench-far`: zipfs on sources that wait in each call, beside what else reads them.

A file system in C (bench/peers/slowfs.c) passes a folder through, waits as told in each open, stat,
readdir and read, caches names as NFS does or not at all, and counts all calls. Everything is
measured by turns with what it is compared with. Ends with tables, plots and a JSON file.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import BenchError, readme
from bench.far.cases import Far
from bench.far.kinds import GAMES, KINDS, Kind
from bench.far.plots import draw
from bench.far.report import tables
from bench.far.results import FarResults, Part
from bench.far.stand import OPTIONS, Folders, make, stand
from bench.peers import slowfs
from bench.process import find_program
from bench.session import Progress, Stop, add_output, console, ended, temporary_folder
from bench.speed.case import Measured, measure
from bench.speed.load import Clients
from bench.speed.results import About

ROUNDS: Final = 3
# Not in the repository: whoever measures on his own machine changes nothing.
OUT: Final = Path(".bench/results")
PUBLISHED: Final = readme.RESULTS.parent
MILLISECOND: Final = 1000
"""In microseconds, as all waits are."""
WAITS: Final = (200, MILLISECOND, 10 * MILLISECOND)


def _parts(arguments: argparse.Namespace) -> Iterator[tuple[Kind, int, bool, int]]:
    """What, how far, whether names are cached, and in how many rounds."""
    for kind in KINDS:
        for wait in WAITS:
            # A minute for each, and little noise beside.
            rounds = min(arguments.rounds, 1) if wait > MILLISECOND else arguments.rounds
            yield kind, wait, True, rounds
            if wait == MILLISECOND and kind is not GAMES:
                yield kind, wait, False, 1


def _label(kind: Kind, wait: int, names: bool) -> str:
    cached = "" if names else ", names not cached"
    return f"{kind.what}, {wait / MILLISECOND:g} ms{cached}"


def _run(arguments: argparse.Namespace, console: Console, stop: Stop) -> Iterator[FarResults]:
    """All that is known after each source."""
    load, start = os.getloadavg()[0], time.monotonic()
    clients = Clients.find()
    find_program("nginx", package="nginx")
    parts: list[Part] = []
    left_out: list[str] = []
    chosen = [part for part in _parts(arguments) if arguments.only in _label(*part[:3])]
    kinds = [kind for kind in KINDS if kind in {part[0] for part in chosen}]
    settings = About(name="zipfs", version=version("zipfs"), settings=" ".join(OPTIONS))
    with (
        temporary_folder("zipfs-far-") as folder,
        console.status("", refresh_per_second=2) as status,
    ):
        progress = Progress(console, status)
        program, about = slowfs.build(folder, stop)
        folders = Folders(folder=folder, program=program)
        make(folders, kinds, progress, stop)
        for kind, wait, names, rounds in chosen:
            label = _label(kind, wait, names)
            progress.begin(label)
            with stand(folders, kind, wait, names, stop) as running:
                todo = [
                    Measured(case=case)
                    for case in Far(on=running, clients=clients).cases()
                    if arguments.case in case.key
                ]
                for number, case, who in measure(todo, rounds):
                    progress.show(f"{label}: round {number} of {rounds}: {case.what}, {who}")
                running.check()
            left_out += [f"{label}: {one.failure}" for one in todo if one.failure]
            parts.append(
                Part(
                    kind=kind.key,
                    what=kind.what,
                    files=kind.all_files,
                    size=kind.all_bytes,
                    wait=wait / MILLISECOND,
                    names=names,
                    rows=[one.row() for one in todo if one.samples and not one.failure],
                )
            )
            yield FarResults(
                date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
                seconds=round(time.monotonic() - start),
                rounds=arguments.rounds,
                cpus=len(os.sched_getaffinity(0)),
                linux=".".join(platform.release().split(".")[:2]),
                load_before=load,
                load_after=os.getloadavg()[0],
                about={"source": about, "zipfs": settings},
                parts=parts,
                left_out=left_out,
            )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-far", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often (default: {ROUNDS})")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only the sources that have this in their name"
    )
    parser.add_argument(
        "--case", default="", metavar="TEXT", help="only the cases that have this in their key"
    )
    add_output(parser, OUT, PUBLISHED)
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    stop = Stop()
    terminal = console()
    with ended() as end:
        folder = PUBLISHED if arguments.publish else OUT
        file: Path = arguments.json or folder / readme.FAR.name
        file.parent.mkdir(parents=True, exist_ok=True)
        results = None
        # Written after each source: whoever ends it early has those that were measured.
        for results in _run(arguments, terminal, stop):
            file.write_text(f"{results.model_dump_json(indent=2)}\n")
        if results is None:
            raise BenchError(f"no source has {arguments.only!r} in its name")
        for part in tables(results):
            terminal.print(part, highlight=False, soft_wrap=isinstance(part, str))
        print(f"{results.seconds:.0f} s. All figures: {file}")
        print("Plots:", *draw(results, folder), sep="\n    ")
        if arguments.publish:
            readme.update_far(results)
    return end.status


if __name__ == "__main__":
    sys.exit(main())
