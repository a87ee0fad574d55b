"""Functions called in a subprocess, with a time limit, or as another user.

A call into a dead NFS or FUSE mount doesn't return, and neither a signal handler nor a thread
can break it off. So a subprocess makes it: the caller waits for a limited time, kills it, and
continues. A process that doesn't even end by SIGKILL, because the kernel waits for the mount, is
left behind; it holds no resource of the caller, as its standard streams are /dev/null and all
other descriptors are closed.

A subprocess can also become another user for good, to try what that user may do. Results are
passed as JSON; paths that aren't UTF-8 as Python's surrogates.

Fork without exec: the caller must have no other threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVarTuple

from zipfs.errors import UnansweredError

Ts = TypeVarTuple("Ts")

PATIENCE: Final = 8.0
"""Maximum duration of one call, in seconds. A disk that has to spin up takes almost as long."""
_KILL_WAIT: Final = 0.2
"""Seconds to wait for the end of a killed process."""
_unreaped: Final[set[int]] = set()
"""Killed processes that haven't been waited for yet."""
_PIECE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Identity:
    """A user's credentials(7)."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    """All groups, *gid* included."""

    def become(self) -> None:
        """Become this user, for good; only root can."""
        os.setgroups(self.groups)
        os.setgid(self.gid)
        os.setuid(self.uid)


class FailedError(Exception):
    """The function raised an unexpected exception: its traceback."""


def ask(function: Callable[[*Ts], Any], *arguments: *Ts, patience: float = PATIENCE) -> Any:
    """The result of ``function(*arguments)`` in a subprocess, converted by JSON.

    Raises :exc:`UnansweredError` after *patience* seconds, and the :exc:`OSError` that the
    function raised.
    """

    def once() -> Iterator[Any]:
        yield function(*arguments)

    for answer in ask_each(once, patience=patience):
        return answer
    raise FailedError("the subprocess ended without an answer")


def ask_each(
    function: Callable[[*Ts], Iterator[Any]], *arguments: *Ts, patience: float = PATIENCE
) -> Iterator[Any]:
    """The values that ``function(*arguments)`` yields in a subprocess.

    Raises as :func:`ask` does; *patience* is for each value.
    """
    _reap()
    receiving, sending = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _answer(function, arguments, sending)
    os.close(sending)
    try:
        for line in _lines(receiving, patience):
            kind, value = json.loads(line)
            if kind == "error":
                raise OSError(*value)
            if kind == "traceback":
                raise FailedError(value)
            yield value
    finally:
        os.close(receiving)
        _end(child)


def _lines(descriptor: int, patience: float) -> Iterator[bytes]:
    data = b""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    until = time.monotonic() + patience
    while True:
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise UnansweredError(f"no answer within {patience:g} seconds")
        piece = os.read(descriptor, _PIECE)
        if not piece:
            return
        data += piece
        *lines, data = data.split(b"\n")
        for line in lines:
            yield line
            until = time.monotonic() + patience


def _end(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _unreaped.add(child)
    until = time.monotonic() + _KILL_WAIT
    while child in _unreaped and time.monotonic() < until:
        _reap()
        time.sleep(0.001)


def _reap() -> None:
    """Wait for the processes that have ended by now."""
    for child in list(_unreaped):
        try:
            ended = os.waitpid(child, os.WNOHANG) != (0, 0)
        except ChildProcessError:
            ended = True
        if ended:
            _unreaped.discard(child)


def _answer(function: Callable[..., Iterator[Any]], arguments: Any, sending: int) -> NoReturn:
    """Call the function, in the subprocess."""
    status = 1
    try:
        _detach_streams()
        os.closerange(3, sending)
        os.closerange(sending + 1, os.sysconf("SC_OPEN_MAX"))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        try:
            for value in function(*arguments):
                _send(sending, "value", value)
        except OSError as error:
            _send(sending, "error", [error.errno, error.strerror])
        except Exception:  # noqa: BLE001 - the caller raises it
            _send(sending, "traceback", traceback.format_exc())
        status = 0
    finally:
        # No handler, buffer or `finally` of the caller must run here.
        os._exit(status)


def _detach_streams() -> None:
    try:
        null = os.open(os.devnull, os.O_RDWR)
    except OSError:  # a root folder without it
        os.closerange(0, 3)
        return
    for stream in (0, 1, 2):
        os.dup2(null, stream)


def _send(descriptor: int, kind: str, value: object) -> None:
    data = memoryview(json.dumps([kind, value]).encode() + b"\n")
    while data:
        data = data[os.write(descriptor, data) :]
