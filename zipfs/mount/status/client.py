"""Reads the status of a mount from its daemon: the client of :mod:`zipfs.mount.status.server`.

The mount is found in mountinfo, and the daemon answers over its socket. Only if no daemon answers
there is the mount itself accessed, with a time limit, to distinguish a dead mount from a daemon
without a usable socket. The server must be root, the user who mounted it, this user, or the owner
of a folder that root has made (SO_PEERCRED, unix(7)), and its answer is checked.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from zipfs.errors import MountpointError
from zipfs.mount import mountpoint
from zipfs.mount.status import runtime
from zipfs.mount.status.unserved import unserved
from zipfs.system import mounts
from zipfs.system.subprocesses import Identity
from zipfs.system.users import acting_as, peer

PATIENCE: Final = 5.0
"""Seconds to wait for an answer."""
_MAX_BYTES: Final = 32 << 20
"""Bytes of the longest answer that is accepted."""
_DOCUMENT: Final = 1
_RECEIVE: Final = 1 << 16
_RETRY: Final = 0.02
"""Seconds between two tries to connect while the queue is full."""


_AnswerOf = Callable[[socket.socket, float], bytes]
"""From a connected socket and a deadline, of time.monotonic, to the answer."""


class SilentError(Exception):
    """The socket is served, but no answer came in time."""


def ask(path: str, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The status of the zipfs mounted at *path*, as in :mod:`zipfs.mount.status.document`.

    Raises :exc:`MountpointError` if none is mounted there, if its daemon has died, doesn't
    answer within :data:`PATIENCE` seconds, or doesn't let this user connect; at once, and as
    :exc:`UnservedError`, if another one is on its way.
    """
    mount = mountpoint.zipfs_mount(path)
    try:
        answer, why = _ask_all(mount, environment, _received)
    except SilentError:
        raise MountpointError(
            f"the daemon of {path} is alive but has not answered for {PATIENCE:.0f} s; if that"
            f" lasts, look at its log, and end it with: zipfs unmount --lazy {path}"
        ) from None
    if answer is None:
        if error := unserved(mount.path, mount.device, _users(mount)):
            raise error
        answers = mounts.asked(mount.path, PATIENCE)
        if answers is None:
            raise MountpointError(
                f"nobody answers for {path}: its daemon is being started again, or is stuck; its"
                " log tells more"
            )
        if not answers:
            raise MountpointError(
                f"the daemon of {path} has died; mount it again, which removes the dead mount,"
                f" or unmount it: zipfs unmount {path}"
            )
        raise MountpointError(f"can't ask the daemon of {path}: {why}")
    return _checked(answer, path)


def daemon_of(mount: mounts.Mount, environment: Mapping[str, str] = os.environ) -> int | None:
    """A descriptor of the process that serves *mount*, pidfd_open(2); the caller closes it.

    None if it isn't known: it has no socket, or none that this user may connect to, or it is in
    another PID namespace.
    """
    descriptor: int | None = None

    def remember(channel: socket.socket, _deadline: float) -> bytes:
        nonlocal descriptor
        pid, _ = peer(channel)
        if pid and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # before Linux 5.3
                descriptor = os.pidfd_open(pid)
        return b""

    with contextlib.suppress(SilentError):
        _ask_all(mount, environment, remember)
    return descriptor


def _ask_all(
    mount: mounts.Mount, environment: Mapping[str, str], answer_of: _AnswerOf
) -> tuple[bytes | None, str]:
    """The answer of the first socket of *mount* that is served; None and the reason if none is."""
    users = _users(mount)
    user = _owner(mount)
    name = runtime.socket_name(mount.device)
    deadline = time.monotonic() + PATIENCE
    why = (
        "it has no socket; it is an older version, or it was started without a runtime folder"
        " ($RUNTIME_DIRECTORY, or $XDG_RUNTIME_DIR for users), or in a container"
    )
    try:
        for folder in runtime.candidates(environment, user):
            try:
                answer = _ask_one(folder, name, users, deadline, answer_of)
                if answer is not None:
                    return answer, ""
            except PermissionError:
                why = _REFUSED
            except OSError:
                continue  # there is none, or it isn't served
    except PermissionError:
        why = _REFUSED
    return None, why


def _owner(mount: mounts.Mount) -> int | None:
    """The user who has mounted it; None if the table doesn't say."""
    found = (re.fullmatch(r"user_id=([0-9]+)", option) for option in mount.options)
    return next((int(match[1]) for match in found if match), None)


def _users(mount: mounts.Mount) -> set[int]:
    """Whose answers count: root's, of who has mounted it, and ours."""
    owner = _owner(mount)
    return {0, os.geteuid()} | (set() if owner is None else {owner})


_REFUSED: Final = (
    "no permission; run this as root, as the user who mounted it, or, if systemd runs it, as a"
    " member of its group"
)


def _ask_one(
    folder: str, name: str, users: set[int], deadline: float, answer_of: _AnswerOf
) -> bytes | None:
    """The answer of the socket *name* in *folder*; None if none of *users* serves it."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            # By the descriptor, as unix(7) allows paths of 107 bytes.
            address = f"/proc/self/fd/{descriptor}/{name}"
            try:
                _connect(channel, address, deadline)
            except PermissionError:
                if os.geteuid() != 0:
                    raise
                # Root without CAP_DAC_OVERRIDE, in a container.
                owner = os.fstat(descriptor)
                with acting_as(Identity("", owner.st_uid, owner.st_gid, (owner.st_gid,))):
                    _connect(channel, address, deadline)
            if peer(channel)[1] not in users | runtime.users_of(folder, descriptor):
                return None
            return answer_of(channel, deadline)
    finally:
        os.close(descriptor)


def _received(channel: socket.socket, deadline: float) -> bytes:
    """The whole answer; what is too long is cut, and so no document."""
    answer = bytearray()
    while len(answer) <= _MAX_BYTES:
        channel.settimeout(_left(deadline))
        try:
            piece = channel.recv(_RECEIVE)
        except TimeoutError:
            raise SilentError from None
        if not piece:
            break
        answer += piece
    return bytes(answer)


def _connect(channel: socket.socket, address: str, deadline: float) -> None:
    while True:
        channel.settimeout(_left(deadline))
        try:
            channel.connect(address)
        except TimeoutError:
            raise SilentError from None
        except BlockingIOError:  # connect(2): the server's queue is full
            time.sleep(_RETRY)
        else:
            return


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise SilentError
    return left


def _checked(answer: bytes, path: str) -> dict[str, Any]:
    """The document in *answer*. Raises :exc:`MountpointError` if it isn't a valid one."""
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise MountpointError(
            f"the answer of the daemon of {path} is incomplete; try again, or look at its log"
        )
    if found.get("document") != _DOCUMENT:
        version = str(found.get("version"))
        raise MountpointError(
            f"the daemon of {path} is another version of zipfs ({version!a}); mount it again, or"
            " use the zipfs that it was mounted with"
        )
    return found
