"""``--setuid``: root mounts, and a daemon without any right serves.

Three things need root: mount(2), the kernel's read-ahead, and unmounting. So the process that was
started stays root, and does these. It forks the daemon, which becomes the user before it reads
anything of the library, and passes signals on. It ends with the daemon, and with its status; a
mount that is dead by then is unmounted.

Of capabilities(7) it needs SYS_ADMIN, SETUID and SETGID, and no other: what it does for the user
in the user's folders it does as the user.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from zipfs import logs
from zipfs.config import Settings
from zipfs.errors import FuseError, MountpointError
from zipfs.mount import mountpoint as mp
from zipfs.mount import privileged
from zipfs.mount.status import runtime
from zipfs.sealing.sealers import index_file, make_library, romm_rules
from zipfs.system import mounts
from zipfs.system.subprocesses import Identity
from zipfs.system.users import acting_as, identity_of

_PASSED_ON: Final = (signal.SIGHUP, signal.SIGUSR1)
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG: Final = 1


class Served(NamedTuple):
    """What :func:`zipfs.mount.daemon.run` needs besides the settings."""

    device: int | None
    """The descriptor of ``/dev/fuse``; None: the daemon mounts."""
    mounted: Callable[[], None]


def separate(settings: Settings) -> Served:
    """Mount for the user that *settings* name, and return in a new process that is that user.

    The process that was started never returns, but exits with the status of the new one. Nothing
    happens without such a user, or if this process is that user already. Raises
    :exc:`zipfs.errors.ZipfsError`.
    """
    user = wanted(settings)
    if user is None:
        return Served(None, lambda: None)
    mp.check_fuse(allow_other=settings.allow_other)
    device, path = mount_for(settings, user)
    ours, its = os.pipe()
    ending = set(_ENDING) | set(_PASSED_ON)
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # until both know what to do
    child = os.fork()
    if child:
        os.close(device)  # it alone keeps the mount
        os.close(its)
        _attend(child, ours, path, settings)
    os.close(ours)
    become(user)
    _end_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)

    def mounted() -> None:
        os.write(its, b"\0")
        os.close(its)

    return Served(device, mounted)


def wanted(settings: Settings) -> Identity | None:
    """The user that this process is to become by *settings*; None if it is to stay as it is.

    Raises :exc:`FuseError` if it isn't root.
    """
    user = identity_of(settings.setuid) if settings.setuid is not None else None
    if user is None or (os.geteuid() == user.uid and user.uid != 0):
        return None
    if os.geteuid() != 0:
        raise FuseError(f"only root can become {user.name}; leave --setuid out")
    return user


def drop(settings: Settings) -> None:
    """Become the user that *settings* want, if any, for good. Raises :exc:`FuseError`."""
    if (user := wanted(settings)) is not None:
        become(user)


def mount_for(settings: Settings, user: Identity) -> tuple[int, str]:
    """Mount for a daemon that is to be *user*: the descriptor of ``/dev/fuse``, and the path.

    Raises :exc:`zipfs.errors.ZipfsError`.
    """
    try:
        with acting_as(user):
            pass
    except PermissionError as error:
        raise FuseError(privileged.cannot_become(user, error)) from None
    with acting_as(user):  # before anything is made or cleared away
        make_library(settings)
        romm_rules(settings)
        options = mp.mount_options(settings)
    path = mp.prepare(settings.where, settings.library, index_file(settings))
    device = privileged.mount(path, options, uid=os.getuid(), gid=os.getgid())
    # Not in its home: a system user often doesn't own its home.
    for variable, make in (
        ("RUNTIME_DIRECTORY", runtime.for_user),
        ("STATE_DIRECTORY", runtime.state_for_user),
    ):
        if not os.environ.get(variable):
            with contextlib.suppress(OSError):  # then there is no `zipfs status`
                os.environ[variable] = make(user)
    return device, path


def become(user: Identity) -> None:
    """Change this process to *user*, for good. Raises :exc:`FuseError`."""
    privileged.become(user)


def _end_with_parent() -> None:
    """Have the kernel end this process with its parent: prctl(2)."""
    # After the change of user, which clears it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _attend(child: int, mounted: int, path: str, settings: Settings) -> None:
    """Pass signals on to the daemon *child*, and exit with its status.

    *mounted* is readable once the mount can be used.
    """
    logs.about(path)
    os.chdir("/")
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    watched = {*_ENDING, *_PASSED_ON, signal.SIGCHLD}
    for number in watched:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, watched)
    waiting = select.poll()
    waiting.register(receiving, select.POLLIN)
    waiting.register(mounted, select.POLLIN)
    status = _ended(child)
    while status is None:
        for descriptor, _ in waiting.poll():
            if descriptor == mounted:
                waiting.unregister(mounted)
                if os.read(mounted, 1):
                    # After the daemon's first answer, which resets it.
                    mp.tune(path, mp.read_ahead_for(settings))
                continue
            for received in os.read(receiving, 4096):
                _pass_on(child, received, path)
        status = _ended(child)
    _unmount(path, dead=True)
    sys.exit(status if status >= 0 else 128 - status)


def _ended(child: int) -> int | None:
    """The exit status of *child*; None while it runs."""
    # Of all children: the first process of a container gets those that have lost their parent.
    ended = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == child:
                ended = os.waitstatus_to_exitcode(status)
            if pid in (0, child):
                break
    return ended


def _pass_on(child: int, number: int, path: str) -> None:
    if number in _ENDING:
        _unmount(path)  # so that no program sees it dead; downloads end with the daemon
    elif number not in _PASSED_ON:
        return
    uid = os.stat(f"/proc/{child}").st_uid
    # kill(2): without CAP_KILL, a process of that user may.
    with contextlib.suppress(OSError), acting_as(Identity("", uid, os.getegid(), ())):
        os.kill(child, number)


def _unmount(path: str, *, dead: bool = False) -> None:
    """Unmount the zipfs at *path*, if there is one; with *dead*, only one without a daemon."""
    mounted = mounts.mounted_at(path)
    if mounted and mounted.kind == mp.KIND and (not dead or mounts.is_dead(path)):
        with contextlib.suppress(MountpointError, FuseError):
            mp.unmount(path)
