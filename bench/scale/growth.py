"""Cost against size: series, their slopes, and plots of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import BenchError

TAIL: Final = 3
"""Points, the largest, of which the slope is told: small ones show what is constant."""
LINEAR: Final = 1.15
"""Slopes up to that are linear: caches that are left and noise are worth a tenth."""


@dataclass(kw_only=True, slots=True)
class Series:
    """What something costs, for several sizes."""

    what: str
    """What is counted: members, archives, clients, MiB."""
    cost: str
    unit: str
    points: list[tuple[float, float]] = field(default_factory=list)
    """Size and cost."""

    def add(self, size: float, cost: float) -> None:
        self.points.append((size, cost))

    @property
    def slope(self) -> float | None:
        """Of the logarithms, over the largest sizes: 1 is linear, 2 quadratic, 0 constant."""
        return slope(self.points[-TAIL:])

    @property
    def verdict(self) -> str:
        found = self.slope
        if found is None:
            return "nothing to tell"
        return "not faster than linear" if found <= LINEAR else "FASTER THAN LINEAR"


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """The least-squares slope of log(cost) by log(size); None where that has none."""
    logs = [(math.log(size), math.log(cost)) for size, cost in points if size > 0 and cost > 0]
    if len(logs) < 2:
        return None
    mean_x = sum(x for x, _ in logs) / len(logs)
    mean_y = sum(y for _, y in logs) / len(logs)
    spread = sum((x - mean_x) ** 2 for x, _ in logs)
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / spread if spread else None


def plot(series: Sequence[Series], folder: Path) -> list[Path]:
    """One SVG for each thing that is counted, its costs as lines with their slopes."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - only needed for plots
    except ImportError:
        raise BenchError("matplotlib is missing: pip install '.[bench]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for what in dict.fromkeys(one.what for one in series):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        for one in series:
            if one.what != what or not one.points:
                continue
            sizes, costs = zip(*one.points, strict=True)
            found = one.slope
            told = "" if found is None else f", slope {found:.2f}"
            axes.plot(sizes, costs, marker="o", label=f"{one.cost} [{one.unit}]{told}")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(what)
        axes.set_ylabel("cost")
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend(fontsize="small")
        path = folder / f"growth-{what.replace(' ', '-')}.svg"
        figure.savefig(path)
        written.append(path)
    return written
