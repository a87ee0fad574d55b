"""Somebody who swaps a folder for a symbolic link, again and again, as fast as he can."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.support.libraries import make_file
from tests.support.waiting import SECONDS
from zipfs.index import hash_file
from zipfs.library import files, library
from zipfs.system import paths

SECRET: Final = b"canary " * 1000
OPEN: Final = b"public " * 1000
"""As long, so that nothing but the bytes tells the two apart."""

# renameat2(2) with RENAME_EXCHANGE: at no moment is there nothing at either place. It says how
# often on stdout, when it is told to end. Now and then it is still for a moment: whoever looks
# twice is to see the same at times, on a slow machine too.
_PROGRAM: Final = """
import ctypes, os, select, sys, time
swap = ctypes.CDLL(None, use_errno=True).renameat2
one, two = map(os.fsencode, sys.argv[1:])
print("ready", flush=True)
count = 0
while not select.select([0], [], [], 0)[0]:
    for _ in range(100):
        if swap(-100, one, -100, two, 2):
            sys.exit(os.strerror(ctypes.get_errno()))
        count += 1
    if count % 300 == 0:
        time.sleep(0.002)
print(count)
"""


def make_library(root: Path, outside: Path) -> tuple[Path, Path]:
    """A library with a platform, and beside that a link to a folder outside that looks alike.

    Gives the two that are to be swapped.
    """
    for folder, data in ((root / "roms/psx", OPEN), (outside, SECRET)):
        for name in ("Game/1", "Game/sub/2", "single"):
            make_file(folder / name, data)
    (root / "roms/away").symlink_to(outside)
    return root / "roms/psx", root / "roms/away"


@contextlib.contextmanager
def swapping(one: Path, two: Path) -> Iterator[Callable[[], None]]:
    """Swap what is at *one* and *two* while this lasts; what it gives ends that early."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(one), str(two)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def end() -> None:
        count, _ = process.communicate("\n", timeout=SECONDS)
        assert process.returncode == 0, "can't swap here"
        assert int(count) > 0

    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield end
        if process.poll() is None:
            end()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(SECONDS)


def follow_links(patch: Callable[[object, str, Any], None] = setattr) -> None:
    """Have zipfs open by path, where only the last component is no link: the race, wide open.

    What a test of that race proves, it proves only if it fails with this.
    """
    for module in (paths, library, files, hash_file):
        if hasattr(module, "open_path"):
            patch(module, "open_path", os.open)
        if hasattr(module, "lstat"):
            patch(module, "lstat", os.lstat)


if __name__ == "__main__":
    # A `zipfs` as it would be without that care; the process that hashes is a careful one.
    follow_links()
    from zipfs.cli.cli import main

    main()
