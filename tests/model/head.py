"""A head: one mount of the library under test, whose daemons come and go.

With a shared index several heads show one library (DESIGN K1 to K4).
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.model.versions import check
from tests.support.mounting import Mounted, Mounts
from zipfs.mount.restart import holder, telling

_PROGRAM: Final = """
import sys
from zipfs.archive import validators
from zipfs.cli import cli
from zipfs.mount.restart import holder
if holder_file := {holder!r}:
    holder.__file__ = holder_file
first = validators.first_mtime
validators.first_mtime = lambda newest, content: first(newest, content % {times})
cli.main()
"""
"""zipfs with another holder, and with so many times of a day for contents."""
_SERVES: Final = re.compile("took the mount on|that should take over has failed")
"""The end of a restart in the log."""


@dataclass
class Restart:
    """The last time that the daemon died or was replaced."""

    began: float = -math.inf
    ended: float = -math.inf
    wanted: int = 0
    """How often :data:`_SERVES` is in the log when it has ended."""


class Head:
    """The mount of *library* at *place* with *options*, made by *mounts*.

    It outlives its daemon if it is *supervised*. *times* is the number of modification times that
    contents are given first, of one date: the fewer, the more clashes there are (DESIGN V3).
    """

    def __init__(
        self,
        mounts: Mounts,
        library: Path,
        place: Path,
        options: Sequence[str],
        *,
        settle: float,
        times: int,
        supervised: bool,
        shares: bool,
    ) -> None:
        self.path: Final = place
        """The mount point."""
        self.restart = Restart()
        self._ctimes: dict[object, tuple[int, int]] = {}
        self._mounts = mounts
        self._library = library
        self._options = options
        self._settle = settle
        self._supervised = supervised
        self._shares = shares
        file = _patient(place.with_name(f"{place.name}.py")) if supervised else ""
        self._program = [sys.executable, "-c", _PROGRAM.format(holder=file, times=times)]
        place.mkdir()
        index = place.with_name(f"{place.name}-index")
        index.mkdir()
        self._index = index / "index"
        self.mounted = self._mount()

    def _mount(self) -> Mounted:
        mounted = self._mounts(
            self._library,
            *self._options,
            settle=self._settle,
            mountpoint=self.path,
            index=self._index,
            supervised=self._supervised,
            program=self._program,
        )
        # Both are the point of it. The other says of a name that it isn't shown as it is.
        mounted.expect_log(r"reading .* ended in an error: a file of it has changed")
        mounted.expect_log(r"is called .*%5C")
        if self._supervised:
            mounted.expect_log("the daemon has died")
            mounted.expect_log("that should take over has failed|its successor has died")
            mounted.expect_log("of before the restart isn't there any more")
        if self._shares:
            mounted.wait_log("sharing the index")
            mounted.recount_descriptors()
        return mounted

    def follow(self, path: object, ctime_ns: int, version: int = 0) -> None:
        """The ctime of *path* never goes back, and another version has a later one (F1)."""
        before, last = self._ctimes.get(path, (0, version))
        check(before <= ctime_ns, f"the ctime of {path} went back")
        check(last == version or before < ctime_ns, f"{path}: another version of the same ctime")
        self._ctimes[path] = ctime_ns, version

    def check(self) -> None:
        """Fails if zipfs has ended."""
        self.mounted.check_runs()
        restart = self.restart
        if restart.ended == math.inf and self._served() >= restart.wanted > 0:
            restart.ended = time.monotonic()

    def _served(self) -> int:
        return len(_SERVES.findall(self.mounted.log_text()))

    def mount_again(self, *, killed: bool) -> None:
        """End zipfs, well or *killed*, and start it again."""
        if killed:
            self.mounted.kill()
            self._ctimes.clear()  # those of the last moments may be lost
        else:
            self.mounted.process.send_signal(signal.SIGTERM)
            self.mounted.see_end()
        self.restart = Restart()
        self.mounted = self._mount()

    def kill(self, rng: random.Random) -> str:
        """Have another daemon go on: this one is killed, or hands the mount over (F2).

        Every few seconds at most, but now and then at once: the one that starts, too. Returns what
        was done, if anything.
        """
        last = self.restart
        if time.monotonic() - last.began < rng.choice([0.0, 2.0, 4.0, 6.0]):
            return ""
        done = ""
        self.restart = Restart(began=time.monotonic(), ended=math.inf)
        daemons = self.mounted.daemons
        if last.ended < math.inf and len(daemons) == 1 and rng.random() < 0.3:
            done = f"{daemons[0]} is to hand over"
            os.kill(self.mounted.process.pid, signal.SIGUSR2)
        elif daemons:
            daemon = rng.choice(daemons)
            done = f"killed {daemon} of {daemons}"
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon, signal.SIGKILL)
            self._ctimes.clear()  # those of the last moments may be lost
        self.restart.wanted = self._served() + 1
        return done


def _patient(path: Path) -> str:
    """A holder at *path* that doesn't mind how often daemons die."""
    source = Path(holder.__file__).read_text()
    for name, value in (("MOST", "1_000_000"), ("PAUSES", "(0.0,)")):
        source, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", source, flags=re.MULTILINE)
        check(count == 1, f"the holder has no {name}")
    path.write_text(source)
    shutil.copy(telling.__file__, path.parent)  # which it loads
    return str(path)
