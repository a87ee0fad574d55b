"""Functions that the commands share: settings, output, progress bar, log on a terminal."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any, Final, Self, TextIO

import click
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
from zipfs.errors import ConfigError, OutputError
from zipfs.logs import to_stderr as log_to_stderr

__all__ = [
    "Bar",
    "console",
    "drop_output",
    "guard_output",
    "load_settings",
    "log_to_stderr",
    "mountpoint_of",
    "print_json",
]

_WIDTH: Final = 160


class _Output(io.FileIO):
    """Standard output; its write errors are :exc:`OutputError`, unlike those of files."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"can't write the output: {error.strerror}") from None


def guard_output() -> None:
    """Make failing writes to standard output raise :exc:`zipfs.errors.OutputError`.

    A stream that was closed (``>&-``) is None in Python, and the next file would get its number.
    """
    if os.name != "posix":
        return
    out: TextIO | None = sys.stdout
    if out is None:
        # Opened for reading, so that writes fail with EBADF, as on a closed stream.
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


def console() -> Console:
    """Standard output for tables: as wide as the terminal, or 160 columns if it is none."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH)


def print_json(document: object) -> None:
    click.echo(json.dumps(document, indent=2))


def mountpoint_of(mountpoint: str | None, config: str | None) -> str:
    """The mount point that the command line or *config* names. Raises :exc:`ConfigError`."""
    if mountpoint is None and config is not None:
        mountpoint = load_settings(config).mountpoint
        if mountpoint is None:
            raise ConfigError(f"no mountpoint in {config}; name it on the command line")
    if mountpoint is None:
        raise ConfigError("no mountpoint given; name it on the command line or in a config file")
    return mountpoint


def drop_output() -> None:
    """Redirect standard output to /dev/null, so that the buffered rest is dropped."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def load_settings(config: str | None = None, **given: Any) -> Settings:
    """Settings of *config* and of the options *given*, which are None, () or False if not set."""
    return Settings.load(
        config,
        {
            # Not `in`: 0 equals False, and is a value.
            name.replace("_", "-"): None if value is False or value == () else value
            for name, value in given.items()
        },
    )


class Bar:
    """A progress bar on stderr, labelled *doing*; shows nothing if stderr is no terminal."""

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
