"""Makes a mount that outlives its daemon, where no service manager holds it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Collection
from typing import Final

from zipfs.config import Settings
from zipfs.errors import FuseError, UnknownOptionError
from zipfs.mount import as_user, daemon, privileged, pyfuse3_loop
from zipfs.mount import mountpoint as mp
from zipfs.mount.restart import holder, state
from zipfs.mount.restart.held import Held
from zipfs.mount.sd_notify import has_stored

log = logging.getLogger(__name__)

_COMMFD: Final = "_FUSE_COMMFD"
"""fusermount3's variable: the socket by which it returns the descriptor (libfuse, mount.c)."""


def divide(
    settings: Settings, *, quiet: bool = False, before: Callable[[], object] = lambda: None
) -> Held | None:
    """Mount, and divide this process into the daemon and its holder; returns in the daemon.

    None if the mount is to end with the daemon: ``--no-supervise``, or the service manager holds
    it already, or it has options that only libfuse can make it with. *quiet*: the holder logs to
    syslog. *before* is called when it is mounted. Raises :exc:`ZipfsError`.
    """
    if settings.no_supervise or has_stored() or not pyfuse3_loop.is_replaceable():
        return None
    settings = settings.absolute()
    user = as_user.wanted(settings)
    try:
        if user is not None:
            mp.check_fuse(allow_other=settings.allow_other)
            fuse, path = as_user.mount_for(settings, user)
        else:
            path = daemon.prepare(settings)
            fuse = _mount(path, mp.mount_options(settings))
    except UnknownOptionError as error:
        log.debug("a crash of the daemon will end the mount, as %s", error)
        return None
    try:
        number = mp.zipfs_mount(path).device
        memory = state.create()
        before()
        tune = []
        if user is not None:  # the daemon may not
            tune = [sys.executable, "-m", "zipfs", "tune", path]
            tune += ["--read-ahead", str(settings.read_ahead), "--library", str(settings.library)]
        return _divide(fuse, memory, path, number, tune, quiet=quiet)
    except BaseException:
        os.close(fuse)
        mp.unmount(path)
        raise


def _divide(
    fuse: int, memory: int, path: str, number: str, tune: list[str], *, quiet: bool
) -> Held:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    folder = _folder()
    sys.stdout.flush()
    sys.stderr.flush()
    above = os.getpid()
    pid = os.fork()
    if not pid:
        ours.close()
        if os.environ.get("WATCHDOG_PID") == str(above):
            os.environ["WATCHDOG_PID"] = str(os.getpid())
        return Held(fuse, memory, its.detach())
    its.close()
    for descriptor in (fuse, memory, ours.fileno()):
        os.set_inheritable(descriptor, True)
    given = {
        "fuse": fuse,
        "state": memory,
        "mountpoint": path,
        "number": number,
        "command": [sys.executable, *sys.orig_argv[1:]],
        "folder": folder,
        "pid": pid,
        "channel": ours.fileno(),
        "tune": tune,
        "quiet": quiet,
    }
    if quiet:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
    environment = dict(os.environ, **{holder.HOLDER: json.dumps(given)})
    try:
        command = [sys.executable, "-I", "-S", holder.__file__, path]
        os.execve(sys.executable, command, environment)  # noqa: S606 - a list, no shell
    finally:
        os._exit(127)  # the daemon goes on without a holder


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return "/nonexistent"


def _mount(path: str, options: Collection[str]) -> int:
    """Mount on *path*; returns the descriptor of ``/dev/fuse``.

    Raises :exc:`UnknownOptionError` for options that can't be had so, :exc:`FuseError`.
    """
    if os.geteuid() == 0:
        return privileged.mount(path, options, uid=os.getuid(), gid=os.getgid())
    if "auto_unmount" in options:
        raise UnknownOptionError("auto_unmount watches the daemon")
    return _by_helper(path, options)


def _by_helper(path: str, options: Collection[str]) -> int:
    """The same by fusermount3, for users."""
    program = shutil.which("fusermount3") or "fusermount3"
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, its:
        done = subprocess.run(
            [program, "-o", ",".join(sorted(options)), "--", path],
            env=dict(os.environ, **{_COMMFD: str(its.fileno())}),
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise FuseError(f"can't mount on {path}: {lines[-1]}{mp.forbidden()}")
        its.close()
        _, found, _, _ = socket.recv_fds(ours, 1, 1)
    if not found:
        raise FuseError(f"can't mount on {path}: fusermount3 has returned no descriptor")
    os.set_inheritable(found[0], False)
    return found[0]
