"""`make bench-heads`: many heads over one library, with a shared index in PostgreSQL.

Time until all heads have sealed everything, with one, two and four of them, each of which may read
so many MiB a second: what is shared well is done in half of the time by twice as many. Rounds go
by turns. And for a library of very many files: bytes a file, and the start of a further head with
nothing but the database.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
from rich.box import SIMPLE
from rich.console import Console
from rich.status import Status
from rich.table import Table

from bench import BenchError, heads_report, readme
from bench.mount import Mount, mounted, wait_ready
from bench.postgresql import Server, server
from bench.session import add_output
from zipfs.index.shared.postgresql.database import BATCH, Database
from zipfs.index.shared.postgresql.migration import migrate
from zipfs.index.shared.postgresql.rows import Row
from zipfs.index.shared.shared_index import SharedIndex
from zipfs.library.filestate import Checksums, FileState
from zipfs.library.library import Library

RESULTS: Final = Path(__file__).parent / "results/heads.json"
OUT: Final = Path(".bench/heads")
_GAMES: Final = 200
_FILES: Final = 4
_NAME: Final = "bench"


def make_library(root: Path, size: int) -> None:
    """Games of files that are *size* bytes in all."""
    data = random.Random(1).randbytes(size // (_GAMES * _FILES))
    for number in range(_GAMES):
        game = root / f"roms/psx/Game {number:03}"
        game.mkdir(parents=True)
        for name in range(_FILES):
            (game / f"{name}.bin").write_bytes(data)


@contextlib.contextmanager
def shared_index(on: Server) -> Iterator[str]:
    """A shared index that is empty; its address."""
    address = on.make("bench")
    try:
        migrate(address)
        yield address
    finally:
        on.drop("bench")


def seal(library: Path, address: str, heads: int, rate: float) -> float:
    """Seconds until *heads* new heads have sealed all of *library*."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zipfs-heads-")))
        mounts: list[Mount] = []
        for number in range(heads):
            (folder / f"mount-{number}").mkdir()
            options = [f"--index={folder}/index-{number}/index", f"--hash-rate={rate}"]
            options += [f"--shared-index={address}", f"--shared-name={_NAME}"]
            work = folder / f"work-{number}"
            work.mkdir()
            mounts.append(
                stack.enter_context(
                    mounted(library, folder / f"mount-{number}", workdir=work, options=options)
                )
            )
        started = time.monotonic()
        for mount in mounts:
            wait_ready(mount)
        # What each says once a second: asking them would take the CPUs that they need.
        while any(mount.status != f"{_GAMES} archives sealed" for mount in mounts):
            for mount in mounts:
                mount.check()
                mount.wait(0.02)
        return time.monotonic() - started


def division(on: Server, given: argparse.Namespace, status: Status) -> dict[str, Any]:
    """Seconds for each number of heads, in rounds."""
    found: dict[int, list[float]] = {heads: [] for heads in given.heads}
    with tempfile.TemporaryDirectory(prefix="zipfs-heads-", dir="/dev/shm") as name:
        library = Path(name)
        make_library(library, int(given.size * (1 << 20)))
        for number in range(given.rounds):
            for heads in given.heads:
                status.update(f"round {number + 1} of {given.rounds}: {heads} heads")
                with shared_index(on) as address:
                    found[heads].append(seal(library, address, heads, given.rate))
    return {
        "size": given.size,
        "files": _GAMES * _FILES,
        "rate": given.rate,
        "seconds": found,
    }


