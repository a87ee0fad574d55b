"""One heap for all threads, without large blocks, where the C library has such a choice."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from tests.support.heaps import glibc_only
from zipfs.system.process import collect_rarely, map_large_blocks, share_heap

PROGRAM = """
import ctypes, os, threading
from tests.support.heaps import thread_heaps
from zipfs.system.process import share_heap
said = share_heap() if {share} else None
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
meet = threading.Barrier(5)
def work():
    libc.malloc(ctypes.c_size_t(65536))
    meet.wait()
    meet.wait()
for _ in range(4):
    threading.Thread(target=work).start()
meet.wait()
print(said, thread_heaps(os.getpid()))
meet.wait()
"""

BUFFERS = """
import ctypes
from zipfs.system.process import map_large_blocks
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
said = map_large_blocks() if {share} else None
bytearray(1 << 20)  # glibc's own limit is above this from now on
before = resident()
buffers = []
for _ in range(20):
    buffers.append(bytearray(1 << 20))
    libc.malloc(ctypes.c_size_t(100_000))  # what stays, above it
del buffers
print(said, resident() - before >> 20)
"""


def said(share: bool, program: str = PROGRAM, **environment: str) -> list[str]:
    command = [sys.executable, "-c", program.replace("{share}", str(share))]
    # From here, `-c` finds the modules.
    root = Path(__file__).parents[2]
    ours = {**os.environ, **environment}
    done = subprocess.run(command, env=ours, cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.split()


@glibc_only
def test_threads_share_a_heap_from_then_on() -> None:
    assert said(share=True) == ["True", "0"]
    assert int(said(share=False)[1]) > 1


@glibc_only
@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_ARENA_MAX", "3"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=3")]
)
def test_who_has_chosen_keeps_the_choice(name: str, value: str) -> None:
    found, heaps = said(share=True, **{name: value})
    assert found == "False"
    assert int(heaps) > 0


@glibc_only
def test_buffers_are_given_back() -> None:
    given, left = said(share=True, program=BUFFERS)
    assert given == "True"
    assert int(left) < 5
    assert int(said(share=False, program=BUFFERS)[1]) >= 15


@glibc_only
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_MMAP_THRESHOLD_", "1000000000"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=33554432"),
    ],
)
def test_who_has_chosen_a_limit_keeps_it(name: str, value: str) -> None:
    assert said(share=True, program=BUFFERS, **{name: value})[0] == "False"


def test_where_the_c_library_has_no_such_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """As musl: there is one heap anyway."""
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not share_heap()
    assert not map_large_blocks()


class _Cycle:
    def __init__(self) -> None:
        self.own = self


def test_garbage_is_looked_for_rarely() -> None:
    """And is still found; the other thresholds stay what they are."""
    before = gc.get_threshold()
    try:
        collect_rarely()
        after = gc.get_threshold()
        assert after[0] >= 10_000
        assert after[1:] == before[1:]
        dead = weakref.ref(_Cycle())
        alive = [_Cycle() for _ in range(3 * after[0])]
        assert dead() is None
        assert len(alive) == 3 * after[0]
    finally:
        gc.set_threshold(*before)
