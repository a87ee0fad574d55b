"""What happens to the daemon, its index and its machine: the same bytes and ETag after it."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.web import Server
from tests.e2e.conftest import Seen
from tests.e2e.curl import QUIET
from tests.e2e.matrix.changes import SIZE, make
from tests.e2e.matrix.client import Download
from tests.e2e.matrix.stand import line_to, wait_announced, wait_for
from tests.e2e.programs import ARIA2C, WGET, run, running
from tests.support.libraries import content, make_file, make_game, sha256
from tests.support.mounting import Mounted, Mounts
from tests.support.waiting import SECONDS, poll

GAME: Final = "roms/x/Game"
BEGINNING: Final = 1_000_000


def _forget_dead_files(name: str, server: Server) -> None:
    """Have nginx let go of what it has open of a mount that is gone.

    Its open_file_cache knows a file by its inode alone, which is the same after a restart (V2).
    So it would go on with the dead descriptor until nobody has asked for that file for 10 s.
    """
    if name == "nginx":
        old = _children(server.process.pid)
        server.process.send_signal(signal.SIGHUP)
        poll("nginx to have other processes", lambda: not old & _children(server.process.pid))


def _children(pid: int) -> set[str]:
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


# ---------------------------------------------------------------- killed


def test_killed_and_started_again(
    library: Path,
    mount: Mounts,
    place: Path,
    start_server: Callable[[str], Server],
    server_name: str,
    seen: Seen,
) -> None:
    seen("the daemon killed and started again", server_name)
    game = make(library, GAME)
    mounted = mount(library, "--allow-other")
    server = start_server(server_name)
    line = line_to(server, place, mounted, GAME)
    version = line.versions.add(game)
    wait_announced(line, version)

    # Three clients that each have a part; aria2c keeps its own account of what it has. In one
    # connection, so that it isn't given all of the archive: what the kernel has, it goes on giving.
    files = [place / f"{client}.zip" for client in ("curl", "wget", "aria2c")]
    aria2c = (*ARIA2C, "-d", place, "-o", files[2].name, line.url)
    with running(*aria2c, "-x1", "-s1", "--max-overall-download-limit=1M") as client:
        poll("aria2c to begin", lambda: files[2].exists() and files[2].stat().st_size > 0)
        client.send_signal(signal.SIGINT)
        client.wait(SECONDS)
    with Download(line.url) as download:
        download.read(BEGINNING)
        mounted.kill()
        received = download.rest()
    line.versions.check(received)
    assert not received.whole
    for file in files[:2]:
        file.write_bytes(received.response.body)

    again = mount(library, "--allow-other", mountpoint=mounted.path)
    again.wait_archive(GAME)
    _forget_dead_files(server_name, server)
    wait_for(line, version)
    run(*QUIET, "-C", "-", "-H", f"If-Range: {version.etag}", "-o", files[0], line.url)
    run(*WGET, "-c", "-O", files[1], line.url)
    run(*aria2c, "-c")
    wanted = place / "wanted.zip"
    wanted.write_bytes(version.data)
    for file in files:
        assert sha256(file) == sha256(wanted), file.name


# ---------------------------------------------------------------- the index


def _parts(index: Path) -> list[Path]:
    return sorted(index.parent.glob(f"{index.name}*"))


def _deleted(index: Path) -> None:
    for file in _parts(index):
        file.unlink()


def _emptied(index: Path) -> None:
    for file in _parts(index):
        os.truncate(file, 0)


def _cut(index: Path) -> None:
    os.truncate(index, index.stat().st_size // 2)


def _of_another_version(index: Path) -> None:
    _pragma(index, "user_version = 77")


def _of_another_program(index: Path) -> None:
    _pragma(index, "application_id = 77")


def _pragma(index: Path, what: str) -> None:
    with sqlite3.connect(index) as database:
        database.execute(f"PRAGMA {what}")
    database.close()


def _damaged(seed: int) -> Callable[[Path], None]:
    def damage(index: Path) -> None:
        chance = random.Random(seed)
        for file in _parts(index):
            data = bytearray(file.read_bytes())
            for _ in range(chance.choice([1, 5, 50])):
                if data:
                    at = chance.randrange(len(data))
                    some = chance.randbytes(chance.choice([1, 16, 512]))
                    data[at : at + len(some)] = some
            file.write_bytes(data)

    return damage


DAMAGES: Final[dict[str, Callable[[Path], None]]] = {
    "deleted": _deleted,
    "emptied": _emptied,
    "cut in half": _cut,
    "of another version": _of_another_version,
    "of another program": _of_another_program,
    **{f"damaged, seed {seed}": _damaged(seed) for seed in range(8)},
}


def test_index(
    library: Path, mount: Mounts, place: Path, all_servers: dict[str, Server], seen: Seen
) -> None:
    # Several games, so that there is something to damage.
    names = [f"roms/x/Game {number}" for number in range(6)]
    for number, name in enumerate(names):
        make_game(library, name, {f"file {n}": content(3000 * n, number) for n in range(40)})
    mounted = mount(library, "--allow-other")
    lines = [
        (line_to(server, place, mounted, name), library / name)
        for name in names
        for server in all_servers.values()
    ]
    versions = [(line, line.versions.add(game)) for line, game in lines]
    for line, version in versions:
        wait_for(line, version)
    for what, damage in DAMAGES.items():
        kind = "damaged at random offsets" if "seed" in what else what
        for name in all_servers:
            seen(f"the index {kind}", name)
        assert mounted.stop() == 0
        damage(mounted.index)
        mounted = mount(library, "--allow-other", mountpoint=mounted.path)
        mounted.expect_log("the index .* is damaged or of another version")
        mounted.wait_sealed(len(names))
        _forget_dead_files("nginx", all_servers["nginx"])
        for line, version in versions:
            wait_for(line, version)


# ---------------------------------------------------------------- the machine

CLOCK: Final = """
import sys, time
file, offset, real = sys.argv.pop(1), 0, time.time_ns
def time_ns():
    global offset
    with open(file) as stream:
        offset = int(stream.read() or offset)
    return real() + offset * 10**9
