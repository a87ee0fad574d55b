"""The results as tables, on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from textwrap import wrap
from typing import Final

from rich.box import SIMPLE
from rich.table import Table

from bench.speed.reach import number
from bench.speed.results import (
    BINDFS,
    BUILT,
    COPIED,
    NULLFS,
    PEERS,
    PROVING,
    ROMM_STREAMED,
    STORED,
    STREAMED,
    ZIPFS,
    Results,
    Row,
    Series,
    Spread,
)

GB: Final = 1e9
_WIDTH: Final = 80
"""Columns of what isn't a table."""
MET: Final = {True: "met", False: "NOT MET", None: "?"}
ROMM: Final = {ZIPFS: "from zipfs", ROMM_STREAMED: "while sending", COPIED: "copied first"}
"""In the order of the columns of RomM's table."""
PROOFS: Final = ("trusting", "proving", "proving to trusting", "CPU s/GB", "CPU s/GB, proving")
_FIGURES: Final[dict[str, Callable[[Series], str]]] = {
    "CPU s/GB, server included": lambda one: f"{one.all_cpu / one.sent * GB:.2f}",
    "CPU s/GB, without": lambda one: f"{one.own_cpu / one.sent * GB:.2f}",
    "MB written to disk per GB": lambda one: f"{one.written / 1e6 / one.sent * GB:,.0f}",
}


def tables(results: Results) -> Iterator[Table | str]:
    """All that there is to say, in parts."""
    yield _comparison(results)
    sizes = " and ".join(f"{size / GB:.1f} GB" for size in results.archives.values())
    yield (
        "Ratios of zipfs to the others, each of two that were measured one just after the\n"
        f"other: medians of {results.rounds} rounds or, where it takes long, 3; below them the"
        f" lowest\nand the highest. Archives of {sizes}, {results.connections} connections for"
        f" ranges,\n{results.cpus} CPUs. Where the unit is ms, less is better."
    )
    yield _use(results)
    for first, columns, found in (
        ("--prove always", PROOFS, proving_rows(results)),
        ("RomM", tuple(ROMM.values()), romm_rows(results)),
    ):
        if found:
            table = _table(first, *columns)
            for what, cells in found:
                table.add_row(what, *cells)
            yield table
    for row in results.rows:
        if row.note:
            yield f"{row.what}: {row.note}"
    yield "\n".join(
        f"{about.name}: {about.version}\n    {about.settings}" for about in results.about.values()
    )
    for line in results.left_out:
        yield f"Left out: {line}"
    if results.reach:
        yield _reach(results)
    if limit := fuse_limit(results):
        yield limit
    if results.load_before > results.cpus / 2:
        yield (
            f"The machine had other work (load {results.load_before:.1f} at the start):"
            " look at the spread."
        )


def _comparison(results: Results) -> Table:
    table = _table("", "zipfs", "", *PEERS.values())
    for row in compared(results):
        value = row.series[ZIPFS].value
        ratios = (row.ratio(peer) for peer in PEERS)
        table.add_row(row.what, number(value.median), row.unit, *map(_cell, ratios))
    return table


def compared(results: Results) -> Iterator[Row]:
    """Those rows that have a peer to compare with."""
    return (row for row in results.rows if ZIPFS in row.series and row.series.keys() & PEERS)


def _cell(ratio: Spread | None) -> str:
    if ratio is None:
        return ""
    return f"{number(ratio.median)}\n{number(ratio.low)}-{number(ratio.high)}"


def fuse_limit(results: Results) -> str:
    """What no file system in user space can exceed here, whatever it is written in."""
    row = results.row("first")
    ratio = row.ratio(STORED, of=NULLFS) if row else None
    if ratio is None:
        return ""
    return (
        "FUSE itself (bench/peers/nullfs.c, which reads nothing to answer) gives a first download"
        f" {number(ratio.median)} ({_range(ratio)}) of a stored file's speed."
    )


def _use(results: Results) -> Table:
    """What a first download takes, by whom."""
    table = _table("a first download takes", "zipfs", *PEERS.values())
    row = results.row("first")
    names = (ZIPFS, *PEERS)
    if row:
        shown = {who: row.series.get(who) for who in names}
        for what, text in _FIGURES.items():
            table.add_row(what, *(text(one) if one and one.sent else "" for one in shown.values()))
    memory = (results.memory.get(who) for who in names)
    table.add_row("MB of memory at most", *(f"{one / 1e6:,.0f}" if one else "" for one in memory))
    return table


def romm_rows(results: Results) -> list[tuple[str, list[str]]]:
    """What RomM's downloads take in each way, in the order of :data:`ROMM`; empty if unmeasured."""
    found = []
    first, whole = results.row("romm-first-byte"), results.row("romm-download")
    for row in (first, whole):
        if row:
            values = (row.series.get(who) for who in ROMM)
            what = f"{row.what.removeprefix('RomM, ')}, {row.unit}"
            found.append((what, [_spread(one.value) if one else "" for one in values]))
    if whole:
        for what, text in _FIGURES.items():
            series = (whole.series.get(who) for who in ROMM)
            found.append((what, [text(one) if one and one.sent else "" for one in series]))
    return found


