"""libfuse's session: the connection with the kernel, from its begin to its end."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Final

import pyfuse3

from zipfs.errors import FuseError, UnknownOptionError
from zipfs.mount import mountpoint as mp
from zipfs.mount import pyfuse3_loop
from zipfs.mount.fs import Operations
from zipfs.mount.restart.held import Held
from zipfs.mount.restart.succession import Succession

MAX_REQUESTS: Final = 1000
"""Most requests of the kernel at once, those that wait for a slow disk included."""
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)


class Session:
    """A session in which *operations* answer; one a process.

    libfuse makes the mount on *path* with *options*, or goes on with the one that is *held*. One
    that outlives this process has a *succession*.
    """

    def __init__(
        self,
        operations: Operations,
        path: str,
        options: set[str],
        held: Held | None = None,
        succession: Succession | None = None,
    ) -> None:
        self._operations = operations
        self._path = path
        self._options = options
        self._held = held
        self._succession = succession
        self._loop: pyfuse3_loop.Loop | None = None
        self.has_begun = False

    def begin(self) -> None:
        """Raises :exc:`FuseError` and :exc:`UnknownOptionError`.

        Requests are answered by :meth:`serve`.
        """
        # libfuse's name for a mount that is there already; fuse_session_mount in fuse_lowlevel.h.
        path = self._path
        if self._succession and self._succession.connection:
            path = f"/dev/fd/{self._succession.connection.descriptor}"
        elif self._held:
            path = f"/dev/fd/{self._held.device}"
        with _captured_stderr() as captured, _signals_blocked():
            try:
                pyfuse3.init(self._operations, path, self._options)
            except RuntimeError as error:
                # libfuse prints the reason on stderr only.
                lines = [line for line in captured() if line]
                reason = lines[-1] if lines else str(error)
                refused = (os.strerror(errno.EPERM), os.strerror(errno.EACCES))
                hint = mp.forbidden() if reason.endswith(refused) else ""
                kind = UnknownOptionError if "unknown option" in reason else FuseError
                raise kind(f"can't mount on {self._path}: {reason}{hint}") from None
        self.has_begun = True

    async def serve(self) -> None:
        """Answer requests, until the mount is unmounted or :meth:`stop` was called.

        Raises a group of :exc:`NotAdoptedError` if the connection can't be taken over.
        """
        self._loop = pyfuse3_loop.install(self._exchange if self._succession else None)
        await pyfuse3.main(max_tasks=MAX_REQUESTS)

    def _exchange(self) -> bool:
        if self._succession and not self._succession.exchange():
            return False
        self._operations.mounted.set()
        return True

    def stop(self) -> None:
        """Take no more requests; :meth:`serve` returns when those taken are answered."""
        if self._loop:
            self._loop.stop()

    def end(self, *, terminate: bool = True) -> None:
        """Close it, and unmount what libfuse has mounted, lazily if it is in use."""
        if not self.has_begun:
            return
        self.has_begun = False
        logging.getLogger("pyfuse3").addFilter(is_of_a_mount)
        if terminate:
            pyfuse3.terminate()
        pyfuse3.close(unmount=True)


def is_of_a_mount(record: logging.LogRecord) -> bool:
    """Whether pyfuse3 says something else than that a mount which has ended can't be told things.

    A thread of its own tells the kernel of changes, and has more to tell when the mount ends.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], OSError))


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals in this thread: to libfuse 3.17 an interrupted waitpid(2) is a failed mount."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _captured_stderr() -> Iterator[Callable[[], list[str]]]:
    """Redirect file descriptor 2 to a file, for C code that writes to it; yields its lines."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)

        def captured() -> list[str]:
            file.seek(0)
            return file.read().decode("utf-8", "replace").splitlines()

        try:
            yield captured
        finally:
            os.dup2(original, 2)
            os.close(original)