time.time_ns = time_ns
time.time = lambda: time_ns() / 1e9
from zipfs.cli.cli import main
main()
"""
"""A zipfs whose clock is off by what a file says. The kernel's own clock, which dates files, goes
on as it was: which is what a clock that was set looks like to files written before."""

YEARS: Final = 365 * 86400


def test_clock_zone_and_locale(
    library: Path, mount: Mounts, place: Path, all_servers: dict[str, Server], seen: Seen
) -> None:
    game = make_game(library, GAME, {"a": content(300_000, 1), "ä": content(300_000, 2)})
    clocks: list[Path] = []

    def with_clock(offset: int) -> Mounted:
        clock = place / f"clock-{len(clocks)}"
        clock.write_text(str(offset))
        clocks.append(clock)
        return mount(
            library,
            "--allow-other",
            index=place / f"index-{clock.name}",
            program=[sys.executable, "-c", CLOCK, str(clock)],
        )

    def with_environment(number: int, **env: str) -> Mounted:
        return mount(library, "--allow-other", index=place / f"index-env-{number}", env=env)

    mounts = {
        "the clock right": [with_clock(0)],
        "the clock set back or forward": [with_clock(-20 * YEARS), with_clock(20 * YEARS)],
        "TZ changed": [
            with_environment(1, TZ="<+1345>-13:45"),
            with_environment(2, TZ="EST5EDT,M3.2.0,M11.1.0"),
        ],
        "the locale changed": [
            with_environment(3, LC_ALL="C"),
            with_environment(4, LC_ALL="C.UTF-8", LANG="C.UTF-8"),
            with_environment(5, LC_ALL="tr_TR.UTF-8", LANGUAGE="tr"),
        ],
    }
    lines = [
        (row, name, line_to(server, place, mounted, GAME))
        for row, all_mounted in mounts.items()
        for mounted in all_mounted
        for name, server in all_servers.items()
    ]

    def check() -> None:
        etags: dict[str, set[str]] = {}
        for row, name, line in lines:
            seen(row, name)
            version = line.versions.add(game)
            wait_for(line, version)
            etags.setdefault(name, set()).add(version.etag)
        assert all(len(found) == 1 for found in etags.values())

    check()
    # Set while it runs, each the other way; and then a game changes.
    for clock in clocks:
        clock.write_text(str(-int(clock.read_text())))
    check()
    make_file(game / "a", content(300_000, 3))
    check()
    for clock in clocks:
        clock.write_text(str(10 * YEARS))
    (game / "more").write_bytes(content(1000))
    check()


# ---------------------------------------------------------------- a slow copy

SETTLE: Final = 1.5


def test_a_slow_copy(
    library: Path, mount: Mounts, place: Path, all_servers: dict[str, Server], seen: Seen
) -> None:
    for name in all_servers:
        seen("a game that is still being copied into the library", name)
    mounted = mount(library, "--allow-other", settle=SETTLE)
    mounted.expect_log("reading .* ended in an error: a file of it has changed")
    lines = [line_to(server, place, mounted, GAME) for server in all_servers.values()]
    source = make(place / "source", "Game")
    game = library / GAME
    game.mkdir(parents=True)
    refused = 0
    for member in sorted(source.iterdir()):
        data = member.read_bytes()
        with (game / member.name).open("wb", buffering=0) as stream:
            for at in range(0, len(data), SIZE // 8):
                written = time.monotonic()
                stream.write(data[at : at + SIZE // 8])
                # A machine under load may leave it alone for the settle time: then it is a
                # game, though not the whole one.
                states = [line.versions.add(game) for line in lines] if at else []
                for line in lines:
                    status = line.get().status if states else line.head().status
                    if time.monotonic() - written < SETTLE:
                        assert status == 404
                        refused += 1
    assert refused
    for line in lines:
        wait_for(line, line.versions.add(game))
