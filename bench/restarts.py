"""`make bench-restarts`: for how long nobody serves a mount when its daemon is replaced.

A library of tiny games is made in memory, listed, so that the kernel knows all archives, and read
by one reader the whole time. Then its daemon is replaced many times, in each of these ways:

- hand-over: by a successor that is ready, as `zipfs restart` does;
- crash: SIGKILL;
- restart: it ends, and then the next one is started, as by `systemctl restart`; the mount is held
  by this program then, which root has to run.

With `--before FOLDER`, throughput and CPU time beside those of another version (:mod:`.beside`).

How long nobody answered is what the next daemon says, and the longest wait is that of the reader.
No figure here is to be compared with that of another machine or day.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench import BenchError, beside
from bench.mount import mounted, wait_ready, zipfs_program
from zipfs.mount import mountpoint as mp
from zipfs.mount import privileged

_FOLDER = 1000
"""Games in one platform."""
_PAUSE = 13.0
"""Seconds between two kills: ten within two minutes are too many."""
_PATIENCE = 300.0
WAYS = ("hand-over", "crash", "restart")


_READER = """
import os, pathlib, select, sys, time
mount = pathlib.Path(sys.argv[1])
for platform in (mount / "roms").iterdir():
    for path in platform.iterdir():
        path.stat()
longest, errors = 0.0, 0
with (mount / "roms/p0/game 0.zip").open("rb", buffering=0) as file:
    wanted = file.read()
    print("reads", flush=True)
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.monotonic()
        try:
            errors += os.pread(file.fileno(), len(wanted), 0) != wanted
        except OSError:
            errors += 1
        longest = max(longest, time.monotonic() - started)
print(longest, errors)
"""


class Reader:
    """Looks at all archives, and reads one again and again, past the page cache.

    A process of its own, and nothing else here touches the mount: who holds a mount, or has a
    child closing files in it, would wait for the daemon that it is to start.
    """

    def __init__(self, mountpoint: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _READER, mountpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._process.stdout:
            self._process.stdout.readline()

    def end(self) -> tuple[float, int]:
        """The longest wait in seconds, and the number of errors."""
        said, _ = self._process.communicate("end", timeout=_PATIENCE)
        longest, errors = said.split()
        return float(longest), int(errors)


def make_library(root: Path, archives: int) -> None:
    """*archives* games of two files of a few bytes."""
    for number in range(archives):
        game = root / f"roms/p{number // _FOLDER}/game {number}"
        game.mkdir(parents=True)
        for name in ("a", "b"):
            (game / name).write_bytes(b"%d %s" % (number, name.encode()))


def status_of(mountpoint: Path) -> dict[str, Any]:
    """Its document; raises :exc:`BenchError`."""
    done = subprocess.run(
        [zipfs_program(), "status", "--json", mountpoint],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(done.stderr.strip())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(mountpoint: Path, replace: Callable[[int], None]) -> float:
    """Replace the daemon once, by its number; for how many seconds nobody served."""
    before = status_of(mountpoint)
    replace(before["pid"])
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        time.sleep(0.05)
        try:
            after = status_of(mountpoint)
        except BenchError:
            continue
        if after["pid"] != before["pid"]:
            return float(after["restarts"]["outage"])
    raise BenchError("there is no other daemon")


class Unit:
    """A mount of *command*, ``zipfs mount``, that is held here, as by a service manager."""

    def __init__(self, command: Sequence[str], mountpoint: Path) -> None:
        self.mountpoint = mountpoint
        self._command = command
        options = {"ro", "nosuid", "nodev", "noatime", "default_permissions", "fsname=zipfs"}
        self._fuse = privileged.mount(str(mountpoint), {*options, "subtype=zipfs"}, uid=0, gid=0)
        self._state = os.memfd_create("state")
        self._pid = self._start()

    def _start(self) -> int:
        stored = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "fuse:state"}
        return os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", *self._command],
            {**os.environ, **stored},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, self._fuse, 3),
                (os.POSIX_SPAWN_DUP2, self._state, 4),
            ],
        )

    def restart(self, _: int) -> None:
        os.kill(self._pid, signal.SIGTERM)
        os.waitpid(self._pid, 0)
        self._pid = self._start()

    def close(self) -> None:
        mp.unmount(str(self.mountpoint))
        os.close(self._fuse)
        os.kill(self._pid, signal.SIGTERM)
        os.waitpid(self._pid, 0)
        os.close(self._state)


def run(
    archives: int, rounds: int, ways: Collection[str], console: Console
) -> Iterator[tuple[str, ...]]:
    """The rows of the table for a library of so many *archives*."""
    with tempfile.TemporaryDirectory(prefix="zipfs-restarts-", dir="/dev/shm") as name:
        folder = Path(name)
        point, library = folder / "mount", folder / "library"
        point.mkdir()
        library.mkdir()
        options = ["--index", str(folder / "index.sqlite3"), "--log-level", "error"]
        with console.status("") as shown:
            shown.update(f"making {archives:,} games")
            make_library(library, archives)

            def measured(what: str, replace: Callable[[int], None]) -> tuple[str, ...]:
                while (sealed := sealed_in(point)) < archives:
                    shown.update(f"{sealed:,} of {archives:,} sealed")
                    time.sleep(1)
                outages = []
                reader = Reader(point)
                for number in range(rounds):
                    shown.update(f"{archives:,} archives: {what} {number + 1} of {rounds}")
                    outages.append(measure(point, replace))
                    if what == "crash":
                        time.sleep(_PAUSE)
                longest, errors = reader.end()
                found = (statistics.median(outages), max(outages), longest)
                return (
                    f"{archives:,}",
                    what,
                    *(f"{seconds:.3f} s" for seconds in found),
                    f"{errors}",
                )

            with mounted(library, point, workdir=folder, options=options, supervised=True) as mount:
                wait_ready(mount)
                holder = mount.process.pid
                if "hand-over" in ways:
                    yield measured("hand-over", lambda _: os.kill(holder, signal.SIGUSR2))
                if "crash" in ways:
                    yield measured("crash", lambda pid: os.kill(pid, signal.SIGKILL))
            if "restart" in ways:
                command = [zipfs_program(), "mount", *options, str(library), str(point)]
                with contextlib.closing(Unit(command, point)) as unit:
                    yield measured("restart", unit.restart)


def sealed_in(mountpoint: Path) -> int:
    """How many archives are there; 0 while nobody says so."""
    try:
        return int(status_of(mountpoint)["archives"]["sealed"])
    except BenchError:
        return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.restarts", description=__doc__)
    parser.add_argument("--archives", type=int, nargs="+", default=[10, 100_000])
    parser.add_argument("--rounds", type=int, default=20, metavar="N")
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=WAYS)
    parser.add_argument(
        "--before",
        type=Path,
        metavar="FOLDER",
        help="compare throughput and CPU with the version in this worktree, instead of outages",
    )
    parser.add_argument(
        "--size", type=int, default=1024, metavar="MIB", help="of the archive for --before"
    )
    given = parser.parse_args()
    console = Console(stderr=True)
    if given.before is not None:
        try:
            Console().print(beside.run(given.before.resolve(), given.rounds, given.size, console))
        except BenchError as error:
            console.print(f"bench: {error}")
            return 1
        return 0
    table = Table("archives", "how", "median", "worst", "reader's worst", "errors", box=SIMPLE)
    try:
        for archives in given.archives:
            for row in run(archives, given.rounds, given.ways, console):
                console.print(*row)
                table.add_row(*row)
    except BenchError as error:
        console.print(f"bench: {error}")
        return 1
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
