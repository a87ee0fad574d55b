"""A running mount, as its log and /proc describe it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.mount import Mount, wait_ready
from bench.session import Stop
from bench.usage import CLOCK_TICKS, stat_fields

SEAL_SECONDS: Final = 3600.0
ANSWER_SECONDS: Final = 120.0
SEALED: Final = "everything is sealed"


class Live:
    """A mount, and what it says of itself."""

    def __init__(self, mount: Mount, log: Path, stop: Stop) -> None:
        self._mount = mount
        self._log = log
        self._stop = stop

    def ready(self) -> None:
        wait_ready(self._mount, seconds=ANSWER_SECONDS, check=self._stop.check)

    def wait_sealed(self, times: int = 1, meanwhile: Callable[[], object] | None = None) -> None:
        """Wait until it has said so many *times* that everything is sealed."""
        deadline = time.monotonic() + SEAL_SECONDS
        while self._log.read_text(errors="replace").count(SEALED) < times:
            self._stop.check()
            self._mount.check()
            if time.monotonic() > deadline:
                raise BenchError(f"not sealed after {SEAL_SECONDS:.0f} s; see {self._log}")
            if meanwhile:
                meanwhile()
            self._mount.wait(0.02)

    def rescan(self) -> float:
        """Seconds of a walk through all of the library."""
        said = self._log.read_text(errors="replace").count(SEALED)
        started = time.monotonic()
        self._mount.process.send_signal(signal.SIGHUP)
        self.wait_sealed(said + 1)
        return time.monotonic() - started

    @property
    def pid(self) -> int:
        return self._mount.process.pid

    @property
    def cpu(self) -> float:
        """Seconds that it has used of a processor; less noisy than time, where others work."""
        fields = stat_fields(self.pid) or []
        return sum(map(int, fields[11:13])) / CLOCK_TICKS

    def memory(self, kind: str = "VmRSS") -> float:
        """MiB of it, or at most so far (``VmHWM``)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                return int(line.split()[1]) / 1024
        raise BenchError(f"no {kind} in /proc")
