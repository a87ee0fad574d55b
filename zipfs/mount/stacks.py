"""What a daemon is doing: the stacks of all threads and tasks, printed at a signal."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import sys
import traceback
from typing import Final

import trio

DUMP: Final = signal.SIGUSR1


def dump_stacks(token: trio.lowlevel.TrioToken) -> None:
    """Dump all stacks at each SIGUSR1, for ever, in a thread: the event loop may be stuck.

    Not ``faulthandler.register``: that reads the frames of other threads while they run, and on a
    busy mount one dump in a hundred ended in a segmentation fault. This thread holds the GIL.
    """
    while True:
        signal.sigwait({DUMP})
        if has_descriptor(sys.stderr):
            faulthandler.dump_traceback(all_threads=True)
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(_dump_tasks)


def _dump_tasks() -> None:
    """Print the stacks of all trio tasks on stderr."""
    lines = ["Tasks:\n"]
    root = trio.lowlevel.current_root_task()
    todo = [root] if root else []
    while todo:
        task = todo.pop()
        lines.append(f"  {task.name}\n")
        for frame, line in task.iter_await_frames():
            summary = traceback.StackSummary.extract(iter([(frame, line)]))
            lines += [f"  {text}" for text in summary.format()]
        for nursery in task.child_nurseries:
            todo += nursery.child_tasks
    sys.stderr.write("".join(lines))
    sys.stderr.flush()


def has_descriptor(stream: object) -> bool:
    try:
        stream.fileno()  # type: ignore[attr-defined]  # the test is whether it exists
    except (AttributeError, OSError, ValueError):
        return False
    return True
