"""Throughput and CPU time of this version beside those of another one, in one run.

`python -m bench.restarts --before FOLDER` mounts one game by three programs: the version in FOLDER,
a worktree of an earlier commit that may have no environment of its own; this one without a process
that keeps the mount; and this one. All are mounted the whole time and take turns, so that what else
the machine does hits them alike. In each round each is read

- whole, past the page cache, in pieces of 1 MiB: MB per second, and the daemon's CPU time per GB;
- in pieces of 4 KiB at random places, also past the cache: pieces per second, CPU time for each;
- opened, read 4 KiB from, and closed, again and again.

The figures are medians; the ratios are those of this run alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench import BenchError
from bench.mount import Mount, mounted, wait_ready, zipfs_program

_MIB: Final = 1 << 20
_FILES: Final = 2
_READS: Final = 5000
_OPENS: Final = 10_000
_PATIENCE: Final = 300.0

# A process of its own: a mount that hangs must not hang who is to end it.
_READER: Final = """
import json, os, random, sys, time
path, seed, reads, opens = sys.argv[1], *map(int, sys.argv[2:])
rng = random.Random(seed)
def uncached(file):
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
file = os.open(path, os.O_RDONLY)
size = os.fstat(file).st_size
def whole():
    uncached(file)
    at = 0
    while piece := os.pread(file, 1 << 20, at):
        at += len(piece)
    assert at == size
    return at
def pieces():
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    uncached(file)
    for _ in range(reads):
        assert os.pread(file, 4096, rng.randrange(size - 4096))
    return reads
def again():
    for _ in range(opens):
        other = os.open(path, os.O_RDONLY)
        assert os.pread(other, 4096, 0)
        os.close(other)
    return opens
for task in (whole, pieces, again):
    sys.stdin.readline()
    began = time.monotonic()
    count = task()
    print(json.dumps([count, time.monotonic() - began]), flush=True)
"""

Figures = dict[str, list[float]]


class Version:
    """A mount of the game by one of the programs, and what was measured of it."""

    def __init__(self, name: str, mount: Mount, archive: Path) -> None:
        self.name = name
        self._mount = mount
        self._archive = archive
        self.figures: Figures = {}

    @property
    def _daemon(self) -> int:
        pid = self._mount.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        # The process that hashes is the daemon's child; the daemon is that of who keeps the mount.
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return int(children[0]) if b"holder.py" in command else pid

    def _cpu(self) -> float:
        """Seconds of CPU time that the daemon has taken."""
        fields = Path(f"/proc/{self._daemon}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def measure(self, seed: int) -> None:
        """Once each."""
        command = [sys.executable, "-c", _READER, str(self._archive), str(seed), str(_READS)]
        with subprocess.Popen(
            [*command, str(_OPENS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as reader:
            if reader.stdin is None or reader.stdout is None:  # for the type checker
                raise BenchError("no pipes")
            for what in ("whole", "pieces", "again"):
                before = self._cpu()
                reader.stdin.write("go\n")
                reader.stdin.flush()
                line = reader.stdout.readline()
                if not line:
                    raise BenchError(f"reading {self.name}'s archive has failed")
                count, seconds = json.loads(line)
                self._note(f"{what}, rate", count / seconds)
                self._note(f"{what}, CPU", (self._cpu() - before) / count)

    def _note(self, what: str, figure: float) -> None:
        self.figures.setdefault(what, []).append(figure)

    def median(self, what: str) -> float:
        return statistics.median(self.figures[what])


def programs(before: Path) -> dict[str, tuple[list[str], list[str]]]:
    """By name: how zipfs is started, and options of its mount."""
    if not (before / "zipfs" / "__main__.py").exists():
        raise BenchError(f"{before} has no zipfs in it")
    # Our own environment: both have the same interpreter and libraries.
    earlier = ["env", f"PYTHONPATH={before}", sys.executable, "-P", "-m", "zipfs"]
    return {
        "before": (earlier, []),
        "now, alone": ([zipfs_program()], ["--no-supervise"]),
        "now": ([zipfs_program()], []),
    }


def run(before: Path, rounds: int, size: int, console: Console) -> Table:
    """The table for a game of *size* MiB."""
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="zipfs-beside-", dir="/dev/shm"))
        )
        game = folder / "library/roms/psx/Game"
        game.mkdir(parents=True)
        for number in range(_FILES):
            with (game / f"{number}.bin").open("wb") as file:
                for _ in range(size // _FILES):
                    file.write(random.randbytes(_MIB))
        versions = [
            stack.enter_context(_mounted(name, program, options, folder))
            for name, (program, options) in programs(before).items()
        ]
        with console.status("") as shown:
            for number in range(-1, rounds):
                for version in versions[:: -1 if number % 2 else 1]:
                    shown.update(f"{version.name}: round {number + 1} of {rounds}")
                    version.measure(number)
                    if number < 0:  # warms the machine up
                        version.figures.clear()
        return _table(versions)


@contextlib.contextmanager
def _mounted(
    name: str, program: Sequence[str], options: Sequence[str], folder: Path
) -> Iterator[Version]:
    point = folder / f"mount {name}"
    point.mkdir()
    index = folder / f"index {name}.sqlite3"
    with mounted(
        folder / "library",
        point,
        workdir=folder,
        options=[*options, "--index", str(index), "--log-level", "error"],
        supervised=True,  # an earlier version doesn't know the option that would be given
        program=program,
    ) as mount:
        wait_ready(mount)
        archive = point / "roms/psx/Game.zip"
        deadline = time.monotonic() + _PATIENCE
        while not archive.exists():
            mount.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{name}: there is no archive")
            time.sleep(0.1)
        yield Version(name, mount, archive)


_ROWS: Final = (
    ("whole, rate", "whole: MB/s", 1e-6),
    ("whole, CPU", "whole: CPU s per GB", 1e9),
    ("pieces, rate", "4 KiB at random: per second", 1),
    ("pieces, CPU", "4 KiB at random: CPU µs", 1e6),
    ("again, rate", "open, read, close: per second", 1),
    ("again, CPU", "open, read, close: CPU µs", 1e6),
)


def _table(versions: Sequence[Version]) -> Table:
    first = versions[0]
    table = Table("median", *(version.name for version in versions), box=SIMPLE)
    for what, title, unit in _ROWS:
        base = first.median(what)
        table.add_row(
            title,
            *(
                f"{unit * version.median(what):,.2f}"
                + ("" if version is first or not base else f" ({version.median(what) / base:.2f})")
                for version in versions
            ),
        )
    return table
