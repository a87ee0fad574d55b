"""The results of a `make endure`: verdicts, tables, and a JSON file that can be read again."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError
from rich.box import SIMPLE
from rich.table import Table

from bench import BenchError
from bench.endure.flat import Point, Verdict, judge_memory, judge_quiet
from bench.endure.probe import MIB, Process, Sample

LEAST: Final = 1800.0
"""Seconds of a run of which memory is judged: in a shorter one caches are still being filled."""
FLAT: Final = {True: "flat", False: "NOT FLAT", None: "?"}


@dataclass(kw_only=True, slots=True)
class Course:
    """The results of one run; times are in seconds since its start."""

    date: str
    linux: str
    python: str
    cpus: int
    seed: int
    minutes: float
    warm: float
    """The end of the warm-up."""
    work: list[tuple[str, int, int]]
    """Each kind of work, its quota, and how much of it was done."""
    answers: dict[str, int]
    """Counts of what clients have seen."""
    received: int
    """Bytes over HTTP."""
    marks: list[tuple[float, str]]
    samples: list[Sample]
    failures: list[str] = field(default_factory=list)
    failed: int = 0
    """How many failures there were; *failures* holds the first of them."""
    verdicts: list[Verdict] = field(default_factory=list)

    def fail(self, text: str) -> None:
        self.failures.append(text)
        self.failed += 1


_COURSE: Final = TypeAdapter(Course)
_COURSES: Final[dict[str, Callable[[Sample], float]]] = {
    "index, MiB on disk": lambda sample: sample.index / MIB,
    "its WAL, MiB on disk": lambda sample: sample.wal / MIB,
    "memory, its own, MiB": lambda sample: sample.daemon.uss,
    "memory, resident, MiB": lambda sample: sample.daemon.rss,
    "threads": lambda sample: sample.daemon.threads,
    "descriptors": lambda sample: sample.daemon.descriptors,
}


def judge(course: Course) -> None:
    """Set the verdicts of *course*: what is flat."""
    run = course.samples[-1].when
    later = [sample for sample in course.samples if sample.when >= course.warm]
    moments = quiet_moments(course.samples)
    found = [
        judge_memory(f"memory, {label}", [(s.when, getattr(s.daemon, key)) for s in later], run=run)
        for key, label in (("uss", "its own (USS)"), ("pss", "proportional"), ("rss", "resident"))
    ]
    found += [
        judge_memory(
            "memory, its own, in quiet moments",
            [point for point in _most(moments, lambda p: p.uss) if point[0] >= course.warm],
            run=run,
            width=0,
        ),
        judge_memory(
            "memory of the process that hashes",
            [(s.when, s.hasher.uss) for s in later if s.hasher],
            run=run,
        ),
    ]
    if run < LEAST:
        found = [replace(verdict, met=None) for verdict in found]
    course.verdicts = [
        *found,
        judge_quiet("threads", _fewest_threads(course.samples), course.warm),
        judge_quiet("descriptors", _most(moments, lambda p: p.descriptors), course.warm),
    ]


def quiet_moments(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The samples at the end of each quiet moment."""
    groups = itertools.groupby(samples, lambda sample: sample.phase == "judged")
    return [list(group) for judged, group in groups if judged]


def _most(moments: Sequence[Sequence[Sample]], value: Callable[[Process], float]) -> list[Point]:
    return [(moment[0].when, max(value(s.daemon) for s in moment)) for moment in moments]


def _fewest_threads(samples: Sequence[Sample]) -> list[Point]:
    """The fewest of each quiet moment: one that has just been at work stays for some seconds."""
    groups = itertools.groupby(samples, lambda sample: sample.phase == "load")
    moments = [list(group) for is_load, group in groups if not is_load]
    return [(moment[0].when, min(s.daemon.threads for s in moment)) for moment in moments]


# -- Tables --------------------------------------------------------------------


def tables(course: Course) -> Iterator[Table | str]:
    """The report in parts: tables, then a line for each failure."""
    table = Table("work", box=SIMPLE, pad_edge=False)
    table.add_column("to be done", justify="right")
    table.add_column("done", justify="right")
    for what, quota, done in course.work:
        table.add_row(what, f"{quota:,}", f"{done:,}")
    yield table
    yield _found(course)
    table = Table("flat?", "", "", "", box=SIMPLE, pad_edge=False)
    for verdict in course.verdicts:
        table.add_row(verdict.what, verdict.value, verdict.bar, FLAT[verdict.met])
    yield table
    for text in course.failures:
        yield f"FAILED: {text}"
    if course.failed > len(course.failures):
        yield f"... and {course.failed - len(course.failures)} more"


def _found(course: Course) -> Table:
    table = Table("what was found", box=SIMPLE, pad_edge=False)
    table.add_column("", justify="right")
    for what, number in course.answers.items():
        table.add_row(what, f"{number:,}")
    first, last = course.samples[0], course.samples[-1]
    table.add_row("GB received over HTTP", f"{course.received / 1e9:.1f}")
    table.add_row("CPU of the daemon, s", f"{last.daemon.cpu - first.daemon.cpu:.0f}")
    for label, value in _COURSES.items():
        digits = 2 if "on disk" in label else 0
        table.add_row(
            f"{label}: first, last, most", _three([value(s) for s in course.samples], digits)
        )
    return table


def _three(values: Sequence[float], digits: int) -> str:
    return ", ".join(f"{value:,.{digits}f}" for value in (values[0], values[-1], max(values)))


# -- JSON ----------------------------------------------------------------------


def write(course: Course, path: Path) -> None:
    """Write *course* as JSON, a sample a line."""
    whole = _COURSE.dump_python(course, mode="json")
    rows = whole.pop("samples")
    for row in rows:
        for part in (row, row["daemon"], row["hasher"] or {}):
            for key, value in part.items():
                if isinstance(value, float):
                    part[key] = round(value, 2)
    text = json.dumps(whole, indent=2).removesuffix("\n}")
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    path.write_text(f'{text},\n  "samples": [\n{lines}\n  ]\n}}\n')


def read(path: Path) -> Course:
    """The run in a file of :func:`write`; raises :exc:`BenchError` if it holds something else."""
    try:
        return _COURSE.validate_json(path.read_bytes())
    except ValidationError as error:
        raise BenchError(f"{path} is no result of `make endure`: {error}") from None
