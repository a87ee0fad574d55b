"""External programs: found, run in a clean environment, and never waited for without end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import pytest

from tests.e2e import downloads
from tests.support.mounting import MARKER

SECONDS: Final = 240.0
"""How long a program may take; only a defect comes near it."""

# Debian keeps servers and games out of an ordinary user's PATH.
PATH: Final = os.pathsep.join(
    (os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/games")
)
Argument = str | Path

# Neither start-up files nor a proxy of the user's.
WGET: Final = ("wget", "--no-config", "--no-proxy", "-nv", "--tries=1", "--timeout=30")
ARIA2C: Final = (
    *("aria2c", "--no-conf", "--all-proxy=", "-x16", "-s16", "-k", "1M", "--max-tries=1"),
    *("--file-allocation=none", "--summary-interval=0", "--console-log-level=warn"),
)


def environment(**changes: str) -> dict[str, str]:
    """Nothing of the user's: no proxy, no start-up file, no locale but UTF-8."""
    fixed = {"PATH": PATH, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return {**fixed, MARKER: str(os.getpid()), **changes}


def command(argv: Sequence[Argument]) -> list[str]:
    program = shutil.which(argv[0], path=PATH)
    assert program, f"{argv[0]} is not installed: make system"
    return [program, *(os.fspath(argument) for argument in argv[1:])]


def run(
    *argv: Argument,
    status: Sequence[int] = (0,),
    seconds: float = SECONDS,
    stdin: IO[bytes] | None = None,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, which must be one of *status*."""
    with running(*argv, stdin=stdin, stderr=subprocess.PIPE, cwd=cwd, env=env) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{argv[0]} is not done after {seconds:.0f} s: {process.args!r}")
    if process.returncode not in status:
        pytest.fail(
            f"{process.args!r} ended with {process.returncode}:\n{_shown(out)}\n{_shown(err)}"
        )
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _shown(output: bytes) -> str:
    return output[-2000:].decode(errors="replace")


@contextlib.contextmanager
def running(
    *argv: Argument,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | int = subprocess.PIPE,
    stderr: IO[bytes] | int | None = None,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs beside the test, and is gone with its children after the block.

    If it has downloaded an archive into a file by then, that is checked.
    """
    process = subprocess.Popen(
        command(argv),
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        env=environment() if env is None else env,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()
        process.wait(SECONDS)
    if process.returncode == 0:
        downloads.check_written(argv)
