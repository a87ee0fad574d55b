"""glibc's heaps of threads, as /proc shows them."""

from __future__ import annotations

import itertools
import os
import platform
from pathlib import Path

import pytest

HEAP = 64 << 20
"""What glibc reserves for a heap of a thread's, at a multiple of it (HEAP_MAX_SIZE)."""

glibc_only = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or "MALLOC_ARENA_MAX" in os.environ,
    reason="heaps of threads are glibc's",
)


def thread_heaps(pid: int) -> int:
    """How many heaps of threads a process has: a part to write to, and the reserve behind it."""
    regions = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split()
        begin, end = (int(address, 16) for address in fields[0].split("-"))
        if len(fields) == 5:
            regions.append((begin, end, fields[1]))
    return sum(
        one[0] % HEAP == 0
        and one[1] == two[0]
        and (one[2], two[2]) == ("rw-p", "---p")
        and two[1] - one[0] == HEAP
        for one, two in itertools.pairwise(regions)
    )
