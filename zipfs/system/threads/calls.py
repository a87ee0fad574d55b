"""One call in a worker thread, and how it gets on."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from typing import Final, Generic, NoReturn, TypeVar, TypeVarTuple

import outcome
import trio

T = TypeVar("T")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

CHUNK: Final = 0.5
"""Seconds of work in one :class:`Chunk`."""
_BUSY: Final = 0.01
_BUSY_SECONDS: Final = 0.02
"""A call goes on if its thread used a processor for this share of its time, and so many seconds."""
_clock_of: Final = getattr(time, "pthread_getcpuclockid", None)
"""None where the system can't tell (macOS): there a call has its time once."""


class Call(Generic[T]):
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
            del result  # an error keeps this frame, which would keep the error
            if self._ended:
                with contextlib.suppress(trio.RunFinishedError):
                    self._ended()
            return self._given_up

    def goes_on(self, seconds: float) -> bool:
        """Whether its thread was at work in the *seconds* since it was asked last."""
        with self._lock:
            if not (self._running and _clock_of):
                return False
            before, self._used = self._used, time.clock_gettime(self._clock)
            return self._used - before >= max(_BUSY * seconds, _BUSY_SECONDS)

    @property
    def got_on(self) -> bool:
        """Whether it has ended by itself, with more than that the source doesn't answer."""
        result = self.result
        if isinstance(result, outcome.Error):
            return not isinstance(result.error, TimeoutError)
        return result is not None

    def take(self) -> outcome.Outcome[T] | None:
        """The result, which isn't kept any longer.

        An error has all frames that it went through, with what they hold, such as a megabyte to
        read into. If one of them held the error as well, all that would stay until garbage is
        looked for, and that is done rarely.
        """
        result, self.result = self.result, None
        return result

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


class Chunk(Generic[T, R]):
    """*items* from the index *start* on, until :data:`CHUNK` has passed or one *is_stuck*."""

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
        until = time.monotonic() + CHUNK
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


def raise_first(errors: list[Exception]) -> NoReturn:
    """Raise the first of *errors*, and keep none of them; see :meth:`Call.take`."""
    first = errors[0]
    errors.clear()
    try:
        raise first
    finally:
        del first


def current(chunk: Chunk[T, R], key: Callable[[T], Hashable]) -> Hashable:
    return key(chunk.current)
