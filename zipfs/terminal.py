"""What the commands have in common: settings, progress and log on a terminal."""

from __future__ import annotations

from typing import Any, Self

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
from zipfs.logs import to_stderr as log_to_stderr

__all__ = ["Bar", "load_settings", "log_to_stderr"]


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
