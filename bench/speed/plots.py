"""The results as pictures: SVG, the same plain style for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.plotting import load_pyplot
from bench.speed.reach import number
from bench.speed.results import PEERS, PROVING, ZIPFS, Results, Row, Series, Spread

GB: Final = 1e9
NAMES: Final = {ZIPFS: "zipfs", PROVING: "zipfs, proving", **PEERS}
COLOURS: Final = {ZIPFS: "#1f5fa8"}
GREY: Final = "#b4b9c0"
STYLE: Final = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.left": False,
    # Text stays text: small files that can be searched. And the same results give the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "zipfs",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Bars:
    """A group of bars, one for each that was measured."""

    title: str
    values: dict[str, Spread]


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw all plots for which there are figures; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, unit, groups, logarithmic in _plots(results):
        if groups := [group for group in groups if group.values]:
            path = folder / f"{name}.svg"
            _draw(path, unit, groups, logarithmic)
            drawn.append(path)
    return drawn


def _plots(results: Results) -> Iterator[tuple[str, str, list[Bars], bool]]:
    def rows(unit: str) -> list[Bars]:
        return [_bars(row) for row in results.rows if row.unit == unit]

    def of_first(what: str, value: Callable[[Series], float]) -> list[Bars]:
        row = results.row("first")
        series = row.series if row else {}
        values = {who: Spread(samples=(value(one),)) for who, one in series.items() if one.sent}
        return [Bars(title=what, values=values)]

    yield "throughput", "MB/s", rows("MB/s"), False
    yield "requests", "requests per second", rows("/s"), False
    yield "first-byte", "milliseconds, logarithmic", rows("ms"), True
    cpu = of_first("first download", lambda one: one.all_cpu / one.sent * GB)
    yield "cpu", "CPU seconds per GB, web server included", cpu, False
    written = of_first("first download", lambda one: one.written / 1e6 / one.sent * GB)
    yield "written", "MB written to disk per GB sent", written, False
    memory = {who: Spread(samples=(size / 1e6,)) for who, size in results.memory.items()}
    yield "memory", "MB of memory at most", [Bars(title="", values=memory)], False


def _bars(row: Row) -> Bars:
    return Bars(title=row.what, values={who: one.value for who, one in row.series.items()})


def _draw(path: Path, unit: str, groups: Sequence[Bars], logarithmic: bool) -> None:
    pyplot = load_pyplot()
    heights = [len(group.values) + 1 for group in groups]
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            len(groups),
            figsize=(6.4, 0.24 * sum(heights) + 0.5),
            gridspec_kw={"height_ratios": heights},
            sharex=True,
            squeeze=False,
            layout="constrained",
        )
        for group, (axis,) in zip(groups, axes, strict=True):
            _draw_group(axis, group, logarithmic)
        axes[-1][0].set_xlabel(unit)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


def _draw_group(axis: Any, group: Bars, logarithmic: bool) -> None:
    order = [*(who for who in NAMES if who in group.values), *(group.values.keys() - NAMES.keys())]
    spreads = [group.values[who] for who in order]
    medians = [spread.median for spread in spreads]
    axis.barh(
        [NAMES.get(who, who) for who in order],
        medians,
        height=0.7,
        color=[COLOURS.get(who, GREY) for who in order],
        # From the lowest to the highest that was seen.
        xerr=(
            [spread.median - spread.low for spread in spreads],
            [spread.high - spread.median for spread in spreads],
        ),
        error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
    )
    axis.bar_label(axis.containers[-1], [f" {number(median)}" for median in medians], fontsize=8)
    axis.set_title(group.title)
    axis.invert_yaxis()
    if logarithmic:
        axis.set_xscale("log")
