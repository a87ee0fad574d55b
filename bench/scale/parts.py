"""What `make bench-scale` measures."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.live import ANSWER_SECONDS, Live
from bench.mount import is_mounted
from bench.process import find_program, start, stop
from bench.scale.crowd import fetch_all
from bench.scale.listing import listings
from bench.scale.many import game_name, game_path, make_files, make_games, make_sparse
from bench.scale.run import FILES, OLD_SECONDS, Row, Scale
from bench.scale.walk import walks
from bench.synthetic import MIB
from bench.web import nginx

ROUNDS: Final = 15
BINDFS_ROUNDS: Final = 5
HANDLES: Final = 100
READ: Final = 65536


def _timed(function: Callable[[], object]) -> float:
    started = time.monotonic()
    function()
    return time.monotonic() - started


def many_games(scale: Scale) -> None:
    """100,000 games of 10 files; and the same with fewer, for the slope."""
    kinds = {
        name: scale.measure("archives", cost, unit)
        for name, cost, unit in (
            ("hashing", "zipfs index", "s"),
            ("size", "index", "MiB"),
            ("ready", "start to first answer", "s"),
            ("survey", "CPU from start to everything sealed", "s"),
            ("memory", "memory above an empty mount's", "MiB"),
            ("find", "find", "s"),
            ("rescan", "full rescan, CPU", "s"),
        )
    }
    empty = scale.folder / "empty"
    make_games(empty, 1, FILES, scale.stop)
    scale.hash(empty)
    with scale.mount(empty) as live:
        live.ready()
        live.wait_sealed()
        base = live.memory()
    found: dict[str, float] = {}
    fewer, memory = 0, 0.0
    for games in scale.sizes.series(scale.sizes.games, 100):
        library = scale.folder / f"games-{games}"
        scale.status.update(f"Making {games:,} games …")
        make_games(library, games, FILES, scale.stop)
        found = _measure_games(scale, library, games, base)
        for name, series in kinds.items():
            series.add(games, max(found[name], 0.001))
        # Without what any mount of some size takes: caches of SQLite, threads.
        found["each"] = (found["memory"] - memory) * MIB / (games - fewer)
        fewer, memory = games, found["memory"]
        shutil.rmtree(library)
    files = games * FILES
    for what, name, unit, bar in (
        ("mount READY", "is_ready", "s", 2),
        ("  first answer", "ready", "s", 2),
        ("  everything sealed", "sealed", "s", None),
        ("  CPU until then", "survey", "s", None),
        ("  stat of any archive meanwhile, median", "median", "ms", None),
        ("  the longest", "longest", "ms", None),
        ("  memory when ready", "at_start", "MiB", 250),
        ("  memory when everything is sealed", "sealed_memory", "MiB", 250),
        ("  at most, until then", "most", "MiB", 250),
        ("  for each archive that nobody opened", "each", "bytes", 1000),
        ("find", "find", "s", None),
        ("  memory after that", "found_memory", "MiB", None),
        ("full rescan", "rescan_time", "s", None),
        ("  CPU of that", "rescan", "s", None),
        ("zipfs index, the first time", "hashing", "s", None),
        ("the index", "size", "MiB", None),
        ("  of that, each file", "size_each", "bytes", None),
    ):
        label = what if what.startswith(" ") else f"{files:,} files: {what}"
        scale.add(label, found[name], unit, bar)


def _measure_games(scale: Scale, library: Path, games: int, base: float) -> dict[str, float]:
    """All that is measured of *library*; *base* is an empty mount's memory."""
    found: dict[str, float] = {}
    found["hashing"], index = scale.hash(library)
    found["size"], found["size_each"] = index / MIB, index / games / FILES
    known = scale.mountpoint / f"{game_path(games // 2)}.zip"
    started = time.monotonic()
    with scale.mount(library) as live:
        live.ready()
        found["is_ready"] = time.monotonic() - started
        os.stat(known)
        found["ready"] = time.monotonic() - started
        found["at_start"] = live.memory()
        waits = [found["ready"] - found["is_ready"]]
        scale.status.update(f"{games:,} games: looking through them …")
        live.wait_sealed(meanwhile=lambda: waits.append(_stat_any(scale, games)))
        found["sealed"], found["survey"] = time.monotonic() - started, live.cpu
        found["median"], found["longest"] = statistics.median(waits) * 1e3, max(waits) * 1e3
        found["sealed_memory"], found["most"] = live.memory(), live.memory("VmHWM")
        found["memory"] = live.memory() - base
        scale.status.update(f"{games:,} games: find …")
        # Few games are still taken as they were a moment ago, and many aren't.
        time.sleep(OLD_SECONDS)
        found["find"] = _timed(lambda: scale.stop.run("find", str(scale.mountpoint)))
        found["found_memory"] = live.memory()
        scale.status.update(f"{games:,} games: looking through them again …")
        time.sleep(OLD_SECONDS)
        before = live.cpu
        found["rescan_time"] = live.rescan()
        found["rescan"] = live.cpu - before
    return found


