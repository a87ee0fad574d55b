"""What the process as a whole is given: one heap, a low priority, a number of open files.

Nothing here fails: who may not be lowered, or runs where a call is missing or forbidden, works
on as it is.

One heap: glibc gives threads heaps of their own, up to eight for each CPU (mallopt(3),
M_ARENA_MAX). The daemon's threads come and go, each takes what a look at a game takes, and what
one of them leaves free the others can't use: with as many objects alive, ``chmod -R`` of a
library, eight times over, made the process grow from 52 MiB to 88, and with one heap to 70.
Threads that would wait for each other there hold the interpreter's lock anyway. Elsewhere (musl)
there is one heap, and no such call.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from typing import Final, NamedTuple

_M_ARENA_MAX: Final = -8  # malloc.h


def share_heap() -> bool:
    """Have all threads that begin from now on use one heap; whether that could be said.

    Whoever has set ``MALLOC_ARENA_MAX`` has chosen.
    """
    if "MALLOC_ARENA_MAX" in os.environ or "glibc.malloc.arena_max" in os.environ.get(
        "GLIBC_TUNABLES", ""
    ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library than glibc
        return False
    return bool(mallopt(ctypes.c_int(_M_ARENA_MAX), ctypes.c_int(1)))


_IOPRIO_WHO_PROCESS: Final = 1
_IOPRIO_IDLE: Final = 3 << 13
"""ioprio_set(2): IOPRIO_CLASS_IDLE, shifted by IOPRIO_CLASS_SHIFT."""
_IOPRIO_SET: Final = {
    ("x86_64", 8): 251,
    ("aarch64", 8): 30,
    ("riscv64", 8): 30,
    ("armv6l", 4): 314,
    ("armv7l", 4): 314,
    ("armv8l", 4): 314,
    ("i386", 4): 289,
    ("i686", 4): 289,
}
"""The number of the call, for which the C library has no function: by machine and the
bytes of a pointer."""

_OWN: Final = 32
"""Descriptors that the daemon needs for itself, with some to spare."""

_libc: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


def lower_process() -> None:
    """Lower the calling thread, which is the process if it has but one: nice 19, idle I/O."""
    if hasattr(os, "setpriority"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 19)
    if _libc is None:
        return
    number = _IOPRIO_SET.get((os.uname().machine, ctypes.sizeof(ctypes.c_void_p)))
    if number is not None:  # and if it fails, never mind
        _libc.syscall(ctypes.c_long(number), _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)


def lower_session() -> None:
    """Lower the whole session that the process is in: only for whom that is his own.

    A nice value is for a session alone, where the kernel gives each its share of the CPU:
    sched(7). A tenth of another's, for on a machine that is busy for days a hundredth gets
    nothing done.
    """
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "wb", buffering=0) as file:
        file.write(b"10")


class Limits(NamedTuple):
    """How many files may be open at once, and how many threads may have some of their own."""

    files: int
    """In the pool."""
    threads: int
    """Threads that read; each may have a file open beyond the pool."""
    looking: int = 8
    """Threads that look at the library; each has a folder open, twice while it is listed."""
    spare: int = 0
    """Threads of either kind that make up for stuck ones."""

    @classmethod
    def within(cls, descriptors: int) -> Limits:
        """What fits into a process's limit on *descriptors* (RLIMIT_NOFILE).

        Some are left for the index, the log, the loop, and the file that is hashed.
        """
        free = max(24, descriptors - _OWN)
        threads = max(2, min(64, free // 6))
        spare = min(256, free // 16)
        return cls(
            files=max(4, min(8192, free - 3 * threads - 3 * spare)),
            threads=threads,
            looking=threads,
            spare=spare,
        )
