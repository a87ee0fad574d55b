"""Throughput over latency, beside the stored file and all others: SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.far.results import PEERS, FarResults, Part
from bench.plotting import load_pyplot
from bench.speed.plots import COLOURS, STYLE
from bench.speed.results import ZIPFS

NAMES: Final = {ZIPFS: "zipfs", **PEERS}
KEY: Final = "first"


def draw(results: FarResults, folder: Path) -> list[Path]:
    """Draw a plot for each kind of which more than one wait was measured; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for kind in dict.fromkeys(part.kind for part in results.parts):
        parts = [part for part in results.some(kind) if part.row(KEY)]
        if len(parts) > 1:
            path = folder / f"far-{kind}.svg"
            _draw(path, parts)
            drawn.append(path)
    return drawn


def _draw(path: Path, parts: Sequence[Part]) -> None:
    pyplot = load_pyplot()
    with pyplot.rc_context({**STYLE, "axes.spines.left": True, "ytick.left": True}):
        figure, axis = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
        for who, name in NAMES.items():
            points = [
                (part.wait, row.series[who].value.median)
                for part in parts
                if (row := part.row(KEY)) and who in row.series
            ]
            if points:
                waits, rates = zip(*points, strict=True)
                width = 2.2 if who == ZIPFS else 1.1
                axis.plot(
                    waits,
                    rates,
                    marker="o",
                    markersize=3,
                    label=name,
                    linewidth=width,
                    color=COLOURS.get(who),
                )
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks([part.wait for part in parts], [f"{part.wait:g}" for part in parts])
        axis.minorticks_off()
        axis.set_xlabel("milliseconds of each call")
        axis.set_ylabel("MB/s")
        axis.set_title(f"First download, {parts[0].what}")
        axis.grid(visible=True, alpha=0.3)
        axis.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
