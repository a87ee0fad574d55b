"""A thread at the lowest priority, for work that has to be out of everybody's way."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

import outcome
import trio

from zipfs.threads import timed_out

T = TypeVar("T")


class Worker:
    """A thread of its own, because its low priority can't be taken back.

    A daemon thread: should a dead disk hold it, it doesn't hold up our end.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.busy = False
        threading.Thread(target=self._run, name="zipfs-hasher", daemon=True).start()

    def stop(self) -> None:
        """End when the call under way has ended."""
        self._calls.put(None)

    async def call(
        self,
        function: Callable[[], T],
        progress: Callable[[], object],
        patience: float | None,
        late: Callable[[], object] = lambda: None,
        freed: Callable[[], object] = lambda: None,
    ) -> T:
        """The result of *function*, called in the thread.

        Raises :exc:`TimeoutError`, and leaves the thread :attr:`busy`, if *progress*
        tells the same for *patience* seconds. Should *function* end after that,
        *late* is called in the thread, and *freed* in trio's.
        """
        token = trio.lowlevel.current_trio_token()
        done = trio.Event()
        results: list[outcome.Outcome[T]] = []
        lock = threading.Lock()
        waiting = True

        def call() -> None:
            result = outcome.capture(function)
            with lock:
                results.append(result)
                in_time = waiting
            if not in_time:
                late()
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(done.set if in_time else freed)

        self.busy = True
        self._calls.put(call)
        try:
            while not results:
                before = progress()
                with trio.move_on_after(patience or math.inf) as scope:
                    await done.wait()
                if scope.cancelled_caught and progress() == before:
                    break
        finally:
            with lock:
                waiting = False
        # It may have ended just when it was given up: then it was in time.
        if not results:
            raise timed_out()
        self.busy = False
        return results[0].unwrap()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while call := self._calls.get():
            call()
