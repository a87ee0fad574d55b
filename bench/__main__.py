"""`make bench`: how fast nginx sends an archive out of the mount, beside the same one stored.

Downloads and random ranges, in the mount's cache and at first touch, each measured just after
the same of the plain file: what counts is the ratio. Ctrl-C ends it and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.status import Status
from rich.table import Table

from bench import BenchError
from bench.load import CONNECTIONS, Clients
from bench.measure import RATE, Bench, Result, Spread, cases
from bench.mount import Mount, mounted, wait_ready
from bench.process import find_program
from bench.session import Stop, StoppedError, temporary_folder
from bench.synthetic import MIB, Archive, build, check_room, copy_out
from bench.web import nginx

ROUNDS: Final = 5
# So that no 64 KiB range comes twice in a second of them.
SIZE_MIB: Final = 2048
SEAL_SECONDS: Final = 300.0
GB: Final = 1e9


def _run(size: int, rounds: int, console: Console, stop: Stop) -> dict[str, Any]:
    """Measure, and return all that is known of it."""
    # Before minutes of work: whether everything is here.
    load = os.getloadavg()[0]
    clients = Clients.find()
    find_program("nginx", package="nginx")
    with (
        temporary_folder("zipfs-bench-", "www/mount") as folder,
        # Seldom: what draws takes time from what is measured.
        console.status("", refresh_per_second=2) as status,
    ):
        check_room(folder, size)
        library = folder / "library"
        status.update("Making the games …")
        archives = build(library, size, stop)
        options = ["--index", str(folder / "index.sqlite"), "--log-level", "warning"]
        mountpoint = folder / "www/mount"
        with mounted(library, mountpoint, workdir=folder, options=options) as mount:
            try:
                wait_ready(mount, check=stop.check)
                status.update("Waiting for the checksums …")
                _wait_until_sealed(mount, [mountpoint / path for path in archives], stop)
                status.update("Copying the archives out of the mount, and comparing …")
                copied = [copy_out(library, path, mountpoint, stop) for path in archives]
                results = _measure(mount, copied, rounds, clients, status, stop)
                settings = _settings(mountpoint, rounds, copied, stop)
            except (BenchError, OSError):
                mount.check()  # if it has ended, that is the reason
                raise
    settings["load_before"] = load
    return {**settings, "results": [_as_dict(result) for result in results]}


def _measure(
    mount: Mount,
    archives: Sequence[Archive],
    rounds: int,
    clients: Clients,
    status: Status,
    stop: Stop,
) -> list[Result]:
    big, small = archives
    root = mount.mountpoint.parent
    # One server for both: the same workers, the same settings. It ends before the mount, as it
    # holds files of it open.
    with nginx(root, workdir=root.parent) as server:
        bench = Bench(
            clients=clients,
            stop=stop,
            url=lambda path: server.url_of(path.relative_to(root)),
            daemon=mount.process.pid,
        )
        todo = cases(big, small)
        results = [Result(case=case) for case in todo]
        for number, case in bench.rounds(todo, rounds, results):
            mount.check()
            label = f"Round {number} of {rounds}" if number else "Warming up"
            status.update(f"{label}: {case.what} …")
    return results


def _wait_until_sealed(mount: Mount, archives: Sequence[Path], stop: Stop) -> None:
    deadline = time.monotonic() + SEAL_SECONDS
    while missing := [path for path in archives if not path.exists()]:
        stop.check()
        mount.check()
        if time.monotonic() > deadline:
            names = ", ".join(path.name for path in missing)
            raise BenchError(f"not sealed after {SEAL_SECONDS:.0f} s: {names}")
        mount.wait(0.1)


def _settings(
    mountpoint: Path, rounds: int, archives: Sequence[Archive], stop: Stop
) -> dict[str, Any]:
    device = mountpoint.stat().st_dev
    read_ahead = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    # nginx tells its version on standard error only.
    nginx_version = stop.run(
        "sh", "-c", 'exec "$0" -v 2>&1', find_program("nginx", package="nginx")
    )
    return {
        "versions": {
            "zipfs": version("zipfs"),
            "python": platform.python_version(),
            "pyfuse3": version("pyfuse3"),
            "nginx": nginx_version.strip().rpartition("/")[2],
            "linux": platform.release(),
        },
        "cpus": len(os.sched_getaffinity(0)),
        "rounds": rounds,
        "connections": CONNECTIONS,
        "read_ahead_kib": int(read_ahead.read_text()),
        "archives": {archive.name: archive.size for archive in archives},
    }


def _as_dict(result: Result) -> dict[str, Any]:
    case = result.case
    return {
        "key": case.key,
        "what": case.what,
        "archive": case.archive.name,
        "first_touch": case.first_touch,
        "unit": case.unit,
        "ratio": _spread(result.ratio),
        "zipfs": _spread(Spread(samples=tuple(result.zipfs))),
        "plain": _spread(Spread(samples=tuple(result.plain))),
        "cpu_seconds_per_gb": _spread(Spread(samples=tuple(result.cpu))),
    }


def _spread(spread: Spread) -> dict[str, Any]:
    return {
        "median": spread.median,
        "min": spread.low,
        "max": spread.high,
        "samples": spread.samples,
    }


def _tables(measured: dict[str, Any]) -> Iterator[Table | str]:
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("nginx sends", no_wrap=True)
    for name in ("ratio", "min-max", "zipfs", "stored"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in measured["results"]:
        ratio = row["ratio"]
        table.add_row(
            row["what"],
            f"{ratio['median']:.2f}",
            f"{ratio['min']:.2f}-{ratio['max']:.2f}",
            f"{row['zipfs']['median']:,.0f}",
            f"{row['plain']['median']:,.0f}",
            row["unit"],
        )
    for row in measured["results"]:
        # Per range it would be a multiple that nobody can compare with anything.
        if row["first_touch"] and row["unit"] == RATE:
            cpu = row["cpu_seconds_per_gb"]
            table.add_row(
                f"{row['what']}, CPU",
                "",
                f"{cpu['min']:.2f}-{cpu['max']:.2f}",
                f"{cpu['median']:.2f}",
                "",
                "s/GB",
            )
    yield table
    sizes = " and ".join(f"{size / GB:.1f} GB" for size in measured["archives"].values())
    yield (
        f"ratio: zipfs to the same archive stored as a plain file, by the same nginx, one\n"
        f"just after the other; medians of {measured['rounds']} rounds. Archives of {sizes},\n"
        f"{measured['connections']} connections for ranges, {measured['cpus']} CPUs,"
        f" read-ahead {measured['read_ahead_kib']} KiB."
    )
    yield ", ".join(f"{name} {number}" for name, number in measured["versions"].items())
    if measured["load_before"] > measured["cpus"] / 2:
        load = measured["load_before"]
        yield f"The machine had other work (load {load:.1f} at the start): look at the spread."


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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to it as well")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    stop = Stop()
    console = Console()
    try:
        measured = _run(arguments.size * MIB, arguments.rounds, console, stop)
        for part in _tables(measured):
            console.print(part, highlight=False, soft_wrap=isinstance(part, str))
        if arguments.json:
            arguments.json.write_text(json.dumps(measured, indent=2) + "\n")
    except StoppedError as stopped:
        return 128 + stopped.number
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"bench: {error.filename or 'error'}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
