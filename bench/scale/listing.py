"""Listings: after a pause, right after a start, and of a folder of very many files."""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.live import Live
from bench.scale.many import game_path, make_files, make_games
from bench.scale.run import Scale

ROUNDS: Final = 5
PAUSE: Final = 11.0
"""Seconds after which no examination counts any more, however long it took."""
GAME_FILES: Final = 5
PAGE: Final = 32768
"""Bytes of one getdents64(2), as glibc has it."""
_libc: Final = ctypes.CDLL(None, use_errno=True)


def listings(scale: Scale) -> None:
    """A platform of 20,000 games of 5 files, and a folder of 100,000 plain files."""
    games, files = scale.sizes.platform, scale.sizes.games
    scale.status.update(f"Making a platform of {games:,} games …")
    library = scale.folder / "listed"
    make_games(library, games, GAME_FILES, scale.stop, platform_games=games)
    source = scale.folder / "plain/listed"
    make_files(source, games)
    scale.hash(library)
    shown = scale.mountpoint / Path(game_path(0, games)).parent
    _right_after_a_start(scale, library, shown)
    with scale.mount(library) as live:
        live.ready()
        live.wait_sealed()
        _after_a_pause(scale, live, shown, source)
    large = scale.folder / "large"
    scale.status.update(f"Making {files:,} files …")
    make_files(large / "roms/psx", files)
    scale.hash(large)
    with scale.mount(large) as live:
        live.ready()
        live.wait_sealed()
        _large(scale, scale.mountpoint / "roms/psx", large / "roms/psx")


def _right_after_a_start(scale: Scale, library: Path, shown: Path) -> None:
    count = scale.sizes.platform
    for what, command, bar in (
        ("names", ("ls", "-U"), 0.5),
        ("ls -l", ("ls", "-l"), 5.0),
    ):
        with scale.mount(library) as live:
            live.ready()
            took, cpu = _cost(live, lambda command=command: _list(shown, *command))  # type: ignore[misc]  # mypy can't infer a lambda's default
            scale.add(f"{count:,} games right after a start: {what}", took, "s", bar)
            scale.add("  CPU of the daemon meanwhile", cpu, "s")


def _after_a_pause(scale: Scale, live: Live, shown: Path, source: Path) -> None:
    _list(shown, "ls", "-l")
    ratios, costs = [], []
    for _ in range(ROUNDS):
        scale.status.update("ls -l after a pause …")
        time.sleep(PAUSE)
        plain = _list(source, "ls", "-l")
        took, cpu = _cost(live, lambda: _list(shown, "ls", "-l"))
        ratios.append(took / plain)
        costs.append(cpu)
    scale.add(
        "ls -l of them after a pause, ratio to the source", statistics.median(ratios), "", 1.5
    )
    scale.add("  CPU of the daemon for that", statistics.median(costs), "s")


def _large(scale: Scale, shown: Path, source: Path) -> None:
    scale.status.update("ls -l of very many files …")
    count = scale.sizes.games
    scale.add(f"{count:,} plain files: first name, first time", _first(shown) * 1e3, "ms", 20)
    _list(shown, "ls", "-l")
    first = statistics.median(_first(shown) for _ in range(ROUNDS))
    scale.add("  first name, later", first * 1e3, "ms", 20)
    pairs = [(_list(shown, "ls", "-l"), _list(source, "ls", "-l")) for _ in range(ROUNDS)]
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    scale.add("  ls -l, ratio to the source", ratio, "", 1.5)
    names = _list(shown, "ls", "-U")
    scale.add("  paging with a new open each time, in passes", _paging(shown, count) / names, "", 3)


def _cost(live: Live, function: Callable[[], float]) -> tuple[float, float]:
    before = live.cpu
    return function(), live.cpu - before


def _list(folder: Path, *command: str) -> float:
    started = time.monotonic()
    subprocess.run([*command, folder], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def _first(folder: Path) -> float:
    started = time.monotonic()
    with os.scandir(folder) as entries:
        next(entries)
    return time.monotonic() - started


def _paging(folder: Path, count: int) -> float:
    """Seconds for all pages, each of a folder that is opened anew."""
    started = time.monotonic()
    buffer = ctypes.create_string_buffer(PAGE)
    cookie = seen = 0
    while True:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.lseek(descriptor, cookie, os.SEEK_SET)
            size = _libc.getdents64(descriptor, buffer, PAGE)
        finally:
            os.close(descriptor)
        if size <= 0:
            break
        at, data = 0, buffer.raw
        while at < size:
            cookie = int.from_bytes(data[at + 8 : at + 16], "little")
            at += int.from_bytes(data[at + 16 : at + 18], "little")
            seen += 1
    if not count <= seen <= count + 2:
        raise BenchError(f"{seen:,} names were told, and {count:,} are there: a defect of zipfs")
    return time.monotonic() - started
