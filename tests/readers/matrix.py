"""The matrix: all readers times all cases, run two at a time, and printed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.readers.corpus import Case
from tests.readers.gate import SAMPLED, Reader, check
from tests.readers.programs import RUNNING
from tests.readers.shelf import Volume
from tests.support.mounting import temporary_folder

AT_A_TIME: Final = 2

Verdict = Literal["pass", "partly", "limit", "failure"]
MARKS: Final[Mapping[Verdict, str]] = {
    "pass": "[green]✓[/]",
    "partly": "[green]·[/]",
    "limit": "[yellow]L[/]",
    "failure": "[bold red]F[/]",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """What one reader made of one case."""

    reader: Reader
    case: Case
    verdict: Verdict
    said: str
    seconds: float


def run_cell(reader: Reader, volume: Volume) -> Cell:
    began = time.monotonic()
    said = ""
    verdict: Verdict
    try:
        with temporary_folder(in_memory=True) as place:
            complete = check(reader, volume.case, volume.archive, place, volume.source)
        verdict = "pass" if complete else "partly"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the reader's verdict
        said = f"{type(error).__name__}: {error}"
        verdict = "limit" if volume.case.name in reader.limits else "failure"
    return Cell(reader, volume.case, verdict, said, time.monotonic() - began)


def run_cells(
    readers: Sequence[Reader], volumes: Sequence[Volume], done: Callable[[Cell], None]
) -> None:
    """All of them; *done* gets each. An interruption kills what runs."""
    # Case by case, because what was read once is in the kernel's cache; the longest first.
    order = sorted(volumes, key=lambda volume: not volume.case.heavy)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        try:
            for cell in pool.map(
                lambda pair: run_cell(*pair), [(r, v) for v in order for r in readers]
            ):
                done(cell)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            RUNNING.end()
            raise


# ------------------------------------------------------------------------ printing


def versions(readers: Sequence[Reader]) -> dict[str, str | None]:
    """Which version of each is here, by name; None: it is missing."""

    def of(reader: Reader) -> str | None:
        try:
            return reader.version()
        except Exception:  # noqa: BLE001 - each reader has its own way of not being there
            return None

    return {reader.name: of(reader) for reader in readers}


def print_matrix(console: Console, cells: Sequence[Cell], known: Mapping[str, str | None]) -> None:
    """Readers as rows; cases as columns that bear their numbers, in groups of ten."""
    cases = list(dict.fromkeys(cell.case for cell in cells))
    by_place = {(cell.reader.name, cell.case.name): cell for cell in cells}
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="")
    table.add_column("reader", no_wrap=True)
    table.add_column("version", no_wrap=True, max_width=14)
    columns = [str(number) for number in range(1, len(cases) + 1)]
    groups = [slice(first, first + 10) for first in range(0, len(cases), 10)]
    for group in groups:
        table.add_column(" ".join(f"{column[-1]}" for column in columns[group]), no_wrap=True)
    tens = [f"{columns[group][0]}-{columns[group][-1]}" for group in groups]
    table.add_row("", "", *(f"[dim]{text}[/]" for text in tens))
    for name, version in known.items():
        if version is None:
            marks = ["[bold red]missing[/]", *[""] * (len(groups) - 1)]
        else:
            marks = [
                " ".join(
                    MARKS[by_place[name, case.name].verdict]
                    if (name, case.name) in by_place
                    else " "
                    for case in cases[group]
                )
                for group in groups
            ]
        table.add_row(escape(name), f"[dim]{escape(version or '')}[/]", *marks)
    console.print(table)
    console.print()
    _print_cases(console, cases)
    console.print(
        f"\n{MARKS['pass']} names, sizes and SHA-256 of all content   "
        f"{MARKS['partly']} the same, of what this reader claims (below)   "
        f"{MARKS['limit']} a limit of the reader (below)   {MARKS['failure']} a failure"
    )


def _print_cases(console: Console, cases: Sequence[Case]) -> None:
    columns = 5
    grid = Table.grid(padding=(0, 3, 0, 0))
    labels = [f"[dim]{n:2}[/] {escape(case.name)}" for n, case in enumerate(cases, 1)]
    rows = -(-len(labels) // columns)
    for row in range(rows):
        grid.add_row(*(labels[i] for i in range(row, len(labels), rows)))
    console.print(grid)


def print_notes(console: Console, cells: Sequence[Cell]) -> None:
    """What readers leave out, and which limits they have, each with its reason."""
    partly = {cell.reader.name: _claim(cell.reader) for cell in cells if cell.verdict == "partly"}
    if partly:
        console.print("\n[bold]Claims[/]")
        for name, claim in partly.items():
            console.print(f"  {escape(name)}: {claim}", highlight=False)
    limits: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if cell.verdict == "limit":
            reason = cell.reader.limits[cell.case.name]
            limits.setdefault((cell.reader.name, reason), []).append(cell.case.name)
    if limits:
        console.print("\n[bold]Limits[/]")
        for (name, reason), cases in sorted(limits.items()):
            text = f"  {escape(name)}: {escape(reason)} [dim]({escape(', '.join(cases))})[/]"
            console.print(text, highlight=False)


def _claim(reader: Reader) -> str:
    if reader.first_only:
        return "reads the first member, no other"
    if reader.sizes_only_above == -1:
        return "lists names and sizes, reads no content"
    mib = (reader.sizes_only_above or 0) + 1 >> 20
    claim = f"of members of {mib} MiB and more only names and sizes, since it is slow"
    if reader.samples:
        claim += f"; of more than {SAMPLED:,} members the content of one in a hundred"
    return claim


def print_failures(
    console: Console, cells: Sequence[Cell], known: Mapping[str, str | None]
) -> None:
    for name, version in known.items():
        if version is None:
            console.print(f"[bold red]{escape(name)} is not installed[/]: make readers")
    for cell in cells:
        if cell.verdict == "failure":
            console.print(f"[bold red]{escape(cell.reader.name)}, {escape(cell.case.name)}[/]")
            console.print(f"    {escape(cell.said[:2000])}", highlight=False)


def summary(cells: Sequence[Cell], known: Mapping[str, str | None]) -> str:
    counts = Counter(cell.verdict for cell in cells)
    missing = sum(version is None for version in known.values())
    return (
        f"{len(known) - missing} readers x {len({cell.case.name for cell in cells})} cases: "
        f"{counts['pass'] + counts['partly']} pass, {counts['limit']} documented limits, "
        f"{counts['failure']} failures" + (f", {missing} readers missing" if missing else "")
    )
