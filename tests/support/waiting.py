"""Waiting for what should take a moment, on machines that have much else to do.

A test waits for a condition and never for a time: a loaded machine takes ten times as long, and
nothing is wrong with that. So none asserts an upper bound of the time that something took,
either; what never ends fails by :data:`SECONDS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import trio

SECONDS: Final = 240.0
"""How long to wait for what should take a moment; only a defect takes all of it. Less than the
time that a test has, so that it fails by itself and tells what it waited for."""


def poll(what: str, condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait until *condition* holds; fails if it doesn't within *seconds*.

    A condition that finds no file doesn't hold yet: an archive that is being made anew goes and
    comes between any two calls.
    """
    deadline = time.monotonic() + seconds
    while True:
        missing: FileNotFoundError | None = None
        try:
            if condition():
                return
        except FileNotFoundError as error:
            missing = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what}") from missing
        time.sleep(0.01)


async def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Give way to threads and other tasks until *condition* holds.

    The deadline is the real clock's: trio's may be one that only moves when a test says so.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain"
        await trio.to_thread.run_sync(time.sleep, 0.001)
