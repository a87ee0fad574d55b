"""One heap for all threads of the daemon.

glibc gives threads heaps of their own, up to eight for each CPU (mallopt(3), M_ARENA_MAX). The
daemon's threads come and go, each takes what a look at a game takes, and what one of them leaves
free the others can't use: with as many objects alive, `chmod -R` of a library, eight times over,
made the process grow from 52 MiB to 88, and with one heap to 70. Threads that would wait for each
other there hold the interpreter's lock anyway.

Elsewhere (musl) there is one heap, and no such call.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

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
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(ctypes.c_int(_M_ARENA_MAX), ctypes.c_int(1)))
