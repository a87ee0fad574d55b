"""Readers that show an archive as a folder: a mount over the mount, compared with the source."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench.mount import is_mounted
from tests.readers.gate import Found, Reader, Show, of_folder
from tests.readers.programs import LARGE, SECONDS, Argument, FailedError, started, version
from tests.readers.tools import READERS_PYTHON
from tests.support.mounting import unmount_lazily

_RATARMOUNT: Final = READERS_PYTHON.with_name("ratarmount")


def _shown_by(*argv: Argument) -> Show:
    """The folder that a FUSE program shows: run as ``ARGV ARCHIVE MOUNTPOINT`` in the
    foreground."""

    @contextlib.contextmanager
    def show(archive: Path, place: Path) -> Iterator[Path]:
        point = place / "shown"
        point.mkdir()
        with (
            tempfile.TemporaryFile() as said,
            started(
                *argv, archive, point, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=place
            ) as process,
        ):
            try:
                deadline = time.monotonic() + SECONDS
                while not is_mounted(point):
                    if process.poll() is not None or time.monotonic() > deadline:
                        said.seek(0)
                        text = said.read().decode(errors="replace").strip()
                        raise FailedError(f"{argv[0]!s} shows nothing: {text[-600:]}")
                    time.sleep(0.01)
                yield point
            finally:
                _unmount(point)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)

    return show


def _unmount(point: Path) -> None:
    command = ["umount" if os.geteuid() == 0 else "fusermount3"]
    command += [] if os.geteuid() == 0 else ["-u"]
    subprocess.run([*command, point], capture_output=True, check=False)
    unmount_lazily(point)  # if somebody is in there


def _read(show: Show) -> Callable[[Path, Path], dict[bytes, Found]]:
    def read(archive: Path, place: Path) -> dict[bytes, Found]:
        with show(archive, place) as folder:
            return of_folder(folder, LARGE - 1)

    return read


_fuse_zip = _shown_by("fuse-zip", "-r", "-f")
# Its index would be written beside the archive, or into the home folder.
_ratarmount = _shown_by(_RATARMOUNT, "-f", "--index-file", ":memory:")

READERS: Final = (
    Reader(
        "fuse-zip",
        version("fuse-zip", "-V", pattern=r"(?:fuse-zip|version)\D*(\S+)"),
        _read(_fuse_zip),
        heavy=True,
        sizes_only_above=LARGE - 1,
        show=_fuse_zip,
    ),
    Reader(
        "ratarmount",
        version(_RATARMOUNT, "--version", pattern=r"ratarmount (\S+)"),
        _read(_ratarmount),
        heavy=True,
        sizes_only_above=LARGE - 1,
        show=_ratarmount,
    ),
)
