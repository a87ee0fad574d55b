"""A child process that maps an archive, since whoever reads a mapping may get SIGBUS."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import IO, Final

from tests.support.waiting import SECONDS

_CHILD: Final = """
import mmap, os, struct, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY)
status = os.fstat(descriptor)
mapped = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
out = sys.stdout.buffer
out.write(struct.pack("<QQq", status.st_ino, status.st_size, status.st_mtime_ns))
out.flush()
while question := sys.stdin.buffer.read(16):
    offset, length = struct.unpack("<QQ", question)
    data = mapped[offset : offset + length]
    out.write(data)
    out.flush()
"""


class Mapped:
    """A mapping of the archive at *path*. Raises :exc:`FileNotFoundError` if it isn't there."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _CHILD, os.fspath(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        validators = _out(self._process).read(24)
        if len(validators) < 24:
            self.close()
            raise FileNotFoundError(path)
        self.inode, self.size, self.mtime_ns = struct.unpack("<QQq", validators)

    def read(self, offset: int, length: int) -> bytes | None:
        """These bytes of the mapping; None if touching them was answered by SIGBUS."""
        pipe = self._process.stdin
        assert pipe
        pipe.write(struct.pack("<QQ", offset, length))
        pipe.flush()
        found = _out(self._process).read(max(0, min(length, self.size - offset)))
        if len(found) == min(length, self.size - offset):
            return found
        assert self._process.wait(SECONDS) == -signal.SIGBUS
        return None

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()
        self._process.wait(SECONDS)


def _out(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout
    return process.stdout
