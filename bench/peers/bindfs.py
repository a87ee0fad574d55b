"""bindfs: a file system in C that passes a folder through, and so the limit of FUSE."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.mount import is_mounted, unmount_by_force
from bench.process import find_program, start, stop
from bench.results import About
from bench.session import Stop

START_SECONDS: Final = 20.0
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


@contextlib.contextmanager
def bindfs(
    source: Path, mountpoint: Path, read_ahead_kib: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Show *source* at *mountpoint* until the block ends, read ahead as far as for zipfs."""
    process = start([find_program("bindfs", package="bindfs"), *OPTIONS, source, mountpoint])
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_mounted(mountpoint):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"bindfs doesn't mount; its status is {process.poll()}")
            time.sleep(0.02)
        set_read_ahead(mountpoint, read_ahead_kib)
        yield process
    finally:
        stop(process)
        unmount_by_force(mountpoint)


def read_ahead(mountpoint: Path) -> int:
    """How far the kernel reads ahead in a mount, in KiB."""
    return int(_control(mountpoint).read_text())


def set_read_ahead(mountpoint: Path, kib: int) -> None:
    """Only root may; without, bindfs has what zipfs has then, too: the default."""
    with contextlib.suppress(PermissionError):
        _control(mountpoint).write_text(str(kib))


def _control(mountpoint: Path) -> Path:
    device = mountpoint.stat().st_dev
    return Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
