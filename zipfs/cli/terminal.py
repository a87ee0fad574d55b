"""What the commands have in common: settings, progress and log on a terminal."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from zipfs.config import Settings
from zipfs.errors import LibraryError, OutputError, UnansweredError
from zipfs.logs import to_stderr as log_to_stderr
from zipfs.system.subprocesses import FailedError, ask

__all__ = [
    "Bar",
    "check_answers",
    "drop_output",
    "guard_output",
    "load_settings",
    "log_to_stderr",
]


class _Output(io.FileIO):
    """Standard output. What goes wrong with it is nobody else's :exc:`OSError`."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"can't write the output: {error.strerror}") from None


def check_answers(settings: Settings) -> None:
    """Raise :exc:`LibraryError` if the library, or what is below it, doesn't answer.

    To look at a share or a mount that hangs takes for ever, and we couldn't be ended. For
    commands that have no threads yet.
    """
    if os.name != "posix" or not (hasattr(os, "fork") and hasattr(os, "statvfs")):
        return
    try:
        ask(_look_at, settings.library)
    except UnansweredError as error:
        raise LibraryError(
            f"the library {settings.library} is on something that hangs ({error}); `zipfs doctor"
            f" {settings.library}` may tell more"
        ) from None
    except (OSError, FailedError):
        return  # which is told by whoever opens it


def _look_at(path: str) -> None:
    os.path.realpath(path)
    os.statvfs(path)  # of which no cache knows


def guard_output() -> None:
    """From now on a write to standard output that fails raises :exc:`zipfs.errors.OutputError`.

    A stream that was closed (``>&-``) is none to Python, and its number would be the next file's.
    """
    if os.name != "posix":
        return
    out: TextIO | None = sys.stdout
    if out is None:
        # Only to be read: whoever writes there is told EBADF, as without it.
        descriptor = os.open(os.devnull, os.O_RDONLY)
        out = open(descriptor, encoding="utf-8", closefd=False)  # noqa: SIM115 - for good
    err: TextIO | None = sys.stderr
    if err is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for good
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(out.fileno(), "w", closefd=False)),
        encoding=out.encoding,
        errors=out.errors,
        line_buffering=out.isatty(),
    )


def drop_output() -> None:
    """Standard output goes nowhere from now on, and so does what of it is still to be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def load_settings(config: str | None = None, **given: Any) -> Settings:
    """Settings of what was given; what wasn't, click tells as None, () or False."""
    return Settings.load(
        config,
        {
            # Not `in`: 0 equals False, and is a value.
            name.replace("_", "-"): None if value is False or value == () else value
            for name, value in given.items()
        },
    )


class Bar:
    """A progress bar on stderr, of what is *doing*; on anything but a terminal it stays silent."""

    def __init__(self, doing: str = "hashing") -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn(doing),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def total(self, size: int) -> None:
        self._progress.update(self._task, total=size)

    def advance(self, size: int) -> None:
        self._progress.advance(self._task, size)
