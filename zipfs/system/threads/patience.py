"""Waiting for one's turn: for as long as it takes, while those before get on.

Who waits behind much work isn't waiting for a disk that doesn't answer. So the time of those in a
queue begins anew whenever a call before them has ended by itself, or was seen to be at work.
"""

from __future__ import annotations

import math
from typing import Final

import trio


class PatientLimiter:
    """A :class:`trio.CapacityLimiter` for tasks that wait *patience* seconds at most, or longer.

    A task waits within a scope, whose deadline is put off while those before it get on. All
    methods belong to trio's thread.
    """

    def __init__(self, tokens: int, patience: float) -> None:
        self.limiter: Final = trio.CapacityLimiter(tokens)
        self._patience = patience
        self._moved = -math.inf
        """When one that had a token got on."""

    @property
    def is_idle(self) -> bool:
        """Whether nobody has a token or waits for one."""
        statistics = self.limiter.statistics()
        return not statistics.borrowed_tokens and not statistics.tasks_waiting

    def in_time_of(self, scope: trio.CancelScope) -> InTime:
        """What :func:`trio.to_thread.run_sync` takes as a limiter, which waits within *scope*."""
        return InTime(self, scope)

    async def acquire_on_behalf_of(self, borrower: object, scope: trio.CancelScope) -> None:
        """Take a token for *borrower*; waits within *scope*."""
        try:
            self.limiter.acquire_on_behalf_of_nowait(borrower)
        except trio.WouldBlock:
            pass
        else:
            return
        if math.isinf(self._patience):
            await self.limiter.acquire_on_behalf_of(borrower)
            return
        since, scope.deadline = scope.deadline - self._patience, math.inf
        has_token = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, since, scope)
                await self.limiter.acquire_on_behalf_of(borrower)
                has_token = True
                nursery.cancel_scope.cancel()
        except BaseException:  # cancelled just when it was its turn
            if has_token:
                self.limiter.release_on_behalf_of(borrower)
            raise
        scope.deadline = max(since, self._moved) + self._patience

    async def _watch(self, since: float, scope: trio.CancelScope) -> None:
        """Cancel *scope* when nothing has moved for too long."""
        while (until := max(since, self._moved) + self._patience) > trio.current_time():
            await trio.sleep_until(until)
            # Those whose time was up at the same moment say first how they get on.
            await trio.lowlevel.checkpoint()
        scope.cancel()

    def got_on(self) -> None:
        """A call that has a token has ended by itself, or is at work."""
        self._moved = trio.current_time()


class InTime:
    """A limiter as trio's threads use it, for one call."""

    def __init__(self, limiter: PatientLimiter, scope: trio.CancelScope) -> None:
        self._limiter = limiter
        self._scope = scope

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        await self._limiter.acquire_on_behalf_of(borrower, self._scope)

    def release_on_behalf_of(self, borrower: object) -> None:
        self._limiter.limiter.release_on_behalf_of(borrower)
