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

from zipfs.index import hash_messages, hash_process
from zipfs.index.hash_messages import Answer, At, Done, End, Failed, Job, Ready, Unexpected
from zipfs.library.scan import SourceFile
from zipfs.system.threads.lanes import timed_out

_INTERVAL: Final = 0.25
"""Maximum interval between two answers of a busy process, in seconds."""
_COLLECT: Final = 0.005
"""Seconds for which answers are collected: with small files, a wake-up for each costs too much."""


class LostError(Exception):
    """The process has ended unexpectedly."""


class Child(Protocol):
    """A started process."""

    requests: int
    """Descriptor of the pipe that it reads."""
    answers: int
    """Descriptor of the pipe that it writes."""

    def kill(self) -> None:
        """Kill it. While it hangs in a dead disk, it doesn't end."""

    def reap(self) -> str | None:
        """How it ended, as a participle for the log; None if it is still running."""

    def abandon(self) -> None:
        """Leave it to init to reap, as the daemon ends."""


class Process:
    """The child process of the daemon."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as stack:
            child_stdin, self.requests = _pipe(stack)
            self.answers, child_stdout = _pipe(stack)
            # Started by trio's thread, since the kernel kills it when that thread ends
            # (PR_SET_PDEATHSIG). In a session of its own, so that it gets no signals of a
            # terminal and has a share of the CPU of its own (sched(7), autogroup).
            self._process = subprocess.Popen(
                [sys.executable, "-c", hash_process.COMMAND, *sys.path],
                stdin=child_stdin,
                stdout=child_stdout,
                start_new_session=True,
            )
            stack.pop_all()
        os.close(child_stdin)
        os.close(child_stdout)

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
            self._process.returncode = -signal.SIGKILL  # else Popen.__del__ warns


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    """The two ends of a pipe, closed by *stack*."""
    ends = os.pipe2(os.O_CLOEXEC)
    for end in ends:
        stack.callback(os.close, end)
    return ends


start: Callable[[], Child] = Process
"""Starts the process; raises :exc:`OSError`. Tests replace it."""


class Worker:
    """A process that hashes files, from its start to its end.

    One job at a time: after :meth:`ask`, call :meth:`answer` until it returns None.
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
        parallel: int = 0,
    ) -> None:
        """Let it hash *limit* bytes of *files*, each a number, an absolute path, and the file.

        *rate* is in bytes per second; 0: no limit. *patience* is that of :meth:`answer`, in
        seconds. *parallel*: see :class:`Job`. Raises :exc:`LostError`.
        """
        job = Job(
            # Only plain tuples can be marshalled.
            [(number, path, (*file.state,), file.by_content) for number, path, file in files],
            limit,
            rate,
            min(_INTERVAL, (patience or math.inf) / 4),
            parallel,
        )
        self._is_first = True
        try:
            await self._requests.send_all(hash_messages.packed(job))
        except trio.BrokenResourceError:
            raise LostError from None

    async def answer(self, patience: float | None) -> At | Done | Failed | Unexpected | None:
        """The next answer; None at the end of the job.

        Raises :exc:`LostError`, and :exc:`TimeoutError` after *patience* seconds without an
        answer; None: waits without limit.
        """
        await trio.lowlevel.checkpoint()
        while True:
            while not self._answers:
                # No limit until it has started: on a busy machine Python can start slowly.
                await self._receive(patience if self._started else None)
            answer = self._answers.popleft()
            if isinstance(answer, Ready):
                self._started = True
            else:
                return None if isinstance(answer, End) else answer

    async def _receive(self, patience: float | None) -> None:
        if not self._is_first:
            await trio.sleep(_COLLECT)
        self._is_first = False
        with trio.move_on_after(patience or math.inf) as scope:
            await trio.lowlevel.wait_readable(self._child.answers)
        try:
            # An answer that arrived just as the time was up still counts.
            data = os.read(self._child.answers, 1 << 16)
        except BlockingIOError:
            if scope.cancelled_caught:
                raise timed_out() from None
            return
        if not data:
            raise LostError
        self._buffer += data
        for message in hash_messages.messages_in(self._buffer):
            if not isinstance(message, Job):
                self._answers.append(message)

    @property
    def has_started(self) -> bool:
        """Whether it has ever answered that it is ready."""
        return self._started

    def dismiss(self) -> None:
        """Let it end because there are no more jobs: closes its requests."""
        self._requests.close()

    def kill(self) -> None:
        """Kill it; a dead disk can delay its end. Closes its requests."""
        self._child.kill()
        self.dismiss()

    async def gone(self) -> str:
        """Wait for its end after :meth:`dismiss` or :meth:`kill`; returns how it ended.

        Call it once, and not while :meth:`answer` waits.
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
