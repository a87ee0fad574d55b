"""``make readers``: every reader times every case, through real mounts, as a matrix.

The exit status is 1 if a reader is missing or finds something else than what is in a folder,
unless it is a documented limit of that reader, or if nothing can be mounted here.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from tests.readers import matrix
from tests.readers.corpus import CASES, Case
from tests.readers.gate import Reader, wanted
from tests.readers.registry import READERS
from tests.readers.shelf import shelved
from tests.support.mounting import MARKER, fuse_missing, sweep

WIDTH = 130
"""Columns where no terminal says how many it has."""


def _chosen(arguments: argparse.Namespace) -> tuple[list[Reader], list[Case]]:
    readers = [
        reader
        for reader in READERS
        if (not arguments.light or not reader.heavy)
        and (
            not arguments.reader or any(w.lower() in reader.name.lower() for w in arguments.reader)
        )
    ]
    cases = [
        case
        for case in CASES
        if (not arguments.light or not case.heavy)
        and (not arguments.case or any(w.lower() in case.name.lower() for w in arguments.case))
    ]
    return readers, cases


def _run(
    console: Console, readers: Sequence[Reader], cases: Sequence[Case], *, verbose: bool
) -> tuple[list[matrix.Cell], str]:
    """All cells, and what was wrong with zipfs itself, if anything."""
    cells: list[matrix.Cell] = []
    text = TextColumn("{task.description}")
    with Progress(text, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("making the corpus, and waiting until all archives are sealed")

        def done(cell: matrix.Cell) -> None:
            cells.append(cell)
            what = f"{cell.reader.name}: {cell.case.name}"
            if verbose:
                said = f"{cell.seconds:6.1f} s {what}: {cell.verdict} {cell.said}"
                console.print(said, markup=False, highlight=False, soft_wrap=True)
            progress.update(task, description=f"{len(cells)} of {total}: {what}")

        # What has to be found is computed while zipfs reads the same.
        with ThreadPoolExecutor(1) as pool:
            hashed = pool.map(wanted, [case for case in cases if case.heavy])
            try:
                with shelved(cases) as volumes:
                    list(hashed)
                    total = len(readers) * len(volumes)
                    matrix.run_cells(readers, volumes, done)
            except AssertionError as error:  # a daemon that didn't end as it should, or its log
                return cells, str(error) or repr(error)
    return cells, ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.readers", description=__doc__)
    parser.add_argument("--reader", action="append", help="only those with this in their name")
    parser.add_argument("--case", action="append", help="only those with this in their name")
    parser.add_argument("--light", action="store_true", help="what `make test` has, and no giants")
    parser.add_argument("--verbose", action="store_true", help="tell of each cell when it is done")
    arguments = parser.parse_args()
    if missing := fuse_missing():
        sys.exit(f"no FUSE: {missing}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ[MARKER] = str(os.getpid())
    sweep()
    began = time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    readers, cases = _chosen(arguments)
    known = matrix.versions(readers)
    try:
        cells, wrong = _run(
            console,
            [reader for reader in readers if known[reader.name]],
            cases,
            verbose=arguments.verbose,
        )
    except KeyboardInterrupt:
        return 130
    matrix.print_matrix(console, cells, known)
    matrix.print_notes(console, cells)
    console.print()
    matrix.print_failures(console, cells, known)
    if wrong:
        console.print(f"[bold red]zipfs[/]: {escape(wrong)}", highlight=False)
    said = matrix.summary(cells, known)
    console.print(f"[bold]{said}[/] in {(time.monotonic() - began) / 60:.1f} min", highlight=False)
    bad = bool(wrong) or any(cell.verdict == "failure" for cell in cells) or None in known.values()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