def _stat_any(scale: Scale, games: int) -> float:
    path = scale.mountpoint / f"{game_path(random.randrange(games))}.zip"
    return _timed(lambda: os.stat(path))


def platform(scale: Scale) -> None:
    """A folder of 20,000 games, and 500 clients."""
    games = scale.sizes.platform
    scale.status.update(f"Making a platform of {games:,} games …")
    library = scale.folder / "platform"
    make_games(library, games, 2, scale.stop, platform_games=games)
    source = scale.folder / "plain/platform"
    make_files(source, games)
    scale.hash(library)
    shown = scale.mountpoint / Path(game_path(0, games)).parent
    with scale.mount(library) as live:
        live.ready()
        live.wait_sealed()
        _listings(scale, live, shown, source)
        _clients(scale, library, games)


def _listings(scale: Scale, live: Live, shown: Path, source: Path) -> None:
    count = scale.sizes.platform
    scale.status.update(f"ls -l of {count:,} games …")
    scale.add(f"ls -l of {count:,} games, first time", _list_all(shown), "s")
    again, plain, cpu = [], [], []
    for _ in range(ROUNDS):
        # Just after one that may have taken long, as a person would.
        _list_all(shown)
        before = live.cpu
        again.append(_list_all(shown))
        cpu.append(live.cpu - before)
        plain.append(_list_all(source))
    scale.add("  second time", statistics.median(again), "s")
    scale.add("  CPU of the daemon for that", statistics.mean(cpu), "s")
    scale.add(f"ls -l of {count:,} plain files on the source", statistics.median(plain), "s")
    # Of pairs, one just after the other: what else the machine does concerns both.
    scale.add("  second time, ratio to that", _ratio(again, plain), "", 1)
    through, again = [], []
    with _bindfs(scale, source.parent) as mounted_there:
        _list_all(mounted_there / source.name)
        for _ in range(BINDFS_ROUNDS):
            through.append(_list_all(mounted_there / source.name))
            _list_all(shown)
            again.append(_list_all(shown))
    sooner = _ratio(through, again)
    scale.add("ls -l of them through bindfs, second time", statistics.median(through), "s")
    scale.rows.append(
        Row(
            what="  second time, so many times sooner than that",
            value=f"{sooner:.1f}",
            figure=sooner,
            bar="≥ 30",
            met=sooner >= 30,
        )
    )


def _ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, others, strict=True))


def _list_all(folder: Path) -> float:
    # Not by Stop.run, which looks ten times a second whether it has ended.
    command = ["ls", "-l", str(folder)]
    return _timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))


@contextlib.contextmanager
def _bindfs(scale: Scale, source: Path) -> Iterator[Path]:
    mountpoint = scale.folder / "bindfs"
    mountpoint.mkdir()
    process = start(
        [find_program("bindfs", package="bindfs"), "-f", source, mountpoint],
    )
    try:
        deadline = time.monotonic() + ANSWER_SECONDS
        while not is_mounted(mountpoint):
            scale.stop.check()
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError("bindfs doesn't mount")
            time.sleep(0.02)
        yield mountpoint
    finally:
        # By SIGTERM it unmounts by itself.
        stop(process)
        mountpoint.rmdir()


