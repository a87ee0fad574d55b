"""File systems of others, mounted as zipfs is: read ahead as far, and gone in the end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.mount import is_mounted, unmount_by_force
from bench.process import find_program, start, stop
from bench.session import Stop

START_SECONDS: Final = 20.0


def compiled(source: Path, folder: Path, end: Stop) -> tuple[Path, str]:
    """The program of the C file *source*, compiled into *folder*, and the version of libfuse.

    Raises :exc:`BenchError` if it can't be.
    """
    compiler = find_program("gcc", package="gcc")
    package = find_program("pkg-config", package="pkg-config")
    flags = end.run(package, "--cflags", "--libs", "fuse3").split()
    program = folder / source.stem
    end.run(compiler, "-O2", "-o", str(program), str(source), *flags)
    return program, end.run(package, "--modversion", "fuse3").strip()


@contextlib.contextmanager
def mounted_by(
    command: Sequence[str | Path], mountpoint: Path, read_ahead_kib: int
) -> Iterator[subprocess.Popen[bytes]]:
    """What *command* mounts at *mountpoint*, as long as the block lasts."""
    process = start(command)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_mounted(mountpoint):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{command[0]} doesn't mount; its status is {process.poll()}")
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
    """Only root may; without, it is what zipfs has then, too: the default."""
    with contextlib.suppress(PermissionError):
        _control(mountpoint).write_text(str(kib))


def _control(mountpoint: Path) -> Path:
    device = mountpoint.stat().st_dev
    return Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
