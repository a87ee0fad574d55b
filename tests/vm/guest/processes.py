"""Programs that the machine runs, with a time limit for each."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

LIMIT: Final = 90.0
"""Seconds for a program that should end at once: the machine is slow."""


class ProgramError(Exception):
    """A program failed, or did not end."""


def run(*command: str | Path, limit: float = LIMIT) -> str:
    """What *command* prints. Raises :exc:`ProgramError` with what it says otherwise."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise ProgramError(f"{command[0]}: {error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise ProgramError(f"{' '.join(map(str, command))}: {done.returncode} {said[-300:]}")
    return done.stdout.decode(errors="replace")


def start(*command: str | Path, log: Path, **variables: str) -> subprocess.Popen[bytes]:
    """*command*, running; its output goes to the file *log*."""
    with log.open("ab") as stream:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={**os.environ, **variables},
        )


def stop(process: subprocess.Popen[bytes], limit: float = LIMIT) -> int | None:
    """End *process*; its exit status, or None if it had to be killed."""
    process.terminate()
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(limit)
        return None


def wait(condition: Callable[[], bool], limit: float, pause: float = 0.2) -> float | None:
    """Seconds until *condition* holds; None if it doesn't within *limit*."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit:
            return None
        time.sleep(pause)
    return time.monotonic() - began


def named(*names: str) -> list[int]:
    """The processes whose program is called one of *names*."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if (folder / "comm").read_text().strip() in names:
                    found.append(int(folder.name))
    return found


def send(number: signal.Signals, *names: str) -> None:
    """Send *number* to all processes called so."""
    for process in named(*names):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def drop_caches() -> None:
    """Let the kernel forget data, nodes and attributes that nobody holds."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
