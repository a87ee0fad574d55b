"""The results as tables, on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Final

from rich.box import SIMPLE
from rich.table import Table

from bench.far.results import COPY, FILES, PEERS, FarResults, Part
from bench.speed.reach import number
from bench.speed.results import STORED, ZIPFS, Row


def tables(results: FarResults) -> Iterator[Table | str]:
    """All that there is to say, in parts."""
    for part in results.parts:
        peers = _peers([part])
        table = Table(box=SIMPLE, pad_edge=False, title=title(part), title_justify="left")
        table.add_column("", no_wrap=True)
        for name in ("zipfs", "", "calls a file", *(PEERS[peer] for peer in peers)):
            table.add_column(name, justify="right", no_wrap=True)
        for row in part.rows:
            value = number(row.series[ZIPFS].value.median)
            table.add_row(row.what, value, row.unit, calls(row), *_ratios(row, peers))
        yield table
    yield (
        "Ratios of zipfs to the others, each of two that were measured one just after the other."
        " Where the unit\nis s, less is better. Calls a file: all, and those for stat, open, read."
    )
    yield "\n".join(
        f"{about.name}: {about.version}\n    {about.settings}" for about in results.about.values()
    )
    for line in results.left_out:
        yield f"Left out: {line}"
    yield _load(results)


def _load(results: FarResults) -> str:
    return (
        f"{results.cpus} CPUs, with a load of {results.load_before:.1f} before and"
        f" {results.load_after:.1f} after"
    )


def title(part: Part) -> str:
    names = "" if part.names else ", names not cached"
    return f"{part.what}, {part.wait:g} ms a call{names}"


def calls(row: Row, who: str = ZIPFS) -> str:
    """All that each file took, and the most usual kinds of them."""
    kinds = row.series[who].calls
    some = " ".join(f"{kinds.get(kind, 0):.1f}" for kind in ("stat", "open", "read"))
    return f"{sum(kinds.values()):.1f} ({some})"


def _peers(parts: Sequence[Part]) -> list[str]:
    there = {who for part in parts for row in part.rows for who in row.series}
    return [peer for peer in PEERS if peer in there]


def _ratios(row: Row, peers: Sequence[str]) -> Iterator[str]:
    for peer in peers:
        ratio = row.ratio(peer)
        yield number(ratio.median) if ratio else ""


# ---------------------------------------------------------------- Markdown


_WIDTH: Final = 80
_BRIEF_PEERS: Final = (STORED, FILES, COPY)
_BRIEF: Final = (("small", 1.0), ("large", 1.0), ("large", 10.0))


def markdown(results: FarResults, before: FarResults | None = None) -> str:
    """The manual's tables, one for each kind; *before*: an older run, to compare with."""
    kinds = list(dict.fromkeys(part.kind for part in results.parts))
    tables = []
    for kind in kinds:
        parts = [part for part in results.parts if part.kind == kind]
        peers = _peers(parts)
        columns = ["zipfs", *(["before"] if before else []), "calls a file"]
        columns += [f"to {PEERS[peer]}" for peer in peers]
        lines = [f"| {parts[0].what} | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
        for part in parts:
            older = before.part(kind, part.wait, names=part.names) if before else None
            lines += (_line(part, row, peers, older, told=before is not None) for row in part.rows)
        tables.append("\n".join(lines))
    return "\n\n".join([*tables, _footnote(results)])


def brief(results: FarResults) -> str:
    """README's table: first downloads alone."""
    columns = ["first download", "zipfs", *(f"to {PEERS[peer]}" for peer in _BRIEF_PEERS)]
    lines = [f"| {' | '.join(columns)} |", f"|---|{'--:|' * (len(columns) - 1)}"]
    for kind, wait in _BRIEF:
        part = results.part(kind, wait)
        row = part.row("first") if part else None
        if part and row:
            cells = [_value(row), *_ratios(row, _BRIEF_PEERS)]
            lines.append(f"| {title(part)} | {' | '.join(cells)} |")
    note = f"Medians of {results.date}, {_load(results)}."
    return "\n".join([*lines, "", *wrap(note, _WIDTH)])


def _line(part: Part, row: Row, peers: Sequence[str], older: Part | None, *, told: bool) -> str:
    names = "" if part.names else ", uncached"
    cells = [_value(row)]
    if told:
        was = older.row(row.key) if older else None
        cells.append(_value(was) if was else "")
    cells += [calls(row), *_ratios(row, peers)]
    return f"| {part.wait:g} ms{names}: {row.what} | {' | '.join(cells)} |"


def _value(row: Row) -> str:
    return f"{number(row.series[ZIPFS].value.median)} {row.unit}"


def _footnote(results: FarResults) -> str:
    source = results.about["source"]
    text = (
        f"Medians of up to {results.rounds} rounds on {results.date}, Linux {results.linux},"
        f" {_load(results)}. The ratios are of zipfs to the other; where the unit is s, less is"
        f" better. Calls a file: all, and in parentheses those for stat, open and read. The source:"
        f" {source.version}; {source.settings}; *uncached*: names aren't kept."
    )
    return "\n".join(wrap(text, _WIDTH, break_on_hyphens=False))
