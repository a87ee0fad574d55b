"""nullfs.c: a file system in C that reads nothing to answer a read, and so the limit of FUSE.

It is compiled here, with the compiler and the libfuse that zipfs's own dependencies need.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Final

from bench.peers.fusefs import compiled, mounted_by
from bench.session import Stop
from bench.speed.results import About

SOURCE: Final = Path(__file__).with_suffix(".c")


def build(folder: Path, stop: Stop) -> tuple[Path, About]:
    """The program, compiled into *folder*; raises :exc:`BenchError` if it can't be."""
    program, libfuse = compiled(SOURCE, folder, stop)
    about = About(
        name="FUSE itself",
        version=f"bench/peers/nullfs.c, libfuse {libfuse}",
        settings="answers each read from its own memory; a thread a request, a device each",
    )
    return program, about


def nullfs(
    program: Path, file: Path, size: int, read_ahead_kib: int
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """*file* of so many zeros, in a mount on its folder, until the block ends."""
    return mounted_by([program, file.name, str(size), file.parent], file.parent, read_ahead_kib)
