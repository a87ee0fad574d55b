"""Worker threads for calls that may touch a disk.

A disk or a share that doesn't answer must delay only its own users (DESIGN R3). So calls run in
*lanes*, one for each folder or archive: a lane has few threads, and a call that takes too long
fails and leaves its thread *stuck*. A call can name the *item* in the lane that it accesses.
While a thread is stuck in an item, calls for that item fail at once, and no others. Calls
without an item fail while any thread of their lane is stuck, and all calls of a lane do if too
many are. Stuck threads don't count, so that the others have as many threads as before.

What takes long since there is much of it isn't stuck, such as a list of half a million files: a
thread that waits for a disk uses no processor. So a call whose thread has used one has its time
once more, and so have those who wait behind it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from typing import Final, TypeVar, TypeVarTuple

import outcome
import trio

from zipfs.system.measuring.width import MOST, Width
from zipfs.system.threads.calls import Call, Chunk, current, raise_first
from zipfs.system.threads.patience import PatientLimiter

T = TypeVar("T")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

LANE: Final = 8
"""Maximum number of threads that one lane uses at a time."""
WIDEST: Final = MOST
"""The same for items of one call of :meth:`Threads.map`."""
MAX_STUCK_IN_LANE: Final = 32
"""Number of stuck threads in a lane from which on all its calls fail."""
MAX_STUCK: Final = 256
"""Maximum number of stuck threads that are replaced by new ones."""
_SHARES: Final = 2
"""A thread takes what is left, divided by the number of threads and by this, as some items take
longer."""


def timed_out() -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


class Threads:
    """Up to *count* worker threads; calls fail after *patience* seconds, None: never.

    Up to *spare* more replace stuck ones. A cancelled call is abandoned and its thread ends when
    it can: a dead disk must not delay the end of the mount.
    """

    def __init__(
        self, count: int, patience: float | None = None, *, spare: int = MAX_STUCK
    ) -> None:
        self._count = count
        self._spare = spare
        self._patience = patience or math.inf
        self._limiter = PatientLimiter(count, self._patience)
        self._limiters: dict[Hashable, PatientLimiter] = {}
        self._stuck: Counter[Hashable] = Counter()
        self._stuck_items: Counter[tuple[Hashable, Hashable]] = Counter()

    @property
    def stuck(self) -> int:
        """Number of stuck threads."""
        return self._stuck.total()

    def is_stuck(self, lane: Hashable, item: Hashable = None) -> bool:
        """Whether a call for *item* in *lane* would fail at once. Thread-safe."""
        if lane is None or lane not in self._stuck:
            return False
        if item is None or (lane, item) in self._stuck_items:
            return True
        return self._stuck[lane] >= MAX_STUCK_IN_LANE

    async def run(
        self,
        function: Callable[[*Ts], T],
        *arguments: *Ts,
        lane: Hashable = None,
        item: Hashable = None,
        discard: Callable[[T], object] | None = None,
        ended: Callable[[], object] | None = None,
    ) -> T:
        """The result of ``function(*arguments)`` in a thread of *lane*; waits for a free one.

        Raises :exc:`TimeoutError` if it takes too long, or at once if *item* or *lane* is stuck.
        A result that comes later is passed to *discard*, in the worker thread. *ended* is
        called in trio's thread when the function has ended or will never begin: only then can
        the caller reuse what it has passed to the function.
        """
        call = Call(function, *arguments)
        return await self._run(call, lane, item, lambda: item, discard, ended)

    async def map(
        self,
        function: Callable[[T], R],
        items: Sequence[T],
        *,
        lane: Hashable,
        key: Callable[[T], Hashable],
        width: Width | None = None,
    ) -> list[R | None]:
        """The result of *function* for each of *items*, many per call of a thread.

        None for those that are stuck. *key* returns the name of an item in *lane*. With *width*,
        so many threads share the items, beside those of the lane; else it is one.
        """
        if width is None:
            return (await self._map(function, items, lane, key))[0]
        results: list[R | None] = []
        while len(results) < len(items):
            done, most = len(results), width.sample
            some = items[done : None if most is None else done + most]
            results += await self._map_wide(function, some, lane, key, width)
        return results

    async def _map_wide(
        self,
        function: Callable[[T], R],
        items: Sequence[T],
        lane: Hashable,
        key: Callable[[T], Hashable],
        width: Width,
    ) -> list[R | None]:
        """The same of *items* with one width; tells it how long that took."""
        now = min(width.now, len(items))
        results: list[R | None] = [None] * len(items)
        shares = _shares(len(items), now)
        busy = 0.0
        started = time.monotonic()
        failures: list[Exception] = []

        async def work() -> None:
            nonlocal busy
            try:
                for share in shares:
                    results[share], took = await self._map(
                        function, items[share], lane, key, is_wide=now > 1
                    )
                    busy += took
            except Exception as error:  # noqa: BLE001 - raised below, without an exception group
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(now):
                nursery.start_soon(work)
        if failures:
            raise_first(failures)
        if None not in results:
            width.measured(now, len(items), time.monotonic() - started, busy)
        return results

    async def _map(
        self,
        function: Callable[[T], R],
        items: Sequence[T],
        lane: Hashable,
        key: Callable[[T], Hashable],
        *,
        is_wide: bool = False,
    ) -> tuple[list[R | None], float]:
        """The same in one thread, and the seconds for which that kept a processor busy."""
        busy = 0.0
        results: list[R | None] = []
        while len(results) < len(items):
            if self.is_stuck(lane, key(items[len(results)])):
                results.append(None)
                continue
            chunk = Chunk(function, items, len(results), lambda i: self.is_stuck(lane, key(i)))
            call = Call(chunk.work)
            culprit = functools.partial(current, chunk, key)
            try:
                await self._run(call, lane, chunk, culprit, is_wide=is_wide)
            except TimeoutError:
                chunk.over.set()
                results += list(chunk.results)
                if not chunk.begun:  # all threads of the lane are busy with something else
                    break
                if len(results) < len(items):
                    results.append(None)
            else:
                results += chunk.results
                busy += chunk.busy
        return results + [None] * (len(items) - len(results)), busy

    async def _run(
        self,
        call: Call[T],
        lane: Hashable,
        item: Hashable,
        culprit: Callable[[], Hashable],
        discard: Callable[[T], object] | None = None,
        ended: Callable[[], object] | None = None,
        *,
        is_wide: bool = False,
    ) -> T:
        token = trio.lowlevel.current_trio_token()
        stuck_in: Hashable = None

        def found() -> None:
            self._count_stuck(lane, stuck_in, -1)
            if ended:
                ended()

        def work() -> None:
            if call.run():  # too late
                try:
                    if discard and isinstance(call.result, outcome.Value):
                        discard(call.result.value)
                finally:
                    with contextlib.suppress(trio.RunFinishedError):
                        token.run_sync_soon(found)

        lost = False
        patience = self._patience
        deadline = trio.current_time() + patience
        try:
            with trio.CancelScope(deadline=deadline) as waiting:
                async with self._in_lane(lane, item, waiting, is_wide=is_wide) as queues:
                    deadline, waiting.deadline = waiting.deadline, math.inf
                    try:
                        with trio.CancelScope(deadline=deadline) as scope:
                            await trio.to_thread.run_sync(
                                work,
                                abandon_on_cancel=True,
                                # Anything like one, trio's documentation says.
                                limiter=self._limiter.in_time_of(scope),  # type: ignore[arg-type]
                            )
                        while call.goes_on(patience):
                            _got_on(queues)
                            with trio.move_on_after(patience):
                                await call.over(token)
                    finally:
                        lost = call.give_up()
                        if lost:
                            stuck_in = culprit()
                            self._count_stuck(lane, stuck_in, 1)
                        elif call.got_on:
                            _got_on(queues)
        finally:
            if ended and not lost:
                ended()
        # Even if the time was up just then: the result can own a descriptor. Unless it came when it
        # had been given up: then *work* discards it.
        if result := None if lost else call.take():
            try:
                return result.unwrap()
            finally:
                del result
        raise timed_out()

    def _count_stuck(self, lane: Hashable, item: Hashable, change: int) -> None:
        self._stuck[lane] += change
        self._stuck_items[lane, item] += change
        if not self._stuck[lane]:
            del self._stuck[lane]
        if not self._stuck_items[lane, item]:
            del self._stuck_items[lane, item]
        self._limiter.limiter.total_tokens = self._count + min(self.stuck, self._spare)

    @contextlib.asynccontextmanager
    async def _in_lane(
        self, lane: Hashable, item: Hashable, waiting: trio.CancelScope, *, is_wide: bool
    ) -> AsyncIterator[list[PatientLimiter]]:
        """The time of *waiting* is renewed while those before get on; the queues passed through."""
        if self.is_stuck(lane, item):
            raise timed_out()
        async with contextlib.AsyncExitStack() as stack:
            queues = [self._limiter]

            async def join(key: Hashable, count: int) -> None:
                limited = self._limited(key, count, waiting)
                queues.append(await stack.enter_async_context(limited))

            if lane is not None:
                if item is not None:
                    # One call per item at a time, so that an item that hangs holds one thread.
                    await join((lane, item), 1)
                await (join((lane, "wide"), WIDEST) if is_wide else join((lane,), LANE))
                if self.is_stuck(lane, item):  # while we waited
                    raise timed_out()
            yield queues

    @contextlib.asynccontextmanager
    async def _limited(
        self, key: Hashable, count: int, waiting: trio.CancelScope
    ) -> AsyncIterator[PatientLimiter]:
        limiter = self._limiters.setdefault(key, PatientLimiter(count, self._patience))
        borrower = object()
        try:
            await limiter.acquire_on_behalf_of(borrower, waiting)
            try:
                yield limiter
            finally:
                limiter.limiter.release_on_behalf_of(borrower)
        finally:
            if limiter.is_idle:
                self._limiters.pop(key, None)


def _shares(count: int, threads: int) -> Iterator[slice]:
    """The parts of *count* items for so many *threads*.

    Large ones first, as each costs a start, and single items last: all end at the same time.
    """
    start = 0
    while start < count:
        left = count - start
        end = start + (left if threads == 1 else max(1, left // (_SHARES * threads)))
        yield slice(start, end)
        start = end


def _got_on(queues: list[PatientLimiter]) -> None:
    for queue in queues:
        queue.got_on()
