"""What waits for its turn, without a coroutine for each.

When a whole library changes at once, twenty thousand games wait: for some seconds, for their files
to be hashed, for a thread of their lane (:mod:`zipfs.system.threads.lanes`). A coroutine that waits
so takes ten kilobytes and more. So what waits is an entry here, and work is done by few tasks:

    stage      is in                  what comes next
    WOKEN      the list of those      it is planned, at once
    WAITING    the heap, if there is  READY, when its time has come, or what it waits for;
               an end to its wait     WOKEN, when things have changed
    READY      the queue of its lane  AT_WORK, when a worker of its lane has time for it
    AT_WORK    a worker of its lane   it is planned, when the work is done
    OVER       nowhere

All calls belong to trio's thread.
"""

from __future__ import annotations

import enum
import heapq
import itertools
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, Generic, TypeVar

import trio

from zipfs.system.threads.lanes import LANE

WORKERS: Final = 2 * LANE
"""Maximum number of tasks for one lane: its threads are busy while others do what needs none."""
_BATCH: Final = 64
"""So many are planned before others have their turn."""


class Stage(enum.Enum):
    WOKEN = enum.auto()
    WAITING = enum.auto()
    READY = enum.auto()
    AT_WORK = enum.auto()
    OVER = enum.auto()


class Waiter:
    """What waits on *agenda*."""

    __slots__ = ("_agenda", "asked", "stage", "until")

    def __init__(self, agenda: Agenda[Any]) -> None:
        self._agenda = agenda
        self.asked = False
        """Whether somebody waits for it: it comes before all that are ready in its lane."""
        self.stage = Stage.OVER
        self.until = math.inf
        """When its wait ends by itself; trio's time."""

    def wake(self) -> None:
        """If it waits, plan anew what for: things aren't as they were.

        One that is ready, or at work, is planned afterwards. So work has to look at how things are.
        """
        if self.stage is Stage.WAITING:
            self._agenda.begin(self)


W = TypeVar("W", bound=Waiter)


class Agenda(Generic[W]):
    """What is to be done, and when.

    *plan* says until when one waits, in trio's time: -inf if it is ready, None if all is done. By
    then at the latest, *work* is done in the *lane* of that one. Neither raises an exception.
    """

    def __init__(
        self,
        plan: Callable[[W], float | None],
        work: Callable[[W], Awaitable[None]],
        lane: Callable[[W], Hashable],
    ) -> None:
        self._plan = plan
        self._work = work
        self._lane = lane
        self._count = 0
        self._woken: deque[W] = deque()
        # One whose wait was shortened, or has ended, leaves its earlier place behind.
        self._heap: list[tuple[float, int, W]] = []
        self._numbers = itertools.count()
        # One that was moved to the front leaves its earlier place behind, too.
        self._ready: dict[Hashable, deque[W]] = {}
        self._workers: Counter[Hashable] = Counter()
        self._stirred = trio.Event()
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        """How many aren't done."""
        return self._count

    @property
    def workers(self) -> int:
        """Number of tasks that work."""
        return self._workers.total()

    def begin(self, waiter: W) -> None:
        """Plan *waiter*, which is new, or waits."""
        if waiter.stage is Stage.OVER:
            self._count += 1
        waiter.stage = Stage.WOKEN
        self._woken.append(waiter)
        self._stirred.set()

    def wait_less(self, waiter: W, until: float) -> None:
        """If *waiter* waits, it is ready at the time *until* at the latest."""
        if waiter.stage is Stage.WAITING and until < waiter.until:
            self._wait(waiter, until)

    def ready(self, waiter: W) -> None:
        """If *waiter* waits, this is what it waited for."""
        if waiter.stage is Stage.WAITING:
            self._queue(waiter)

    def hurry(self, waiter: W) -> None:
        """Somebody waits for *waiter* now."""
        waiter.asked = True
        if waiter.stage is Stage.READY:
            self._ready[self._lane(waiter)].appendleft(waiter)

    async def run(self) -> None:
        """Plan and work, for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                while True:
                    self._stirred = trio.Event()
                    await self._plan_woken()
                    until = self._take_due()
                    with trio.CancelScope(deadline=until):
                        await self._stirred.wait()
            finally:
                self._nursery = None  # things may still be put on it while it ends

    async def _plan_woken(self) -> None:
        while self._woken:
            for _ in range(min(_BATCH, len(self._woken))):
                self._go_by_plan(self._woken.popleft())
            await trio.lowlevel.checkpoint()

    def _take_due(self) -> float:
        """Those whose time has come are ready; returns the time of the next."""
        for _ in range(_BATCH):
            if not self._heap:
                return math.inf
            until, _, waiter = self._heap[0]
            is_valid = waiter.stage is Stage.WAITING and waiter.until == until
            if is_valid and until > trio.current_time():
                return until
            heapq.heappop(self._heap)
            if is_valid:
                self._queue(waiter)
        return -math.inf

    def _go_by_plan(self, waiter: W) -> None:
        until = self._plan(waiter)
        if until is None:
            waiter.stage = Stage.OVER
            self._count -= 1
        elif until <= trio.current_time():
            self._queue(waiter)
        else:
            self._wait(waiter, until)

    def _wait(self, waiter: W, until: float) -> None:
        waiter.stage = Stage.WAITING
        waiter.until = until
        if until < math.inf:
            heapq.heappush(self._heap, (until, next(self._numbers), waiter))
            if self._heap[0][2] is waiter:
                self._stirred.set()

    def _queue(self, waiter: W) -> None:
        waiter.stage = Stage.READY
        lane = self._lane(waiter)
        queue = self._ready.setdefault(lane, deque())
        (queue.appendleft if waiter.asked else queue.append)(waiter)
        self._employ(lane)

    def _employ(self, lane: Hashable) -> None:
        if self._nursery and self._workers[lane] < WORKERS:
            self._workers[lane] += 1
            self._nursery.start_soon(self._work_in, lane)

    async def _work_in(self, lane: Hashable) -> None:
        """Work until nothing is ready in *lane*."""
        queue = self._ready[lane]
        try:
            while queue:
                waiter = queue.popleft()
                if waiter.stage is Stage.READY:
                    waiter.stage = Stage.AT_WORK
                    await self._work(waiter)
                    self._go_by_plan(waiter)
                await trio.lowlevel.checkpoint()
        finally:
            self._workers[lane] -= 1
            if not self._workers[lane]:
                del self._workers[lane]
                if not queue:
                    del self._ready[lane]
