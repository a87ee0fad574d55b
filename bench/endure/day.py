"""A day of work in less time: kinds of work, each with its quota, done evenly by lanes of threads.

Each kind has so many *turns* of so many things each, due at even distances on a clock that stops
in the quiet moments. A lane takes the next turn, waits until it is due, and does it; a late one
is done at once, so a slow machine does the same work later. What is missing in the end is counted.
"""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench import BenchError
from tests.model.versions import ModelError

ENOUGH: Final = 0.95
"""Share of each quota that has to be done."""
FAILURES: Final = 100
"""Failures whose text is stored; more are only counted."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of work."""

    key: str
    what: str
    quota: int
    """How many a day."""
    turn: int = 1
    """How many are done in one turn."""
    lanes: int = 1


Job = Callable[[random.Random, int], int]
"""Does the given number of a kind of work; returns how many were done."""


class Day:
    """Does *kinds* by *jobs* within *active* seconds; *share* is how much of a day it is."""

    def __init__(
        self, kinds: Sequence[Kind], jobs: dict[str, Job], *, active: float, share: float, seed: int
    ) -> None:
        self.kinds = kinds
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self.failed = 0
        self.quiet = threading.Event()
        """Set during a quiet moment: clients that hang end then."""
        self.ended = threading.Event()
        self._jobs = jobs
        self._active = active
        self._share = share
        self._seed = seed
        self._begun: Counter[str] = Counter()
        self._over: Counter[str] = Counter()
        self._busy: Counter[str] = Counter()
        self._condition = threading.Condition()
        self._open_since: float | None = None
        self._worked = 0.0
        self._threads: list[threading.Thread] = []
        self.quiet.set()

    def quota(self, kind: Kind) -> int:
        """How much of *kind* this run has to do."""
        return max(1, round(kind.quota * self._share))

    def start(self) -> None:
        for kind in self.kinds:
            for lane in range(kind.lanes):
                thread = threading.Thread(
                    target=self._lane, args=[kind, lane], name=kind.key, daemon=True
                )
                thread.start()
                self._threads.append(thread)

    @property
    def worked(self) -> float:
        """Seconds for which there has been work."""
        since = self._open_since
        return self._worked + (time.monotonic() - since if since is not None else 0.0)

    def open(self) -> None:
        """End a quiet moment: turns that are due begin."""
        with self._condition:
            self._open_since = time.monotonic()
            self.quiet.clear()
            self._condition.notify_all()

    def close(self) -> None:
        """Begin a quiet moment: no turn begins."""
        with self._condition:
            self._worked = self.worked
            self._open_since = None
            self.quiet.set()
            self._condition.notify_all()

    @property
    def busy(self) -> list[str]:
        """What is still being done."""
        with self._condition:
            return [key for key, count in self._busy.items() if count]

    @property
    def unfinished(self) -> list[str]:
        """Kinds of which not all turns are over."""
        with self._condition:
            return [kind.key for kind in self.kinds if self._over[kind.key] < self._turns_of(kind)]

    def end(self, seconds: float) -> None:
        """Begin no more turns; wait at most so many *seconds* for those under way."""
        self.ended.set()
        self.close()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def short(self) -> list[str]:
        """The kinds of which too little was done."""
        return [kind.what for kind in self.kinds if self.done[kind.key] < ENOUGH * self.quota(kind)]

    def _lane(self, kind: Kind, lane: int) -> None:
        rng = random.Random(f"{self._seed} {kind.key} {lane}")
        while (count := self._next(kind)) is not None:
            done = 0
            try:
                done = self._jobs[kind.key](rng, count)
            except ModelError as error:
                self._fail(f"{kind.what}: {error}")
            except (BenchError, OSError) as error:
                if not self.ended.is_set():
                    self._fail(f"{kind.what}: {type(error).__name__}: {error}")
            except Exception:  # noqa: BLE001 - a lane that ends silently would be a lie
                self._fail(f"{kind.what}: {traceback.format_exc()}")
            finally:
                with self._condition:
                    self._busy[kind.key] -= 1
                    self._over[kind.key] += 1
                    self.done[kind.key] += done
                    self._condition.notify_all()

    def _fail(self, text: str) -> None:
        with self._condition:
            self.failed += 1
            if len(self.failures) < FAILURES:
                self.failures.append(f"at {self.worked / 60:.1f} min: {text}")

    def _next(self, kind: Kind) -> int | None:
        """Wait until the next turn of *kind* is due; how much it is, None if there is none."""
        turns = self._turns_of(kind)
        with self._condition:
            number = self._begun[kind.key]
            if number >= turns:
                return None
            self._begun[kind.key] += 1
            due = (number + 0.5) / turns * self._active
            while not self.ended.is_set():
                left = due - self.worked
                if self._open_since is not None and left <= 0:
                    self._busy[kind.key] += 1
                    return min(kind.turn, self.quota(kind) - number * kind.turn)
                self._condition.wait(left if self._open_since is not None else None)
        return None

    def _turns_of(self, kind: Kind) -> int:
        return -(-self.quota(kind) // kind.turn)
