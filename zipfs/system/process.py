"""Settings of the whole process: its heap, a low priority, limits on open files.

Nothing here fails: where a call is missing or forbidden, the process continues without it.

One heap: glibc gives threads heaps of their own, up to eight per CPU (mallopt(3), M_ARENA_MAX).
The daemon's threads are short-lived, each allocates memory to examine a game, and memory freed
in one heap isn't available in the others: with an equal number of live objects, eight times
``chmod -R`` of a library made the process grow from 52 MiB to 88, and with one heap to 70.
Threads that would contend for it hold the interpreter's lock anyway. Other C libraries (musl)
have one heap and no such call.

Large blocks aren't in it: glibc maps what has 128 KiB or more by itself, and unmaps it when it is
freed. But each freed one raises that limit (M_MMAP_THRESHOLD), so the second buffer of 1 MiB was
in the heap, and any small object above it kept it there: twenty reads that waited for a disk at
once added 20 MiB, for as long as the next walk through the library didn't replace the object. A
limit that was set stays.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import time
from typing import Final, NamedTuple

_M_MMAP_THRESHOLD: Final = -3  # malloc.h
_M_ARENA_MAX: Final = -8
_LARGE: Final = 256 << 10
"""Bytes of a block that is mapped by itself: less than any buffer that is used for a read."""
_NEW_OBJECTS: Final = 20_000
"""More than there are, by which the young ones are collected; a megabyte or two."""


def prepare_heap() -> None:
    """Make of the heap what a daemon needs, before there are threads."""
    share_heap()
    map_large_blocks()
    collect_rarely()


def share_heap() -> bool:
    """Make all threads started from now on use one heap; returns whether that was possible.

    Does nothing if ``MALLOC_ARENA_MAX`` is set, the user's own choice.
    """
    return _mallopt(_M_ARENA_MAX, 1, "MALLOC_ARENA_MAX", "glibc.malloc.arena_max")


def map_large_blocks() -> bool:
    """Keep large blocks out of the heap, so that they are the system's again when they are freed.

    Returns whether that was possible. Does nothing if ``MALLOC_MMAP_THRESHOLD_`` is set.
    """
    variable, tunable = "MALLOC_MMAP_THRESHOLD_", "glibc.malloc.mmap_threshold"
    return _mallopt(_M_MMAP_THRESHOLD, _LARGE, variable, tunable)


def _mallopt(parameter: int, value: int, variable: str, tunable: str) -> bool:
    """Set a parameter of glibc's heap, unless the user has by either name (mallopt(3))."""
    if variable in os.environ or tunable in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library than glibc
        return False
    return bool(mallopt(ctypes.c_int(parameter), ctypes.c_int(value)))


def collect_rarely() -> None:
    """Have the interpreter look for cycles after some ten thousand new objects, not some hundred.

    A folder of 20,000 games is told as 200,000 of them, none of which is garbage: looking for it
    took a sixth of the time. What isn't in a cycle is freed at once anyway.
    """
    gc.set_threshold(_NEW_OBJECTS)


def settle_heap() -> None:
    """Collect garbage once more, and then leave all that is there now out of it for ever.

    A collection of all objects stops every thread: half a second with those of 100,000 archives.
    What is left out is still freed when nothing refers to it; only cycles among it stay.
    """
    gc.collect()
    gc.freeze()


def started_ns() -> int:
    """When this process was started, in nanoseconds of CLOCK_MONOTONIC; now if that isn't known."""
    now = time.monotonic_ns()
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        started = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        # proc_pid_stat(5) counts from the boot, and the time asleep as well.
        return now - max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError):
        return now


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
"""The number of the system call, for which the C library has no function, by machine and
size of a pointer in bytes."""

_RESERVED: Final = 32
"""Number of descriptors reserved for the daemon itself."""

_libc: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


def lower_process() -> None:
    """Lower the calling thread, or a process with a single one, to nice 19 and idle I/O."""
    if hasattr(os, "setpriority"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 19)
    if _libc is None:
        return
    number = _IOPRIO_SET.get((os.uname().machine, ctypes.sizeof(ctypes.c_void_p)))
    if number is not None:  # errors are ignored
        _libc.syscall(ctypes.c_long(number), _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)


def lower_session() -> None:
    """Lower the whole session of the process, which must be its own, to nice 10.

    With autogroups (sched(7)), sessions share the CPU, and a process's nice value counts only
    within its session. Nice 10 is a tenth of the share of another session; at nice 19, a
    hundredth, hashing would hardly progress on a machine that is busy for days.
    """
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "wb", buffering=0) as file:
        file.write(b"10")


class Limits(NamedTuple):
    """Limits on open files, and on threads, each of which can have further files open."""

    files: int
    """Maximum number of open files in the pool."""
    threads: int
    """Maximum number of threads that read; each can have one file open beyond the pool."""
    looking: int = 8
    """Maximum number of threads that scan the library; each has a folder open, and a second
    descriptor of it while it is listed."""
    spare: int = 0
    """Maximum number of further threads, of all kinds, that replace stuck ones."""
    ahead: int = 0
    """Maximum number of threads that read ahead; each can have one file open beyond the pool."""
    folders: int = 0
    """Maximum number of folders that are kept open; each such thread can have one more."""

    @classmethod
    def within(cls, descriptors: int) -> Limits:
        """The limits for a process with at most *descriptors* (RLIMIT_NOFILE).

        Some are reserved for the index, the log, the loop, and the process that hashes.
        """
        free = max(24, descriptors - _RESERVED)
        threads = max(2, min(64, free // 6))
        spare = min(256, free // 16)
        folders = min(64, free // 16)
        return cls(
            files=max(4, min(8192, free - 4 * threads - 3 * spare - folders)),
            threads=threads,
            looking=threads,
            spare=spare,
            ahead=threads // 2,
            folders=folders,
        )
