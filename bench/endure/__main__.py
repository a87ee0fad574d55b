"""`make endure`: a day's work in an hour, and whether memory, threads and open files stay flat.

A mount of a library made for it, behind nginx as the manual configures it, serves what a busy home
server does in a day: a household and its friends, two front ends that scan, a backup, a
thumbnailer, somebody who keeps changing things. :data:`KINDS` lists a day's work.

Each changed game is asked for at once, while its archive isn't sealed: a 404. Of half of the
archives that are asked for the kernel has dropped all pages, as if the library were larger than
memory. Whatever is answered is compared with what the game was (:mod:`tests.model.versions`):
all of the right bytes, or an error where it was changed, never anything else.

Every few minutes there is a quiet moment: no client does anything, nginx is told to reload (its
open_file_cache closes a file only when it is asked for others), and at the end of it the daemon
must have as many threads and descriptors as ever (:mod:`.flat`). Memory is fitted from the
end of the warm-up on. The exit status is 1 if something grows, something was answered that must
not be, or the day's work wasn't done.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import readme
from bench.endure.day import Kind
from bench.endure.findings import Course, judge, read, tables, write
from bench.endure.flat import is_flat
from bench.endure.library import Library
from bench.endure.plot import draw
from bench.endure.run import DAY, FINISH, Endurance
from bench.live import Live
from bench.mount import mounted
from bench.process import find_program
from bench.session import Progress, Stop, console, ended, temporary_folder
from bench.web import nginx

WARM_UP: Final = 600.0
"""Seconds; of a short run a sixth, as of an hour."""
NICE: Final = 10
OUT: Final = Path(".bench/results")
PUBLISHED: Final = readme.RESULTS.parent
WIDTH: Final = 120
SUSPECT: Final = ("Traceback", "unexpected", "Exception")
"""What must not be in the daemon's log."""

KINDS: Final = (
    Kind("whole", "whole downloads, of 1 KB to 400 MB", 2000, lanes=3),
    Kind("resumed", "downloads that break off, resumed where they were", 300),
    Kind("broken_off", "downloads broken off and left", 200),
    Kind("parallel", "downloads by aria2c over 16 connections", 100),
    Kind("under_change", "downloads of a game rewritten in place meanwhile", 60),
    Kind("hang", "clients that take a little, hang, and vanish", 60, lanes=4),
    Kind("ranges", "ranges of up to 64 KiB", 200_000, turn=50, lanes=4),
    Kind("checks", "questions whether an ETag still holds", 20_000, turn=20),
    Kind("pages", "pages of folders, by nginx", 5000, turn=5),
    Kind("reads", "archives opened in the mount, read in 8 places", 5000, turn=5),
    Kind("stats", "stat of an archive in the mount", 45_000, turn=30, lanes=2),
    Kind("listings", "folders listed in the mount, each entry looked at", 5000),
    Kind("replace", "members replaced by rename", 150),
    Kind("rewrite", "members rewritten in place", 100),
    Kind("rename_game", "games renamed", 100),
    Kind("add_game", "games added", 75),
    Kind("remove_game", "games removed, some of them for a moment", 75),
    Kind("chmod_all", "chmod -R of the whole library", 4),
    Kind("copy", "a platform copied out of the mount by rsync", 6),
    Kind("find", "find over everything", 24),
    Kind("list_all", "ls -lR over everything", 24),
    Kind("thumbnails", "a thumbnailer: 64 KiB of each archive", 6),
    Kind("reload", "SIGHUP", 12),
    Kind("status", "zipfs status", 48),
)
"""What a day has: the key of who does it, what it is, and how many."""


