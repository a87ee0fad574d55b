"""Ordinary users, and a zipfs that they can run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bench.mount import zipfs_program
from tests.support.mounting import as_user, environment
from tests.support.waiting import SECONDS

# fusermount3 wants users with a name.
NOBODY: Final = pwd.getpwnam("nobody").pw_uid
"""An ordinary user, who mounts."""
OTHER: Final = pwd.getpwnam("daemon").pw_uid
"""Another one, who looks into the mount."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")

_REPOSITORY: Final = Path(__file__).parents[2]


def run_as(user: int | None, *command: str | bytes | Path) -> subprocess.CompletedProcess[bytes]:
    """Run any *command* as *user*, to its end."""
    return subprocess.run(
        [*(as_user(user) if user is not None else []), *command],
        env=environment({"LC_ALL": "C"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )


def program_for_everybody(folder: Path) -> str:
    """A ``zipfs`` that every user can run: ours, or one in a new environment in *folder*.

    Ours may be out of their reach, in a closed home folder; and so may be the Python that it
    was made from. The system's own is not.
    """
    ours = zipfs_program()
    if run_as(NOBODY, ours, "--version").returncode == 0:
        return ours
    python = folder / "python"
    done = subprocess.run(
        [_REPOSITORY / ".ci/zipfs-venv", "/usr/bin/python3", python],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    program = str(python / "bin/zipfs")
    assert run_as(NOBODY, program, "--version").returncode == 0
    return program


@contextlib.contextmanager
def device_for_everybody() -> Iterator[None]:
    """``/dev/fuse`` with the mode that distributions ship, 0666, and then as it was.

    Locked, so that of two test runs at once none takes it away from the other.
    """
    device = os.open("/dev/fuse", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(device, fcntl.LOCK_EX)
        mode = stat.S_IMODE(os.fstat(device).st_mode)
        os.chmod("/dev/fuse", 0o666)  # noqa: S103 - what is meant
        try:
            yield
        finally:
            os.chmod("/dev/fuse", mode)
    finally:
        os.close(device)
