"""Out of everybody's way: work that nobody waits for takes what CPU and disk have left.

On Linux; elsewhere these do what they can, or nothing. Nothing here fails: who may not be
lowered, or runs where the call is forbidden, works on as he is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from typing import Final

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