def _run(minutes: float, seed: int, console: Console, stop: Stop) -> Course:
    for name, package in (("nginx", "nginx"), ("aria2c", "aria2"), ("rsync", "rsync")):
        find_program(name, package=package)
    with (
        temporary_folder("zipfs-endure-") as folder,
        console.status("", refresh_per_second=1) as status,
    ):
        progress = Progress(console, status)
        progress.begin("Making the library")
        library = Library(folder / "library", folder / "aside")
        library.make(stop)
        mountpoint = folder / "www/mount"
        mountpoint.mkdir(parents=True)
        index, log = folder / "index/index.sqlite3", folder / "zipfs.log"
        options = ["--index", str(index)]
        progress.begin("Mounting it")
        with (
            log.open("wb") as stderr,
            mounted(
                library.root, mountpoint, workdir=folder, options=options, stderr=stderr
            ) as mount,
            nginx(mountpoint.parent, workdir=folder) as server,
        ):
            live = Live(mount, log, stop)
            live.ready()
            live.wait_sealed()
            os.nice(NICE)  # the clients, not what they are served by
            run = Endurance(
                mount,
                server,
                library,
                index=index,
                folder=folder / "downloads",
                kinds=KINDS,
                seconds=minutes * 60,
                seed=seed,
            )
            with _failures_printed(console, run):
                run.run(progress, stop)
                progress.begin("Looking at each archive once more")
                run.check_all()
            course = _course(run, minutes, seed)
            mount.process.terminate()
            if code := mount.process.wait(FINISH):
                course.fail(f"zipfs ended with status {code}")
        text = log.read_text(errors="replace")
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / "endure.log").write_text(text)
        for line in text.splitlines():
            if any(word in line for word in SUSPECT):
                course.fail(f"in zipfs' log: {line}")
        return course


@contextlib.contextmanager
def _failures_printed(console: Console, run: Endurance) -> Iterator[None]:
    """If the run is broken off: print the failures until then."""
    try:
        yield
    except BaseException:
        console.print(*run.day.failures, sep="\n", highlight=False, markup=False)
        raise


def _course(run: Endurance, minutes: float, seed: int) -> Course:
    day = run.day
    course = Course(
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        linux=".".join(platform.release().split(".")[:2]),
        python=platform.python_version(),
        cpus=len(os.sched_getaffinity(0)),
        seed=seed,
        minutes=minutes,
        warm=min(WARM_UP, minutes * 60 / 6),
        work=[(kind.what, day.quota(kind), day.done[kind.key]) for kind in day.kinds],
        answers=dict(sorted(run.clients.counts.items())),
        received=run.clients.received,
        marks=[(when - run.start, what) for when, what in run.chores.marks],
        samples=run.probe.samples,
        failures=list(day.failures),
        failed=day.failed,
    )
    for what in day.short():
        course.fail(f"too little was done of: {what}")
    return course


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make endure", description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--minutes",
        type=float,
        default=float(os.environ.get("ENDURE_MINUTES") or DAY / 60),
        help=f"how long, and so how much of a day (default: ENDURE_MINUTES, or {DAY / 60:.0f})",
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="run nothing: judge and draw these figures"
    )
    parser.add_argument("--png", type=Path, metavar="FILE", help="the plot once more, as PNG")
    parser.add_argument(
        "--publish", action="store_true", help=f"put plot and figures into {PUBLISHED}/"
    )
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    stop = Stop()
    terminal = console(WIDTH)
    with ended() as end:
        if arguments.again:
            course = read(arguments.again)
        else:
            title = f"{arguments.minutes:g} minutes, seed {arguments.seed}"
            terminal.print(title, highlight=False)
            course = _run(arguments.minutes, arguments.seed, terminal, stop)
        judge(course)
        for part in tables(course):
            terminal.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))
        folder = PUBLISHED if arguments.publish else OUT
        folder.mkdir(parents=True, exist_ok=True)
        write(course, folder / "endure.json")
        for path in (folder / "endure.svg", arguments.png):
            if path:
                draw(course, path)
                print(path)
        if course.failed or not is_flat(course.verdicts):
            end.status = 1
    return end.status


if __name__ == "__main__":
    sys.exit(main())