def _clients(scale: Scale, library: Path, games: int) -> None:
    series = scale.measure("clients", "all answered", "s")
    with nginx(scale.mountpoint.parent, workdir=scale.folder) as server:
        for count in scale.sizes.clients:
            scale.status.update(f"{count} clients …")
            wanted = []
            for number in random.sample(range(games), count):
                path = game_path(number, games)
                url = server.url_of(f"{scale.mountpoint.name}/{path}.zip")
                wanted.append((url, library / path))
            series.add(count, fetch_all(wanted, ANSWER_SECONDS))
    most, took = series.points[-1]
    scale.add(f"{most} clients at once, an archive each, all right", took, "s")


def many_members(scale: Scale) -> None:
    """One game of 100,000 members, and smaller ones for the slope."""
    hashing = scale.measure("members", "zipfs index", "s")
    looking = scale.measure("members", "stat", "s")
    opening = scale.measure("members", "first open and read", "s")
    memory = scale.measure("members", "memory of an open archive", "MiB")
    for members in scale.sizes.series(scale.sizes.members, 10):
        library = scale.folder / f"members-{members}"
        make_games(library, 1, members, scale.stop)
        hashing.add(members, scale.hash(library)[0])
        with scale.mount(library) as live:
            live.ready()
            live.wait_sealed()
            path = scale.mountpoint / f"{game_path(0)}.zip"
            time.sleep(OLD_SECONDS)
            looking.add(members, _timed(path.stat))
            before = live.memory()
            with contextlib.ExitStack() as stack:
                started = time.monotonic()
                stack.enter_context(path.open("rb")).read(READ)
                opened = time.monotonic() - started
                one = live.memory()
                for _ in range(HANDLES):
                    stack.enter_context(path.open("rb")).read(READ)
                all_of_them = live.memory()
            opening.add(members, opened)
            memory.add(members, max(one - before, 0.01))
            if members == scale.sizes.members:
                scale.add(f"{members:,} members: stat", looking.points[-1][1], "s")
                scale.add(f"{members:,} members: first open and read", opened, "s")
                scale.add("  memory of it", one - before, "MiB")
                scale.add("  per member", (one - before) * MIB / members, "bytes")
                kib = (all_of_them - one) * 1024 / HANDLES
                scale.add("  of each further handle", max(kib, 0.0), "KiB")
                scale.add("  sequential read of all", _read_all(path), "s")
        shutil.rmtree(library)


def _read_all(path: Path) -> float:
    started = time.monotonic()
    with path.open("rb", buffering=0) as file:
        while file.read(MIB):
            pass
    return time.monotonic() - started


def large_files(scale: Scale) -> None:
    """Sparse files of up to 4 GiB."""
    hashing = scale.measure("MiB in a file", "zipfs index", "s")
    opening = scale.measure("MiB in a file", "open and read at the end", "s")
    size = scale.measure("MiB in a file", "index", "MiB")
    for mib in scale.sizes.file_mib:
        library = scale.folder / f"mib-{mib}"
        make_sparse(library, game_name(mib), mib * MIB)
        took, size_of_index = scale.hash(library)
        hashing.add(mib, took)
        size.add(mib, size_of_index / MIB)
        with scale.mount(library) as live:
            live.ready()
            live.wait_sealed()
            path = scale.mountpoint / f"roms/sparse/{game_name(mib)}.zip"
            started = time.monotonic()
            with path.open("rb") as file:
                file.seek(-READ, os.SEEK_END)
                file.read()
            opening.add(mib, time.monotonic() - started)
        shutil.rmtree(library)
    scale.add(f"{mib:,} MiB in a file: zipfs index", hashing.points[-1][1], "s")


PARTS: Final = {
    "games": many_games,
    "platform": platform,
    "listings": listings,
    "members": many_members,
    "files": large_files,
    "far": walks,
}
