"""What the project wants to reach, and whether a run did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.speed.results import (
    BINDFS,
    BUILT,
    STORED,
    STREAMED,
    STREAMED_BARE,
    ZIPFS,
    Results,
    Row,
    Verdict,
)

GB: Final = 1e9
ENOUGH_GB: Final = 10
CPU_PER_GB: Final = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """The median ratio of zipfs to *to* in a row: at least, or at most."""

    what: str
    row: str
    to: str
    least: float | None = None
    most: float | None = None

    def judge(self, results: Results) -> Verdict:
        row = results.row(self.row)
        ratio = row.ratio(self.to) if row else None
        bar = f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"
        if ratio is None:
            return Verdict(what=self.what, bar=bar, value="not measured", met=None)
        met = (self.least is None or ratio.median >= self.least) and (
            self.most is None or ratio.median <= self.most
        )
        value = f"{number(ratio.median)} ({number(ratio.low)}-{number(ratio.high)})"
        return Verdict(what=self.what, bar=bar, value=value, met=met)


BARS: Final = (
    Bar(what="download, cached, of a stored file", row="cached", to=STORED, least=0.95),
    Bar(what="first download, of a stored file", row="first", to=STORED, least=0.75),
    Bar(what="first download, of bindfs", row="first", to=BINDFS, least=1.0),
    Bar(what="download from disk, of a stored file", row="disk", to=STORED, least=0.95),
    Bar(
        what="4 KiB ranges, cached, of a stored file", row="ranges-4k-cached", to=STORED, least=0.9
    ),
    Bar(
        what="64 KiB ranges, cached, of a stored file",
        row="ranges-64k-cached",
        to=STORED,
        least=0.9,
    ),
    Bar(what="4 KiB ranges, first touch, of bindfs", row="ranges-4k-first", to=BINDFS, least=1.0),
    # A plain GET may be the first or not; the first is the harder one.
    Bar(what="first download, of one built while sending", row="first", to=STREAMED, least=3.0),
    Bar(what="… by a bare server, the fastest way", row="first", to=STREAMED_BARE, least=3.0),
    Bar(
        what="8 GiB, time to first byte, of a stored file",
        row="first-byte-first",
        to=STORED,
        most=2.0,
    ),
    Bar(
        what="8 GiB, time to first byte, of one built first",
        row="first-byte-first",
        to=BUILT,
        most=0.001,
    ),
    Bar(what="p99 beside 50 downloads, hashing to not", row="busy", to="without", most=3.0),
    Bar(what="first download while a source hangs", row="hang", to="without", least=0.95),
    Bar(what="hashing, of xxhsum and rhash together", row="hashing", to="programs", least=1.0),
)


def judge(results: Results) -> Iterator[Verdict]:
    """All bars, in the order of the table."""
    for bar in BARS:
        yield bar.judge(results)
    yield _written(results)
    yield _cpu(results.row("first"))


def number(value: float) -> str:
    """Short, for people: two places, fewer for a big one, a fraction for a tiny one."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.01 or not value else f"1/{1 / value:,.0f}"


def _written(results: Results) -> Verdict:
    """By the daemon and the web server, over all that was served."""
    series = [row.series[ZIPFS] for row in results.rows if ZIPFS in row.series]
    sent = sum(one.sent for one in series) / GB
    written = sum(one.written for one in series)
    return Verdict(
        what=f"bytes written to disk by serving {ENOUGH_GB} GB",
        bar="0",
        value=f"{written:,} for {sent:.1f} GB",
        # Little that was served proves little.
        met=False if written else True if sent >= ENOUGH_GB else None,
    )


def _cpu(row: Row | None) -> Verdict:
    what, bar = "the daemon's CPU at first touch", f"<= {CPU_PER_GB:g} s/GB"
    if row is None or not row.series[ZIPFS].sent:
        return Verdict(what=what, bar=bar, value="not measured", met=None)
    seconds = row.series[ZIPFS].own_cpu / row.series[ZIPFS].sent * GB
    return Verdict(what=what, bar=bar, value=f"{seconds:.2f} s/GB", met=seconds <= CPU_PER_GB)