def proving_rows(results: Results) -> list[tuple[str, list[str]]]:
    """What it costs to prove each byte by its checksum, in the columns of :data:`PROOFS`."""
    found = []
    for row in results.rows:
        ratio = row.ratio(ZIPFS, of=PROVING)
        if ratio is None:
            continue
        both = [row.series[who] for who in (ZIPFS, PROVING)]
        cells = [f"{number(one.value.median)} {row.unit}" for one in both]
        cells.append(_spread(ratio))
        cells += [f"{one.own_cpu / one.sent * GB:.2f}" if one.sent else "" for one in both]
        found.append((row.what, cells))
    return found


def _spread(value: Spread) -> str:
    return f"{number(value.median)} ({_range(value)})"


def _reach(results: Results) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("to be reached")
    for name in ("bar", "now", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for verdict in results.reach:
        style = "bold red" if verdict.met is False else None
        table.add_row(verdict.what, verdict.bar, verdict.value, MET[verdict.met], style=style)
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    return table


# ---------------------------------------------------------------- Markdown


_LIMITS: Final = (STORED, NULLFS, BINDFS)
"""What zipfs can't exceed, or what does as little; all other peers send a ZIP another way."""
_BRIEF: Final = ("first", "cached", "ranges-4k-cached", "ranges-4k-first", "resume")
_BRIEF_PEERS: Final = (STORED, STREAMED, BUILT)


def markdown(results: Results) -> str:
    """The manual's tables, narrow enough for a terminal, and what one has to know to read them."""
    limits = [peer for peer in PEERS if peer in _LIMITS]
    others = [peer for peer in PEERS if peer not in _LIMITS]
    tables = (
        *_markdown(results, limits),
        *_markdown(results, others),
        *_plain("`--prove always`", PROOFS, proving_rows(results)),
        *_plain("RomM", tuple(ROMM.values()), romm_rows(results)),
    )
    parts = (*tables, _footnote(results))
    return "\n\n".join(parts)


def brief(results: Results) -> str:
    """README's table: some rows, without the spread."""
    rows = [row for row in compared(results) if row.key in _BRIEF]
    peers = [peer for peer in _BRIEF_PEERS if any(peer in row.series for row in rows)]
    lines = _header(peers)
    for row in rows:
        ratios = (row.ratio(peer) for peer in peers)
        lines.append(_line(row, (number(one.median) if one else "" for one in ratios)))
    note = (
        f"Medians of {results.date}, {results.cpus} CPUs, Linux {results.linux}. The ratios are of"
        " zipfs to the other. Where the unit is ms, less is better."
    )
    return "\n".join([*lines, "", *wrap(note, _WIDTH)])


def _markdown(results: Results, peers: Collection[str]) -> list[str]:
    """One table against those of *peers* that were measured, if there are any."""
    rows = [row for row in compared(results) if row.series.keys() & set(peers)]
    there = [peer for peer in peers if any(peer in row.series for row in rows)]
    if not there:
        return []
    lines = _header(there)
    for row in rows:
        ratios = (row.ratio(peer) for peer in there)
        lines.append(
            _line(row, (f"{number(one.median)} ({_range(one)})" if one else "" for one in ratios))
        )
    return ["\n".join(lines)]


def _plain(
    first: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]
) -> list[str]:
    """A table of its own, if there is anything in it."""
    if not rows:
        return []
    lines = [f"| {first} | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
    lines += [f"| {what} | {' | '.join(cells)} |" for what, cells in rows]
    return ["\n".join(lines)]


def _header(peers: Collection[str]) -> list[str]:
    return [
        f"| | zipfs | {' | '.join(f'to {PEERS[peer]}' for peer in peers)} |",
        f"|---|--:|{'--:|' * len(peers)}",
    ]


def _line(row: Row, cells: Iterable[str]) -> str:
    value = f"{number(row.series[ZIPFS].value.median)} {row.unit}"
    return f"| {row.what} | {value} | {' | '.join(cells)} |"


def _range(ratio: Spread) -> str:
    return f"{number(ratio.low)}–{number(ratio.high)}"  # noqa: RUF001  # as typography has it


def _footnote(results: Results) -> str:
    sizes = " and ".join(f"{size / GB:.1f} GB" for size in results.archives.values())
    versions = "; ".join(f"{about.name}: {about.version}" for about in results.about.values())
    stored = "" if STORED not in results.about else " Where the unit is ms, less is better."
    limit = f"{fuse_limit(results)} ".lstrip()
    text = (
        f"Medians (min–max) of up to {results.rounds} rounds on {results.date}, archives of"  # noqa: RUF001
        f" {sizes}, {results.cpus} CPUs, Linux {results.linux}.{stored} {limit}{versions}."
    )
    return "\n".join(wrap(text, _WIDTH, break_on_hyphens=False))
