"""Measuring by turns: each case for each of those that it compares, round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench import BenchError
from bench.speed.results import Row, Series, Spread
from bench.usage import Usage

# Something else on the machine may have taken the memory, or a CPU, just then.
ATTEMPTS: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One measurement of one of them."""

    value: float
    sent: float = 0
    own: Usage = field(default_factory=Usage)
    server: Usage = field(default_factory=Usage)
    calls: Mapping[str, float] = field(default_factory=dict)
    """Of a source that counts them, for each of its files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One thing to measure, for each of *contenders* by :attr:`measure`."""

    key: str
    what: str
    unit: str
    higher_is_better: bool = True
    contenders: Mapping[str, int | None]
    """In the order of measuring; in how many rounds, None: in all."""
    measure: Callable[[str], Sample]
    warm_up: bool = True
    """Whether there is a round before the first that doesn't count."""
    note: Callable[[], str] = str


@dataclass(kw_only=True, slots=True)
class Measured:
    """What came out for a case so far."""

    case: Case
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failure: str = ""
    """Why there is no result."""

    def row(self) -> Row:
        case = self.case
        return Row(
            key=case.key,
            what=case.what,
            unit=case.unit,
            higher_is_better=case.higher_is_better,
            series={who: _series(samples) for who, samples in self.samples.items()},
            note=case.note(),
        )


def _series(samples: Sequence[Sample]) -> Series:
    return Series(
        value=Spread(samples=tuple(sample.value for sample in samples)),
        sent=sum(sample.sent for sample in samples),
        own_cpu=sum(sample.own.cpu_seconds for sample in samples),
        all_cpu=sum(sample.own.cpu_seconds + sample.server.cpu_seconds for sample in samples),
        written=sum(sample.own.to_disk + sample.server.to_disk for sample in samples),
        calls={
            kind: statistics.median(sample.calls[kind] for sample in samples)
            for kind in samples[0].calls
        },
    )


def measure(todo: Sequence[Measured], rounds: int) -> Iterator[tuple[int, Case, str]]:
    """Measure all cases again and again, and fill *todo*; yields before each measurement.

    Round 0 warms up, the machine's memory as well, and doesn't count. All cases take part in each
    round, so that what else the machine does at some time is spread over all of them.

    What can't be measured properly, after some attempts, is given up (:attr:`Measured.failure`),
    and the others go on.
    """
    for number in range(rounds + 1):
        for measured in todo:
            case = measured.case
            for who, most in case.contenders.items():
                if measured.failure or number > (rounds if most is None else most):
                    continue
                # To warm up for what is slow takes longer than it gives.
                if number == 0 and (most is not None or not case.warm_up):
                    continue
                for attempt in range(ATTEMPTS):
                    yield number, case, who
                    try:
                        sample = case.measure(who)
                    except BenchError as error:
                        if attempt == ATTEMPTS - 1:
                            measured.failure = f"{case.what}, {who}: {error}"
                        continue
                    if number:
                        measured.samples.setdefault(who, []).append(sample)
                    break
