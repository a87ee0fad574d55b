"""One run of a benchmark: it ends when it is told to, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from bench import BenchError
from bench.process import start, stop


class StoppedError(Exception):
    """Ctrl-C or SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


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
                while process.poll() is None:
                    self.check()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.1)
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
def temporary_folder(prefix: str, mountpoint: str) -> Iterator[Path]:
    """A folder with a mount point in it: removed as a whole only if nothing is mounted there."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    (folder / mountpoint).mkdir(parents=True)
    try:
        yield folder
    finally:
        # rmdir fails on a mount point.
        try:
            (folder / mountpoint).rmdir()
        except OSError as error:
            print(f"{folder} stays: {error.strerror}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
