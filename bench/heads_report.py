"""What `make bench-heads` has found, for the manual: tables, and a plot of time over heads."""

from __future__ import annotations

import statistics
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from bench.plotting import load_pyplot
from bench.speed.plots import STYLE

_WIDTH: Final = 80
PLOT: Final = "heads.svg"


def shares(division: dict[str, Any]) -> list[tuple[int, float, float, float, float]]:
    """For each number of heads: that, the median, least and greatest seconds, and the share.

    The share is that of the time of the fewest heads, and should be 1, ½, ¼.
    """
    seconds = {int(heads): times for heads, times in division["seconds"].items()}
    alone = statistics.median(seconds[min(seconds)])
    return [
        (heads, median, min(times), max(times), median / alone)
        for heads, times in seconds.items()
        for median in (statistics.median(times),)
    ]


def markdown(results: dict[str, Any]) -> str:
    """The tables of the manual."""
    about = results["about"]
    parts = []
    if division := results.get("division"):
        lines = [
            "| heads | all is sealed on all of them after | of one head's time |",
            "|---|--:|--:|",
        ]
        lines += [
            f"| {heads} | {median:.1f} s ({least:.1f} to {most:.1f}) | {share:.2f} |"
            for heads, median, least, most, share in shares(division)
        ]
        rounds = len(next(iter(division["seconds"].values())))
        parts.append("\n".join(lines))
        parts.append(
            f"Heads that may each read {division['rate']:g} MiB a second, a library of"
            f" {division['size']:g} MiB in {division['files']} files; medians of {rounds} rounds on"
            f" {about['date']}, Linux {about['linux']}, {about['cpus']} CPUs, load"
            f" {about['load_before']:.1f} before."
        )
    if many := results.get("many"):
        parts.append(
            f"{many['files']:,} files: {many['bytes_a_file']:.0f} bytes a file in PostgreSQL and"
            f" {many['bytes_a_file_here']:.0f} in a head's own index; a further head with nothing"
            f" but the database is in step after {many['start_seconds']:.0f} s and"
            f" {many['start_queries']:,} transactions. A look-up takes"
            f" {many['lookup_seconds'] * 1e6:.0f} µs and {many['round_trips_in_lookups']} round"
            " trips."
        )
    return "\n\n".join(
        part if part.startswith("|") else "\n".join(wrap(part, _WIDTH)) for part in parts
    )


def draw(results: dict[str, Any], folder: Path) -> Path | None:
    """Draw the plot into *folder*; None if there is nothing to draw."""
    division = results.get("division")
    if not division or len(division["seconds"]) < 2:
        return None
    pyplot = load_pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    found = shares(division)
    numbers = [heads for heads, *_ in found]
    medians = [median for _, median, *_ in found]
    reach = [
        [median - least for _, median, least, *_ in found],
        [most - median for _, median, _, most, _ in found],
    ]
    ideal = [medians[0] * numbers[0] / heads for heads in numbers]
    with pyplot.rc_context({**STYLE, "axes.spines.left": True, "ytick.left": True}):
        figure, axis = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
        axis.errorbar(numbers, medians, yerr=reach, marker="o", markersize=3, label="zipfs")
        axis.plot(numbers, ideal, linestyle="--", linewidth=1, color="grey", label="shared ideally")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(numbers, [str(number) for number in numbers])
        axis.minorticks_off()
        axis.set_yticks(medians, [f"{median:.0f}" for median in medians])
        axis.set_xlabel("heads")
        axis.set_ylabel("seconds")
        axis.set_title(f"Until all is sealed, at {division['rate']:g} MiB/s a head")
        axis.grid(visible=True, alpha=0.3)
        axis.legend(frameon=False)
        path = folder / PLOT
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
    return path