def many(on: Server, count: int, status: Status) -> dict[str, Any]:
    """What *count* files take in the database, and to the start of a further head."""
    with shared_index(on) as address, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "library").mkdir()
        with psycopg.connect(address, autocommit=True) as connection:
            database = Database(connection)
            database.find(_NAME, make=True)
            started = time.monotonic()
            for first in range(0, count, BATCH):
                status.update(f"{first:,} of {count:,} files saved")
                database.put(list(map(_row, range(first, first + BATCH))), [0])
            saving = time.monotonic() - started
            # So that the empty library isn't taken for one with other files.
            connection.execute("UPDATE zipfs.libraries SET era = era + 1")
            (size,) = connection.execute(
                "SELECT pg_total_relation_size('zipfs.files')"
            ).fetchone() or (0,)
            connection.execute("SELECT pg_stat_reset()")
            status.update("a further head starts")
            index = SharedIndex(
                str(folder / "index"), address, _NAME, Library(str(folder / "library"))
            )
            started = time.monotonic()
            with contextlib.closing(index):
                index.join()
                joining = time.monotonic() - started
                facts = index.head_facts()
                queries = _queries(connection)
                if facts.mode != "sharing" or facts.taken != count:
                    raise BenchError(f"the head isn't in step: {facts}")
                paths = [_path(number) for number in range(0, count, max(1, count // 10_000))]
                # The server is stopped meanwhile: one that asked it would not end.
                with on.frozen():
                    started = time.monotonic()
                    for path in paths:
                        index.files([path])
                    lookup = (time.monotonic() - started) / len(paths)
            size_here = sum(
                os.path.getsize(file) for file in folder.iterdir() if file.name.startswith("index")
            )
    return {
        "files": count,
        "bytes_a_file": size / count,
        "bytes_a_file_here": size_here / count,
        "saving_seconds": saving,
        "start_seconds": joining,
        "start_queries": queries,
        "lookup_seconds": lookup,
        "round_trips_in_lookups": 0,
    }


def _path(number: int) -> bytes:
    return b"roms/psx/Game %07d (Europe)/Game (Disc 1).bin" % number


def _row(number: int) -> Row:
    state = FileState(number + 1, 700_000_000, 10**18 + number, 10**18 + number)
    return Row(_path(number), state, Checksums(number, number.to_bytes(16), b""), 1)


def _queries(connection: psycopg.Connection[Any]) -> int:
    """How many transactions others than this connection have made."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.execute("SELECT pg_stat_clear_snapshot()")
    row = connection.execute(
        "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    return int(row[0]) if row else 0


def _about() -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "linux": os.uname().release,
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }


def print_division(found: dict[str, Any]) -> Table:
    """A table of *found*: the time of one head, and what shares of it more heads take."""
    table = Table("heads", "all sealed after", "of one head's", "would be", box=SIMPLE)
    rows = heads_report.shares(found)
    for heads, median, least, most, share in rows:
        spread = f"{median:.1f} s ({least:.1f} to {most:.1f})"
        table.add_row(f"{heads}", spread, f"{share:.2f}", f"{rows[0][0] / heads:.2f}")
    return table


def print_many(found: dict[str, Any]) -> Table:
    table = Table("", "", box=SIMPLE, show_header=False)
    table.add_row("files", f"{found['files']:,}")
    table.add_row("bytes a file in PostgreSQL", f"{found['bytes_a_file']:.0f}")
    table.add_row("bytes a file in a head's index", f"{found['bytes_a_file_here']:.0f}")
    table.add_row("saved by one connection", f"{found['saving_seconds']:.1f} s")
    table.add_row("start of a further head, until in step", f"{found['start_seconds']:.1f} s")
    table.add_row("… transactions", f"{found['start_queries']:,}")
    table.add_row("a look-up in the head's index", f"{found['lookup_seconds'] * 1e6:.0f} µs")
    table.add_row(
        "… transactions for 10,000, PostgreSQL stopped",
        f"{found['round_trips_in_lookups']}",
    )
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.heads", description=__doc__)
    parser.add_argument("--heads", type=int, nargs="+", default=[1, 2, 4], metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--rate", type=float, default=2.0, metavar="MIB", help="of each head")
    parser.add_argument("--size", type=float, default=80.0, metavar="MIB", help="of the library")
    parser.add_argument("--files", type=int, default=1_000_000, metavar="N", help="0: leave it out")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it runs")
    add_output(parser, OUT, RESULTS.parent)
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.size, given.files = 1, 8.0, min(given.files, 20_000)
    console = Console(stderr=True)
    results: dict[str, Any] = {"about": _about()}
    try:
        with (
            tempfile.TemporaryDirectory(prefix="zipfs-heads-") as name,
            console.status("PostgreSQL starts") as status,
        ):
            os.chmod(name, 0o755)  # noqa: S103 - PostgreSQL runs as another user
            with server(Path(name) / "postgresql") as on:
                if given.rounds:
                    results["division"] = division(on, given, status)
                if given.files:
                    results["many"] = many(on, given.files, status)
    except (BenchError, psycopg.Error) as error:
        console.print(f"bench: {error}")
        return 1
    if "division" in results:
        Console().print(print_division(results["division"]))
    if "many" in results:
        Console().print(print_many(results["many"]))
    results["about"]["load_after"] = os.getloadavg()[0]
    file = given.json or (RESULTS if given.publish else OUT / RESULTS.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=2) + "\n")
    heads_report.draw(results, file.parent)
    if given.publish:
        readme.update_heads(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
