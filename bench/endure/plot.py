"""The plot of a `make endure`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bench.endure.findings import Course
from bench.endure.flat import line
from bench.endure.probe import MIB, Process, Sample
from bench.plotting import load_pyplot
from bench.speed.plots import COLOURS, GREY, STYLE
from bench.speed.results import ZIPFS

DARK: Final = COLOURS[ZIPFS]
LIGHT: Final = "#7fa6d6"
WARN: Final = "#c2571a"
MARKS: Final = {"chmod -R": "c", "rsync": "r", "SIGHUP": "h", "thumbnails": "t"}


def draw(course: Course, path: Path) -> None:
    """Draw memory, threads, descriptors and load by minutes; the type by *path*'s suffix."""
    pyplot = load_pyplot(path.suffix)
    samples, marks, warm = course.samples, course.marks, course.warm
    style = {key: value for key, value in STYLE.items() if key != "axes.spines.left"}
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(
            5,
            figsize=(8, 9),
            gridspec_kw={"height_ratios": [3, 2, 2, 2, 2]},
            sharex=True,
            layout="constrained",
        )
        _memory(axes[0], samples, warm)
        _whole(axes[1], samples, "threads", lambda process: process.threads)
        _whole(axes[2], samples, "open descriptors", lambda process: process.descriptors)
        _load(axes[3], samples)
        _lines(axes[4], "MiB on disk", samples, {
            "index": (DARK, [sample.index / MIB for sample in samples]),
            "its WAL": (LIGHT, [sample.wal / MIB for sample in samples]),
        })  # fmt: skip
        for axis in axes:
            axis.margins(x=0.01)
            axis.grid(visible=True, axis="y", alpha=0.3)
            axis.set_ylim(bottom=0)
            for begin, end in _quiet(samples):
                axis.axvspan(begin / 60, end / 60, color=GREY, alpha=0.35, linewidth=0)
        _marks(axes[3], marks)
        axes[0].axvline(warm / 60, color=GREY, linewidth=0.8, linestyle=":")
        axes[-1].set_xlabel("minutes; grey: quiet moments")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        pyplot.close(figure)


def _lines(
    axis: Any, title: str, samples: Sequence[Sample], lines: dict[str, tuple[str, Sequence[float]]]
) -> None:
    """*lines* have a label, a colour, and a value for each of *samples*."""
    for label, (colour, values) in lines.items():
        minutes = [sample.when / 60 for sample in samples]
        axis.plot(minutes, values, color=colour, linewidth=0.9, label=label)
    axis.set_title(title)
    axis.legend(fontsize=7, ncols=3, frameon=False, loc="best")


def _memory(axis: Any, samples: Sequence[Sample], warm: float) -> None:
    fit = [(sample.when, sample.daemon.uss) for sample in samples if sample.when >= warm]
    if ends := list(line(fit, samples[-1].when)):
        times, fitted = zip(*ends, strict=True)
        label = "fit (Theil-Sen), after the warm-up"
        axis.plot([when / 60 for when in times], fitted, "--", color="#333333", label=label)
    hashed = [sample.hasher.uss if sample.hasher else float("nan") for sample in samples]
    _lines(axis, "MiB of memory", samples, {
        "resident": (LIGHT, [sample.daemon.rss for sample in samples]),
        "proportional (PSS)": (GREY, [sample.daemon.pss for sample in samples]),
        "its own (USS)": (DARK, [sample.daemon.uss for sample in samples]),
        "process that hashes, its own": (WARN, hashed),
    })  # fmt: skip


def _whole(
    axis: Any, samples: Sequence[Sample], title: str, value: Callable[[Process], int]
) -> None:
    minutes = [sample.when / 60 for sample in samples]
    axis.plot(minutes, [value(sample.daemon) for sample in samples], color=DARK, linewidth=0.8)
    judged = [sample for sample in samples if sample.phase == "judged"]
    axis.plot(
        [sample.when / 60 for sample in judged],
        [value(sample.daemon) for sample in judged],
        "o",
        color=WARN,
        markersize=3,
    )
    last = f": {value(judged[-1].daemon)} in the last" if judged else ""
    axis.set_title(f"{title} (dots: in quiet moments{last})")


def _load(axis: Any, samples: Sequence[Sample]) -> None:
    kept, rates, cpu = [], [], []
    for before, after in itertools.pairwise(samples):
        seconds = after.when - before.when
        if seconds > 2:
            kept.append(after)
            rates.append((after.received - before.received) / seconds / 1e6)
            cpu.append((after.daemon.cpu - before.daemon.cpu) / seconds * 100)
    _lines(axis, "load (c: chmod -R, r: rsync, h: SIGHUP, t: thumbnailer)", kept, {
        "MB/s received by clients": (GREY, rates),
        "% of a CPU, daemon": (DARK, cpu),
    })  # fmt: skip


def _marks(axis: Any, marks: Sequence[tuple[float, str]]) -> None:
    for when, what in marks:
        if letter := MARKS.get(what):
            axis.annotate(
                letter,
                (when / 60, 0.72),
                xycoords=("data", "axes fraction"),
                fontsize=7,
                ha="center",
                color=WARN,
            )


def _quiet(samples: Sequence[Sample]) -> Iterator[tuple[float, float]]:
    """The beginnings and ends of the quiet moments, in seconds."""
    for quiet, group in itertools.groupby(samples, lambda sample: sample.phase != "load"):
        if quiet:
            times = [sample.when for sample in group]
            yield times[0], times[-1]
