"""Programs that work on a mount for `make endure`: they end when they have to."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final

from bench.process import start, stop
from tests.model.versions import ModelError

SECONDS: Final = 300.0


class Programs:
    """Runs programs; *quiet* is set when what waits should not, *ended* when all has to end."""

    def __init__(self, mountpoint: Path, quiet: threading.Event, ended: threading.Event) -> None:
        self.mountpoint = mountpoint
        self.quiet = quiet
        self._ended = ended

    @property
    def ending(self) -> bool:
        return self._ended.is_set()

    def run(self, *command: str) -> int:
        """Run it to its end; the exit status. Its output is of no interest."""
        with Path(os.devnull).open("wb") as nowhere:
            process = start(command, stderr=nowhere)
        try:
            until = time.monotonic() + SECONDS
            while process.poll() is None:
                if self._ended.wait(0.05):
                    return 0
                if time.monotonic() > until:
                    raise ModelError(f"{command[0]} did not end in {SECONDS:.0f} s")
            return process.returncode
        finally:
            stop(process)
