"""Reads the status of a mount from its daemon: the client of :mod:`zipfs.mount.status_server`.

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
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from zipfs.errors import MountpointError
from zipfs.mount import mountpoint, runtime
from zipfs.system import mounts

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
    """The status of the zipfs mounted at *path*, as in :mod:`zipfs.mount.status`.

    Raises :exc:`MountpointError` if none is mounted there, if its daemon has died, doesn't
    answer within :data:`PATIENCE` seconds, or doesn't let this user connect.
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
        if _is_dead(mount.path):
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
        pid, _ = _peer(channel)
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
    users = {0, os.geteuid()}
    user = next(
        (int(option[8:]) for option in mount.options if re.fullmatch(r"user_id=[0-9]+", option)),
        None,
    )
    if user is not None:
        users.add(user)
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
            _connect(channel, f"/proc/self/fd/{descriptor}/{name}", deadline)
            if _peer(channel)[1] not in users | runtime.users_of(folder, descriptor):
                return None
            return answer_of(channel, deadline)
    finally:
        os.close(descriptor)


def _peer(channel: socket.socket) -> tuple[int, int]:
    """PID and user of the server; the PID is 0 if it is in another namespace."""
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, user, _ = struct.unpack("3i", credentials)
    return pid, user


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


def _is_dead(path: str) -> bool:
    """:func:`zipfs.system.mounts.is_dead`; False for a mount that doesn't answer."""
    dead = threading.Event()

    def look() -> None:
        if mounts.is_dead(path):
            dead.set()

    # A thread that hangs there ends with the process: a wait for FUSE can be killed.
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(PATIENCE)
    return dead.is_set()


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
