"""Child processes that end when they should: on request, and with us."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from bench import BenchError

# Debian keeps servers out of an ordinary user's PATH.
_SERVERS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def find_program(name: str, *, package: str) -> str:
    """The path of a program; raises :exc:`BenchError` if it isn't installed."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SERVERS))
    found = shutil.which(name, path=path)
    if found is None:
        raise BenchError(f"{name} is not installed: apt-get install {package}")
    return found


def start(
    argv: Sequence[str | Path],
    *,
    stderr: IO[bytes] | None = None,
    stdout: IO[bytes] | int | None = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server or a mount.

    It gets a session of its own, so that Ctrl-C in a terminal reaches only us and we choose the
    order in which things end. The kernel sends it SIGTERM if we die without stopping it (killed,
    or ended by a test's timeout), as far as setpriv is there; it acts on the death of the
    starting *thread*, so it is only used in the main one.
    """
    command = [os.fspath(argument) for argument in argv]
    setpriv = shutil.which("setpriv")
    if setpriv is not None and threading.current_thread() is threading.main_thread():
        command = [setpriv, "--pdeathsig", "TERM", "--", *command]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=env,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes], *, timeout: float = 15.0) -> int:
    """SIGTERM, then wait; returns the exit status (negative: the signal that ended it).

    An nginx master that is killed leaves its workers behind. So its whole group is killed after
    *timeout* seconds, and if somebody else had killed it.
    """
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            _kill_group(process.pid)
            return process.wait()
    if process.returncode < 0:
        _kill_group(process.pid)
    return process.returncode


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
