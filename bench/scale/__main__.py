"""`make bench-scale`: what very many games, members and clients cost, and how it grows.

Libraries of tiny files, made in a temporary folder and taken away in the end: 100,000 games of
10 files, one game of 100,000 members, a platform of 20,000 games. Ctrl-C ends it as well.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench.process import find_program
from bench.scale.growth import plot
from bench.scale.many import check_room
from bench.scale.parts import PARTS
from bench.scale.run import FILES, FULL, QUICK, Scale, Sizes
from bench.session import Stop, ended, temporary_folder


def _run(sizes: Sizes, parts: Sequence[str], console: Console, stop: Stop) -> Scale:
    find_program("nginx", package="nginx")
    find_program("bindfs", package="bindfs")
    with (
        temporary_folder("zipfs-scale-") as folder,
        console.status("", refresh_per_second=2) as status,
    ):
        (folder / "www/mount").mkdir(parents=True)
        check_room(folder, sizes.games * FILES * 10 // 9, sizes.games * 10 // 9)
        scale = Scale(folder=folder, sizes=sizes, stop=stop, status=status)
        for part in parts:
            PARTS[part](scale)
        status.update("Taking everything away …")
    return scale


def _tables(scale: Scale) -> Iterator[Table]:
    table = Table("", box=SIMPLE, pad_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("bar", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in scale.rows:
        met = "" if row.met is None else "met" if row.met else "MISSED"
        table.add_row(row.what, row.value, row.bar, met)
    yield table
    table = Table("cost", "against", box=SIMPLE, pad_edge=False)
    for name in ("smallest", "largest", "slope"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for series in scale.growth:
        (size, cost), (last_size, last_cost) = series.points[0], series.points[-1]
        table.add_row(
            series.cost,
            series.what,
            f"{size:,.0f}: {cost:.3g} {series.unit}",
            f"{last_size:,.0f}: {last_cost:.3g} {series.unit}",
            "" if series.slope is None else f"{series.slope:.2f}",
            series.verdict,
        )
    yield table


def _as_json(scale: Scale, load: float) -> dict[str, Any]:
    growth = [
        {**asdict(series), "slope": series.slope, "verdict": series.verdict}
        for series in scale.growth
    ]
    rows = [asdict(row) for row in scale.rows]
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "load_before": load,
        "sizes": asdict(scale.sizes),
        "results": rows,
        "growth": growth,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="this part alone; repeatable"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to it as well")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write plots (SVG) into it")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    stop = Stop()
    # Wide enough for the tables, also where there is no terminal.
    console = Console(width=None if sys.stdout.isatty() else 130)
    load = os.getloadavg()[0]
    with ended() as end:
        sizes = QUICK if arguments.quick else FULL
        scale = _run(sizes, arguments.only or list(PARTS), console, stop)
        for table in _tables(scale):
            console.print(table, highlight=False)
        console.print(
            f"Slopes are those of the logarithms, over the largest sizes. Load {load:.1f}."
        )
        if arguments.json:
            arguments.json.write_text(json.dumps(_as_json(scale, load), indent=2) + "\n")
        if arguments.plots:
            for path in plot(scale.growth, arguments.plots):
                console.print(str(path), highlight=False)
    return end.status


if __name__ == "__main__":
    sys.exit(main())
