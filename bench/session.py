"""One run of the demo or the benchmarks: it ends when told to, and leaves nothing behind."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.status import Status

from bench import BenchError
from bench.mount import mounts_below
from bench.process import start, stop


def console(width: int = 132) -> Console:
    """The terminal, whatever its width; a pipe has none at all, so it is *width*: a table of nine
    columns."""
    found = Console()
    if not found.is_terminal:
        found.width = width
    return found


def add_output(parser: argparse.ArgumentParser, out: Path, published: Path) -> None:
    """The options for where figures go: a file, or *published* instead of *out*."""
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help=f"where all figures go (default: {out}/)"
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help=f"put figures, plots and the documents' tables into the repository ({published}/)",
    )


class StoppedError(Exception):
    """Ctrl-C or SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class End:
    """How a benchmark ended: *status* is the exit status."""

    status = 0


@contextlib.contextmanager
def ended() -> Iterator[End]:
    """Turn what ends a benchmark early into one line and an exit status."""
    end = End()
    try:
        yield end
    except StoppedError as stopped:
        end.status = 128 + stopped.number
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        end.status = 1
    except OSError as error:
        print(f"bench: {error.filename or 'error'}: {error.strerror}", file=sys.stderr)
        end.status = 1


class _Ended:
    """Waits for the end of a child, and no longer."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)

    def wait(self, seconds: float) -> bool:
        return bool(select.select([self._descriptor], [], [], seconds)[0])

    def close(self) -> None:
        os.close(self._descriptor)


class Stop:
    """Notes that the end is wanted; whoever works on calls :meth:`check`.

    Nothing is raised out of a handler: between starting a mount and noting that it has to be
    ended, that would leave the mount behind.
    """

    def __init__(self) -> None:
        self._number = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._number = number

    def check(self) -> None:
        """Raise :exc:`StoppedError` if the end is wanted."""
        if self._number:
            raise StoppedError(self._number)

    def run(self, *command: str) -> str:
        """What a program writes to its standard output; ends it if the end is wanted.

        Raises :exc:`BenchError` with its last words if it fails.
        """
        # Files and no pipes: nobody reads while it runs.
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            process = start(command, stdout=stdout, stderr=stderr)
            try:
                # Not Popen.wait, which looks up to 50 ms later: whoever waits may measure.
                with contextlib.closing(_Ended(process.pid)) as ended:
                    while not ended.wait(0.1):
                        self.check()
                process.wait()
            finally:
                stop(process)
            stdout.seek(0)
            stderr.seek(0)
            said = stdout.read().decode(errors="replace")
            if process.returncode:
                name = Path(command[0]).name
                lines = (stderr.read().decode(errors="replace") or said).strip().splitlines()
                reason = lines[-1] if lines else "it said nothing"
                raise BenchError(f"{name} ended with status {process.returncode}: {reason}")
        return said


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder that is removed as a whole at the end, unless something is mounted in it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        # Nothing below a mount of ours could be removed anyway, but a library that somebody
        # mounted is no place to try.
        if still := mounts_below(folder):
            with contextlib.suppress(OSError):  # nobody reads any more
                print(f"{folder} stays: {still[0]} is mounted", file=sys.stderr)
        else:
            shutil.rmtree(folder)


class Progress:
    """What is being done: in place on a terminal, the big steps as lines where there is none."""

    def __init__(self, console: Console, status: Status) -> None:
        self._console = console
        self._status = status
        self._start = time.monotonic()

    def begin(self, what: str) -> None:
        """A big step."""
        self.show(what)
        if not self._console.is_terminal:
            seconds = time.monotonic() - self._start
            self._console.print(f"{seconds:4.0f} s  {what} …", highlight=False)

    def show(self, what: str) -> None:
        """A small one, of which there are many."""
        self._status.update(f"{what} …")
