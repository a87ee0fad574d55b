"""The daemon's end of the process that hashes files: :mod:`zipfs.index.hash_process`."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from zipfs.index import hash_process
from zipfs.index.hash_process import Answer, At, Done, End, Failed, Ready, Request, Unexpected
from zipfs.library.scan import SourceFile
from zipfs.system.lanes import timed_out

_ANSWER_TO: Final = 0.25
"""Seconds, at most, between two answers that tell how far the process is."""
_GATHER: Final = 0.005
"""Seconds for which answers are left to gather: to be woken by each costs as much as it is
worth, where files are small."""


class LostError(Exception):
    """The process has ended without being asked to; its argument says how."""


class Child(Protocol):
    """A process that has just been started."""

    requests: int
    """Descriptor of a pipe to it."""
    answers: int
    """And of one from it."""

    def kill(self) -> None:
        """End it by force, which may take as long as it hangs in a dead disk."""

    def reap(self) -> str | None:
        """How it has ended; None if it hasn't."""

    def abandon(self) -> None:
        """It is somebody else's to reap: we end."""


class Process:
    """The real one."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as stack:
            theirs, self.requests = _pipe(stack)
            self.answers, ours = _pipe(stack)
            # Started by trio's thread, as the kernel ends it with the one that has started it.
            # In a session of its own, so that a terminal's signals aren't for it, and what it
            # takes of the CPU isn't taken from our share (sched(7), autogroup).
            self._process = subprocess.Popen(
                [sys.executable, "-c", hash_process.COMMAND, *sys.path],
                stdin=theirs,
                stdout=ours,
                start_new_session=True,
            )
            stack.pop_all()
        os.close(theirs)
        os.close(ours)

    def kill(self) -> None:
        self._process.kill()

    def reap(self) -> str | None:
        status = self._process.poll()
        if status is None:
            return None
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"been killed by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    def abandon(self) -> None:
        if self._process.poll() is None:
            self._process.returncode = -signal.SIGKILL  # or Python complains of it


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    """The two ends of a pipe, closed by *stack*."""
    ends = os.pipe2(os.O_CLOEXEC)
    for end in ends:
        stack.callback(os.close, end)
    return ends


start: Callable[[], Child] = Process
"""Starts the process; raises :exc:`OSError`. Tests put something else here."""


class Worker:
    """A process that hashes files, from its start to its end.

    It does one thing at a time: after :meth:`ask`, :meth:`answer` until that gives None.
    """

    def __init__(self) -> None:
        """Raises :exc:`OSError`."""
        self._child = start()
        os.set_blocking(self._child.answers, False)
        self._requests = trio.lowlevel.FdStream(self._child.requests)
        self._buffer = bytearray()
        self._answers: deque[Answer] = deque()
        self._started = False
        self._is_first = True

    async def ask(
        self,
        files: Sequence[tuple[int, bytes, SourceFile]],
        limit: int,
        rate: float,
        patience: float | None,
    ) -> None:
        """Have it hash *limit* bytes of *files*: number, absolute path, and what is there.

        Raises :exc:`LostError`. *rate* is bytes per second, 0 for as many as there are.
        """
        request = Request(
            # Plain tuples are all that can be marshalled.
            [(number, path, (*file.state,)) for number, path, file in files],
            limit,
            rate,
            min(_ANSWER_TO, (patience or math.inf) / 4),
        )
        self._is_first = True
        try:
            await self._requests.send_all(hash_process.packed(request))
        except trio.BrokenResourceError:
            raise LostError from None

    async def answer(self, patience: float | None) -> At | Done | Failed | Unexpected | None:
        """The next answer to what was asked, None after the last one.

        Raises :exc:`LostError`, and :exc:`TimeoutError` if there is none for *patience*
        seconds.
        """
        await trio.lowlevel.checkpoint()
        while True:
            while not self._answers:
                # Python may take its time to start, on a busy machine.
                await self._receive(patience if self._started else None)
            answer = self._answers.popleft()
            if isinstance(answer, Ready):
                self._started = True
            else:
                return None if isinstance(answer, End) else answer

    async def _receive(self, patience: float | None) -> None:
        if not self._is_first:
            await trio.sleep(_GATHER)
        self._is_first = False
        with trio.move_on_after(patience or math.inf) as scope:
            await trio.lowlevel.wait_readable(self._child.answers)
        try:
            # It may have answered just when it was given up: then it was in time.
            data = os.read(self._child.answers, 1 << 16)
        except BlockingIOError:
            if scope.cancelled_caught:
                raise timed_out() from None
            return
        if not data:
            raise LostError
        self._buffer += data
        for message in hash_process.messages_in(self._buffer):
            if not isinstance(message, Request):
                self._answers.append(message)

    @property
    def has_started(self) -> bool:
        """Whether it has ever been there to be asked."""
        return self._started

    def dismiss(self) -> None:
        """Let it end: it isn't needed for the time being."""
        self._requests.close()

    def kill(self) -> None:
        """End it by force; a dead disk can delay that."""
        self._child.kill()
        self.dismiss()

    async def gone(self) -> str:
        """Wait until it has ended, as it was told to; how it has.

        Nobody may wait for an answer any more, nor for this a second time.
        """
        try:
            while True:
                await trio.lowlevel.wait_readable(self._child.answers)
                with contextlib.suppress(BlockingIOError):
                    if not os.read(self._child.answers, 1 << 16):
                        break
            while (how := self._child.reap()) is None:  # noqa: ASYNC110 - it has no event
                await trio.sleep(0.01)
            return how
        finally:
            self._requests.close()
            os.close(self._child.answers)
            self._child.abandon()
