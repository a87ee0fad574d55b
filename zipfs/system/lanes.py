"""Worker threads for calls that may touch a disk.

A disk or a share that doesn't answer must delay only its own users (DESIGN R3). So calls run in
*lanes*, one for each folder or archive: a lane has few threads, and a call that takes too long
fails and leaves its thread *stuck*. A call can name the *item* in the lane that it accesses.
While a thread is stuck in an item, calls for that item fail at once, and no others. Calls
without an item fail while any thread of their lane is stuck, and all calls of a lane do if too
many are. Stuck threads don't count, so that the others have as many threads as before.

What takes long since there is much of it isn't stuck, such as a list of half a million files: a
thread that waits for a disk uses no processor. So a call whose thread has used one has its time
once more.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from itertools import islice
from typing import Final, Generic, TypeVar, TypeVarTuple

import outcome
import trio

from zipfs.system.measuring.width import MOST, Width

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
_SHARES: Final = 4
"""Into so many parts for each thread items are divided, as some take longer."""
_CHUNK: Final = 0.5
"""Seconds of work in one call of :meth:`Threads.map`."""


_BUSY: Final = 0.01
_BUSY_SECONDS: Final = 0.02
"""A call goes on if its thread used a processor for this share of its time, and so many seconds."""
_clock_of: Final = getattr(time, "pthread_getcpuclockid", None)
"""None where the system can't tell (macOS): there a call has its time once."""


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
        self._limiter = trio.CapacityLimiter(count)
        self._patience = patience
        self._limiters: dict[Hashable, trio.CapacityLimiter] = {}
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
        call = _Call(function, *arguments)
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
        now = min(width.now, len(items)) or 1
        results: list[R | None] = [None] * len(items)
        step = -(-len(items) // (now * _SHARES)) if now > 1 else len(items)
        starts = iter(range(0, len(items), step or 1))
        busy = 0.0
        started = time.monotonic()

        failures: list[Exception] = []

        async def work() -> None:
            nonlocal busy
            try:
                for start in starts:
                    some = items[start : start + step]
                    results[start : start + step], took = await self._map(
                        function, some, lane, key, is_wide=now > 1
                    )
                    busy += took
            except Exception as error:  # noqa: BLE001 - raised below, without an exception group
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(now):
                nursery.start_soon(work)
        if failures:
            raise failures[0]
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
            chunk = _Chunk(function, items, len(results), lambda i: self.is_stuck(lane, key(i)))
            call = _Call(chunk.work)
            culprit = functools.partial(_current, chunk, key)
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
        call: _Call[T],
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
        patience = self._patience or math.inf
        deadline = trio.current_time() + patience
        try:
            with trio.CancelScope(deadline=deadline) as waiting:
                async with self._in_lane(lane, item, is_wide=is_wide):
                    waiting.deadline = math.inf
                    try:
                        with trio.CancelScope(deadline=deadline):
                            await trio.to_thread.run_sync(
                                work, abandon_on_cancel=True, limiter=self._limiter
                            )
                        while call.goes_on(max(_BUSY * patience, _BUSY_SECONDS)):
                            with trio.move_on_after(patience):
                                await call.over(token)
                    finally:
                        lost = call.give_up()
                        if lost:
                            stuck_in = culprit()
                            self._count_stuck(lane, stuck_in, 1)
        finally:
            if ended and not lost:
                ended()
        # Even if the time was up just then: the result can own a descriptor. Unless it came when it
        # had been given up: then *work* discards it.
        if call.result and not lost:
            return call.result.unwrap()
        raise timed_out()

    def _count_stuck(self, lane: Hashable, item: Hashable, change: int) -> None:
        self._stuck[lane] += change
        self._stuck_items[lane, item] += change
        if not self._stuck[lane]:
            del self._stuck[lane]
        if not self._stuck_items[lane, item]:
            del self._stuck_items[lane, item]
        self._limiter.total_tokens = self._count + min(self.stuck, self._spare)

    @contextlib.asynccontextmanager
    async def _in_lane(
        self, lane: Hashable, item: Hashable, *, is_wide: bool
    ) -> AsyncIterator[None]:
        if self.is_stuck(lane, item):
            raise timed_out()
        async with contextlib.AsyncExitStack() as stack:
            if lane is not None:
                if item is not None:
                    # One call per item at a time, so that an item that hangs holds one thread.
                    await stack.enter_async_context(self._limited((lane, item), 1))
                limit = ((lane, "wide"), WIDEST) if is_wide else ((lane,), LANE)
                await stack.enter_async_context(self._limited(*limit))
                if self.is_stuck(lane, item):  # while we waited
                    raise timed_out()
            yield

    @contextlib.asynccontextmanager
    async def _limited(self, key: Hashable, count: int) -> AsyncIterator[None]:
        limiter = self._limiters.setdefault(key, trio.CapacityLimiter(count))
        try:
            async with limiter:
                yield
        finally:
            statistics = limiter.statistics()
            if not statistics.borrowed_tokens and not statistics.tasks_waiting:
                self._limiters.pop(key, None)


class _Call(Generic[T]):
    """A call and its progress; used by two threads."""

    def __init__(self, function: Callable[[*Ts], T], *arguments: *Ts) -> None:
        self._function = lambda: function(*arguments)
        self._lock = threading.Lock()
        self._running = False
        self._given_up = False
        self._clock = 0
        self._used = 0.0
        """Seconds for which its thread had used a processor when that was looked at last."""
        self._ended: Callable[[], object] | None = None
        self.result: outcome.Outcome[T] | None = None

    def run(self) -> bool:
        """Make the call, unless it was given up; returns whether it was given up meanwhile."""
        with self._lock:
            if self._given_up:
                return False
            if _clock_of:
                self._clock = _clock_of(threading.get_ident())
                self._used = time.thread_time()
            self._running = True
        result = outcome.capture(self._function)
        with self._lock:
            self._running = False
            self.result = result
            if self._ended:
                with contextlib.suppress(trio.RunFinishedError):
                    self._ended()
            return self._given_up

    def goes_on(self, seconds: float) -> bool:
        """Whether its thread used a processor for so many *seconds* since it was asked last."""
        with self._lock:
            if not (self._running and _clock_of):
                return False
            before, self._used = self._used, time.clock_gettime(self._clock)
            return self._used - before >= seconds

    async def over(self, token: trio.lowlevel.TrioToken) -> None:
        """Wait until it is over."""
        ended = trio.Event()
        with self._lock:
            if not self._running:
                return
            self._ended = functools.partial(token.run_sync_soon, ended.set)
        await ended.wait()

    def give_up(self) -> bool:
        """Record that nobody waits for it any more; returns whether a thread is running it."""
        with self._lock:
            self._given_up = self.result is None
            return self._running


class _Chunk(Generic[T, R]):
    """*items* from the index *start* on, until :data:`_CHUNK` has passed or one *is_stuck*."""

    def __init__(
        self,
        function: Callable[[T], R],
        items: Sequence[T],
        start: int,
        is_stuck: Callable[[T], bool],
    ) -> None:
        self._function = function
        self._items = items
        self._start = start
        self._is_stuck = is_stuck
        self.results: list[R] = []
        self.current = items[start]
        self.begun = False
        self.busy = 0.0
        self.over = threading.Event()
        """Set when no more results are wanted."""

    def work(self) -> None:
        self.begun = True
        began = time.thread_time()
        try:
            self._work()
        finally:
            self.busy = time.thread_time() - began

    def _work(self) -> None:
        until = time.monotonic() + _CHUNK
        for item in islice(self._items, self._start, None):
            if self.over.is_set() or self._is_stuck(item):
                return
            self.current = item
            result = self._function(item)
            if self.over.is_set():
                return
            self.results.append(result)
            if time.monotonic() > until:
                return


def _current(chunk: _Chunk[T, R], key: Callable[[T], Hashable]) -> Hashable:
    return key(chunk.current)
