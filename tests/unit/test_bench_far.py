"""What `make bench-far` tells: tables with calls counted, beside an older run, and plots."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import readme
from bench.far.plots import draw
from bench.far.report import brief, markdown, tables
from bench.far.results import FILES, FarResults, Part
from bench.peers.slowfs import Calls
from bench.speed.results import STORED, ZIPFS, About, Row, Series, Spread

KINDS = {"small": "1,500 files of 40 KB", "large": "2 files of 30 MB"}


def series(*values: float, **calls: float) -> Series:
    return Series(
        value=Spread(samples=values), sent=1e9, own_cpu=1, all_cpu=1, written=0, calls=calls
    )


def part(kind: str, wait: float, *rates: float, names: bool = True) -> Part:
    row = Row(
        key="first",
        what="first download",
        unit="MB/s",
        series={
            ZIPFS: series(*rates, stat=1.04, open=1, read=2, readdir=0.1),
            STORED: series(*(100 for _ in rates)),
            FILES: series(*(10 for _ in rates)),
        },
    )
    return Part(kind=kind, what=KINDS[kind], files=2, size=3, wait=wait, names=names, rows=[row])


def found(*parts: Part) -> FarResults:
    return FarResults(
        date="2026-01-02",
        seconds=3,
        rounds=3,
        cpus=2,
        linux="6.1",
        load_before=0.25,
        load_after=1.5,
        about={"source": About(name="a source", version="slowfs.c", settings="64 calls at once")},
        parts=list(parts),
        left_out=["something"],
    )


FIGURES = found(
    part("small", 0.2, 80), part("small", 1, 20, 50, 40), part("small", 1, 5, names=False)
)


def test_a_line_for_each_source() -> None:
    assert markdown(FIGURES).splitlines()[:5] == [
        "| 1,500 files of 40 KB | zipfs | calls a file | to stored | to file by file |",
        "|---|--:|--:|--:|--:|",
        "| 0.2 ms: first download | 80.0 MB/s | 4.1 (1.0 1.0 2.0) | 0.80 | 8.00 |",
        "| 1 ms: first download | 40.0 MB/s | 4.1 (1.0 1.0 2.0) | 0.40 | 4.00 |",
        "| 1 ms, uncached: first download | 5.00 MB/s | 4.1 (1.0 1.0 2.0) | 0.05 | 0.50 |",
    ]
    assert "with a load of 0.2 before and 1.5 after" in " ".join(markdown(FIGURES).split())


def test_what_was_before_stands_beside() -> None:
    text = markdown(FIGURES, found(part("small", 1, 17)))
    lines = [line.split(" | ")[:3] for line in text.splitlines()[:5]]
    assert [line[2] for line in (lines[0], *lines[2:])] == ["before", "", "17.0 MB/s", ""]


def test_readme_has_the_first_downloads_alone() -> None:
    results = found(*FIGURES.parts, part("large", 10, 90), part("large", 0.2, 95))
    assert brief(results).splitlines() == [
        "| first download | zipfs | to stored | to file by file | to cp -r |",
        "|---|--:|--:|--:|--:|",
        "| 1,500 files of 40 KB, 1 ms a call | 40.0 MB/s | 0.40 | 4.00 |  |",
        "| 2 files of 30 MB, 10 ms a call | 90.0 MB/s | 0.90 | 9.00 |  |",
        "",
        "Medians of 2026-01-02, 2 CPUs, with a load of 0.2 before and 1.5 after.",
    ]


def test_a_terminal_is_told_what_was_left_out() -> None:
    assert "Left out: something" in list(tables(FIGURES))


def test_a_plot_for_what_was_measured_at_several_waits(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")  # of the extra `bench`
    drawn = draw(found(*FIGURES.parts, part("large", 10, 90)), tmp_path)
    assert [path.name for path in drawn] == ["far-small.svg"]
    text = drawn[0].read_text()
    assert "zipfs" in text
    assert "file by file" in text


def test_calls_are_counted_by_differences() -> None:
    difference = Calls(stat=5, open=3, read=9) - Calls(stat=1, open=3)
    assert difference == Calls(stat=4, read=9)
    assert difference.total == 13
    assert Calls.all(7).values() == (7,) * 7


def test_the_documents_show_the_results() -> None:
    """What they say was measured, all of it, and nothing by hand."""
    results = FarResults.model_validate_json(readme.FAR.read_text())
    for file, table in (
        (readme.README, brief(results)),
        (readme.FIGURES, markdown(results, readme.before())),
    ):
        text = file.read_text()
        assert readme.replaced(text, table, readme.BEGIN_FAR) == text, "run: python -m bench.readme"
