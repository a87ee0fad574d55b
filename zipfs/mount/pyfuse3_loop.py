"""Makes pyfuse3 read a request that is already there without a pass through trio.

pyfuse3 reads one request after another from ``/dev/fuse``, and waits before each in
trio: for a lock among its tasks, then in ``wait_readable``. Each wait is a pass through
trio's scheduler and an epoll_wait(2), which together cost more than answering a small
read from the page cache. On a busy mount the next request is already there, which one
poll(2) shows.

pyfuse3 looks its event loop up in a name of its module, so that it can be replaced (as
``pyfuse3.asyncio`` does). :func:`install` replaces it by trio with two other functions:

- The lock goes to a waiting task only when its last holder blocks: mostly that task
  answers at once, and takes the lock again.
- ``wait_readable`` returns at once if a request is there, except once in
  :data:`IN_A_ROW` requests, so that all other tasks get their turn.

Two more things can only be done here, between two requests: to put another descriptor in the place
of the one that pyfuse3 reads from, when nobody waits for it (:mod:`zipfs.mount.restart.adoption`),
and to stop reading (:meth:`Loop.stop`). ``pyfuse3.terminate`` is no help for the latter: libfuse
then throws away the next request.

None of this is pyfuse3's interface. So :func:`install` checks what it replaces, and
leaves a pyfuse3 of another structure alone, which then takes longer for each request.
"""

from __future__ import annotations

import inspect
import logging
import select
from collections import deque
from collections.abc import Callable
from types import ModuleType, SimpleNamespace, TracebackType
from typing import Any, Final

import pyfuse3
import trio

log = logging.getLogger(__name__)

IN_A_ROW: Final = 32
"""Requests read before other tasks have a turn: one or two milliseconds."""


class _Lock(trio.abc.Instrument):
    """Like ``trio.Lock``, but a task that takes it again before it blocks keeps it.

    It is a trio instrument, whose ``after_task_step`` is called when a task blocks.
    """

    def __init__(self) -> None:
        self.waiting: deque[trio.lowlevel.Task] = deque()
        self._held = False
        trio.lowlevel.add_instrument(self)

    async def __aenter__(self) -> None:
        while self._held:
            task = trio.lowlevel.current_task()
            self.waiting.append(task)

            def abort(
                _raise_cancel: object, task: trio.lowlevel.Task = task
            ) -> trio.lowlevel.Abort:
                self.waiting.remove(task)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        self._held = True

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._held = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.waiting and not self._held:
            trio.lowlevel.reschedule(self.waiting.popleft())


class Loop:
    """The two replaced functions; for one session.

    *exchange* is called before each wait for a request, until it returns True.
    """

    def __init__(self, exchange: Callable[[], bool] | None = None) -> None:
        self._lock: _Lock | None = None
        self._poll = select.poll()
        self._descriptor: int | None = None
        self._in_a_row = 0
        self._exchange = exchange
        self._stopping = False

    def stop(self) -> None:
        """Take no more requests: ``pyfuse3.main`` returns when those taken are answered."""
        self._stopping = True
        if self._descriptor is not None:
            trio.lowlevel.notify_closing(self._descriptor)

    def make_lock(self) -> _Lock:
        self._lock = _Lock()
        return self._lock

    async def wait_readable(self, descriptor: int) -> None:
        if exchange := self._exchange:
            self._exchange = None
            try:
                if not exchange():
                    self._exchange = exchange
            except BaseException:
                self._stopping = True  # for the other tasks of pyfuse3
                raise
        if self._stopping:
            raise trio.ClosedResourceError
        if descriptor != self._descriptor:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)
            self._descriptor = descriptor
        # If no task waits for the lock, pyfuse3 has just started one: give it its turn.
        if self._lock and self._lock.waiting and self._in_a_row < IN_A_ROW and self._poll.poll(0):
            self._in_a_row += 1
            return
        self._in_a_row = 0
        await trio.lowlevel.wait_readable(descriptor)


class _Patched(SimpleNamespace):
    """A module with some of its names replaced; all others are the module's own."""

    def __init__(self, module: ModuleType, **names: object) -> None:
        super().__init__(**names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def install(exchange: Callable[[], bool] | None = None) -> Loop | None:
    """Replace pyfuse3's event loop; to be called before ``pyfuse3.main``.

    Returns None, and changes nothing, if pyfuse3 has another structure than expected.
    """
    if (difference := _difference()) is not None:
        log.info("pyfuse3 waits for requests in its own way, which is slower: %s", difference)
        return None
    loop = Loop(exchange)
    pyfuse3.trio = _Patched(  # type: ignore[attr-defined]  # not in its stubs
        trio,
        Lock=loop.make_lock,
        lowlevel=_Patched(trio.lowlevel, wait_readable=loop.wait_readable),
    )
    return loop


def is_replaceable() -> bool:
    """Whether :func:`install` can replace pyfuse3's event loop."""
    return _difference() is None


def _difference() -> str | None:
    """How pyfuse3 differs from the expected structure; None if it doesn't."""
    found = getattr(pyfuse3, "trio", None)
    if found is not trio and not isinstance(found, _Patched):
        return "pyfuse3.trio isn't trio"
    # This function takes the lock and waits, for the one session that the module has.
    try:
        arguments = inspect.signature(pyfuse3._wait_fuse_readable).parameters  # type: ignore[attr-defined]  # not in its stubs
    except (AttributeError, TypeError, ValueError):
        return "it has no function _wait_fuse_readable"
    return "_wait_fuse_readable has arguments" if arguments else None
