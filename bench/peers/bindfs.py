"""bindfs: a file system in C that passes a folder through, as little work as a real one has."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Final

from bench.peers.fusefs import mounted_by
from bench.process import find_program
from bench.session import Stop
from bench.speed.results import About

# bindfs runs one thread unless told otherwise; nginx asks from two workers and their threads.
OPTIONS: Final = ("-f", "--multithreaded", "-o", "ro")


def about(read_ahead_kib: int, stop: Stop) -> About:
    version = stop.run(find_program("bindfs", package="bindfs"), "--version").split()[-1]
    return About(
        name="bindfs",
        version=version,
        settings=f"{' '.join(OPTIONS)}; read-ahead {read_ahead_kib} KiB, as for zipfs;"
        " passes the stored archive through to the same nginx",
    )


def bindfs(
    source: Path, mountpoint: Path, read_ahead_kib: int
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """Show *source* at *mountpoint* until the block ends, read ahead as far as for zipfs."""
    program = find_program("bindfs", package="bindfs")
    return mounted_by([program, *OPTIONS, source, mountpoint], mountpoint, read_ahead_kib)
