"""A zipfs mount as a child process, followed by what it says on its notification socket."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from bench import BenchError
from bench.process import start, stop
from zipfs.system.mounts import mounts

READY_SECONDS: Final = 30.0
UNMOUNT_SECONDS: Final = 15.0


class Mount:
    """A running ``zipfs mount``; made by :func:`mounted`."""

    def __init__(
        self, *, process: subprocess.Popen[bytes], mountpoint: Path, notifications: socket.socket
    ) -> None:
        self.process = process
        self.mountpoint = mountpoint
        self.ready = False
        self.status = ""
        """Its latest ``STATUS=``."""
        self._notifications = notifications

    def wait(self, seconds: float) -> bool:
        """Wait for news at most so long; whether there were any.

        A signal that comes meanwhile is handled at once, and the waiting goes on: give it a
        short time and look at what the handler did.
        """
        self._notifications.settimeout(seconds)
        try:
            message = self._notifications.recv(65536)
        except (TimeoutError, BlockingIOError):
            return False
        for line in message.decode(errors="replace").splitlines():
            key, _, value = line.partition("=")
            if key == "STATUS":
                self.status = value
            elif line == "READY=1":
                self.ready = True
        return True

    def check(self) -> None:
        """Raise :exc:`BenchError` if it has ended; why is on its standard error."""
        status = self.process.poll()
        if status is not None:
            raise BenchError(f"zipfs ended with status {status}")


def zipfs_program() -> str:
    """The command of the environment that we run in."""
    path = Path(sysconfig.get_path("scripts"), "zipfs")
    if not path.exists():
        raise BenchError(f"{path} is missing: make venv")
    return str(path)


@contextlib.contextmanager
def mounted(
    library: Path,
    mountpoint: Path,
    *,
    workdir: Path,
    options: Sequence[str] = (),
    stderr: IO[bytes] | None = None,
    supervised: bool = False,
    program: Sequence[str] = (),
) -> Iterator[Mount]:
    """Mount *library*; yields as soon as the process runs (:attr:`Mount.ready` comes later).

    Whatever happens, nothing is mounted on *mountpoint* afterwards: by SIGTERM, or by force if
    that was no use. *workdir* takes the socket. zipfs logs to *stderr* (None: to ours).
    The process is the daemon, or with *supervised* the one that starts it again. *program* is how
    zipfs is started, if not as that of our environment.
    """
    alone = () if supervised else ("--no-supervise",)
    notify = workdir / f"notify-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        try:
            notifications.bind(str(notify))
        except OSError as error:
            raise BenchError(f"{notify}: {error.strerror or error}; set TMPDIR=/tmp") from None
        try:
            process = start(
                [*(program or [zipfs_program()]), "mount", *alone, *options, library, mountpoint],
                stderr=stderr,
                env={**os.environ, "NOTIFY_SOCKET": str(notify)},
            )
            try:
                yield Mount(process=process, mountpoint=mountpoint, notifications=notifications)
            finally:
                stop(process, timeout=UNMOUNT_SECONDS)
                unmount_by_force(mountpoint)
        finally:
            notify.unlink(missing_ok=True)


def wait_ready(
    mount: Mount, *, seconds: float = READY_SECONDS, check: Callable[[], None] | None = None
) -> None:
    """Wait for READY=1; raises :exc:`BenchError` if it doesn't come.

    *check* is called several times a second, and ends the waiting by raising.
    """
    deadline = time.monotonic() + seconds
    while not mount.ready:
        mount.check()
        if check is not None:
            check()
        if time.monotonic() > deadline:
            raise BenchError(f"zipfs is not ready after {seconds:.0f} s")
        mount.wait(0.1)


def is_mounted(mountpoint: Path) -> bool:
    """Whether anything is mounted there, also if its process is dead (then no `stat` works)."""
    path = mountpoint.parent.resolve() / mountpoint.name
    return any(Path(mount.path) == path for mount in mounts())


def mounts_below(folder: Path) -> list[Path]:
    """What is mounted on *folder* or anywhere below it."""
    top = folder.resolve()
    return [path for mount in mounts() if (path := Path(mount.path)).is_relative_to(top)]


def unmount_lazily(mountpoint: Path) -> None:
    """Unmount all that is mounted on *mountpoint*, in whatever state it is."""
    command = ["fusermount3", "-u", "-z", str(mountpoint)]
    if os.geteuid() == 0:  # works for any state of the mount
        command = ["umount", "--lazy", str(mountpoint)]
    while is_mounted(mountpoint):
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return


def unmount_by_force(mountpoint: Path) -> None:
    """The same for what a process that is gone has left, with a line that says so."""
    if not is_mounted(mountpoint):
        return
    unmount_lazily(mountpoint)
    # Last, and its failure ignored: a terminal that is gone must not keep us from unmounting.
    with contextlib.suppress(OSError):
        print(f"{mountpoint} was still mounted: unmounted by force", file=sys.stderr)
