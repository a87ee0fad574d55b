"""Runs programs that read an archive: from its path or a pipe, ended when they have to be."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, TypeVar, cast

from tests.readers.gate import Found, MissingError, of_stream
from tests.readers.tools import DRIVERS
from tests.support.mounting import MARKER, PREFIX

LARGE: Final = 1 << 30
"""Bytes from which on nothing is extracted onto the disk, and slow readers don't read at all."""
SECONDS: Final = 180.0
"""How long a program may take; only one that hangs takes all of it."""

Argument = str | bytes | Path
Result = TypeVar("Result")


class FailedError(Exception):
    """A program failed, or had something to complain about."""


class Running:
    """All programs that run now, so that an interrupted run ends them."""

    def __init__(self) -> None:
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ended = False

    def add(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.add(process)
        if self._ended:
            self.end()

    def remove(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.discard(process)

    def end(self) -> None:
        """Kill them, and whatever is started from now on."""
        self._ended = True
        with self._lock:
            for process in self._processes:
                process.kill()


RUNNING: Final = Running()


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """UTF-8 names and UTC, whatever the tester has; with *changes*."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    marker = os.environ.get(MARKER, str(os.getpid()))
    return (
        ours
        | {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "TZ": "UTC", MARKER: marker}
        | dict(changes or {})
    )


@contextlib.contextmanager
def started(
    *argv: Argument, env: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is gone afterwards, by force if it hasn't ended by itself."""
    process = subprocess.Popen(argv, env=environment(env), start_new_session=True, **options)
    RUNNING.add(process)
    watchdog = threading.Timer(SECONDS, process.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.kill()
        process.wait()
        RUNNING.remove(process)
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()


def read_output(
    take: Callable[[BinaryIO], Result],
    *argv: Argument,
    piped: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    complaints: str = "",
) -> Result:
    """What *take* makes of the standard output of a program.

    *piped* goes through a real pipe into its standard input. Raises :exc:`FailedError` unless
    the program ends with 0 and says nothing on standard error, except what matches *complaints*.
    """
    with contextlib.ExitStack() as stack:
        stdin: IO[bytes] | int = subprocess.DEVNULL
        if piped:
            source = stack.enter_context(started("cat", piped, stdin=stdin, stdout=subprocess.PIPE))
            assert source.stdout
            stdin = source.stdout
        said = stack.enter_context(tempfile.TemporaryFile(prefix=PREFIX))
        process = stack.enter_context(
            started(*argv, stdin=stdin, stdout=subprocess.PIPE, stderr=said, cwd=cwd, env=env)
        )
        if not isinstance(stdin, int):
            stdin.close()  # so that `cat` notices when the program goes
        assert process.stdout
        took: Result | Exception
        try:
            took = take(cast("BinaryIO", process.stdout))
        except Exception as error:  # noqa: BLE001 - the program's own words come first
            took = error
            process.stdout.close()
        status = process.wait()
        said.seek(0)
        text = said.read().decode(errors="replace")
        if complaints:
            text = re.sub(complaints, "", text)
        if status or text.strip():
            raise FailedError(f"{argv[0]!s} ends with {_status(status)}: {text.strip()[-600:]}")
    if isinstance(took, Exception):
        raise took
    return took


def _status(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else str(status)


def run(
    *argv: Argument,
    piped: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """All that a program says on standard output; otherwise like :func:`read_output`."""
    return read_output(lambda stream: stream.read(), *argv, piped=piped, cwd=cwd, env=env)


def run_silent(*argv: Argument, piped: Path | None = None, cwd: Path | None = None) -> None:
    """Run a program that has nothing to say."""
    if said := run(*argv, piped=piped, cwd=cwd).strip():
        raise FailedError(f"{argv[0]!s} says {said[-600:].decode(errors='replace')}")


def hash_output(*argv: Argument, piped: Path | None = None, complaints: str = "") -> Found:
    return read_output(of_stream, *argv, piped=piped, complaints=complaints)


def is_large(archive: Path) -> bool:
    return archive.stat().st_size >= LARGE


def version(
    *argv: Argument, pattern: str = r"(\d+(?:\.\d+)+)", needs: str = ""
) -> Callable[[], str]:
    """A :attr:`Reader.version` that finds *pattern* in what a program says; *needs*: another
    program that has to be there, one that doesn't tell its own."""

    def find() -> str:
        for program in filter(None, (os.fsdecode(argv[0]), needs)):
            if not shutil.which(program):
                raise MissingError(f"{program} is not installed")
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment(), check=False, timeout=60,
        )  # fmt: skip
        said = done.stdout.decode(errors="replace")
        match = re.search(pattern, said)
        if not match:
            raise MissingError(f"{argv[0]!s} says {said.strip()[-200:]!r}")
        return match[1]

    return find


@functools.cache
def compiled(source: str, *libraries: str) -> Path:
    """A driver of ours that is written in C, as a program; gone when we end."""
    folder = tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-")
    _FOLDERS.append(folder)
    program = Path(folder.name) / Path(source).stem
    flags: Sequence[str] = ("-O2", "-Wall", "-Wextra", "-Werror", "-D_FILE_OFFSET_BITS=64")
    found = subprocess.run(
        ["pkg-config", "--cflags", "--libs", *libraries],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if found.returncode:
        raise MissingError(found.stderr.strip())
    run_silent("gcc", *flags, "-o", program, DRIVERS / source, *found.stdout.split())
    return program


_FOLDERS: Final[list[tempfile.TemporaryDirectory[str]]] = []


def library_version(name: str) -> Callable[[], str]:
    """A :attr:`Reader.version` that asks pkg-config."""
    return version("pkg-config", "--modversion", name)
