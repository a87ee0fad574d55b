"""Serves the status of the daemon at a Unix socket, for ``zipfs status``.

A client that connects gets one document and is disconnected; nothing that it sends is read, so
there is nothing to parse. A client that doesn't receive is disconnected after :data:`PATIENCE`
seconds, and the oldest one when there are more than :data:`CLIENTS`. No error here ends the mount
(DESIGN H4).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

import trio

from zipfs.mount.status import runtime
from zipfs.system import mounts

log = logging.getLogger(__name__)

PATIENCE: Final = 5.0
"""Time limit for a client to receive the document, in seconds."""
CLIENTS: Final = 16
_BACKLOG: Final = 64
_PAUSE: Final = 1.0
"""Seconds until the next try if accepting fails, for example without free descriptors."""
_PRIVATE: Final = 0o600
_SHARED: Final = 0o660
"""In systemd's folder, whose mode the unit sets: the group may connect, too."""

Document = Callable[[], Awaitable[bytes]]


async def run(
    document: Document,
    path: str,
    environment: Mapping[str, str] = os.environ,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *document* for the mount at *path*, for ever; returns if there is no runtime folder."""
    try:
        with contextlib.ExitStack() as stack:
            listener = await trio.to_thread.run_sync(_listen, path, environment, stack)
            task_status.started()
            if listener:
                await _accept(trio.socket.from_stdlib_socket(listener), document)
    except Exception:
        # H4: nothing unexpected ends the mount.
        log.exception("unexpected error; `zipfs status` will get no answer")
        with contextlib.suppress(RuntimeError):  # started() was called before
            task_status.started()


def _listen(
    path: str, environment: Mapping[str, str], stack: contextlib.ExitStack
) -> socket.socket | None:
    """The socket for the mount at *path*, removed by *stack*; None without a runtime folder."""
    given = runtime.given_folder(environment)
    folder = given or runtime.own_folder(environment)
    mount = mounts.mounted_at(path)
    if folder is None or mount is None:
        why = "the mount isn't there" if folder else "there is no $XDG_RUNTIME_DIR"
        log.debug("`zipfs status` will get no answer: %s", why)
        return None
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
            if folder == runtime.SYSTEM:
                # systemd makes the folders of units in this one, also for other users.
                os.chmod(folder, 0o755)  # noqa: S103 - the sockets in it are private
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        stack.callback(os.close, descriptor)
        if reason := runtime.unsafe(os.fstat(descriptor)):
            log.warning("`zipfs status` will get no answer: no socket in %s, as %s", folder, reason)
            return None
        _sweep(folder, descriptor)
        name = runtime.socket_name(mount.device)
        return _bind(descriptor, name, _SHARED if given else _PRIVATE, stack)
    except OSError as error:
        log.info("`zipfs status` will get no answer: no socket in %s: %s", folder, error.strerror)
        return None


def _sweep(path: str, folder: int) -> None:
    """Remove the sockets of daemons that were killed (DESIGN H5)."""
    for name in os.listdir(path):
        if not runtime.is_socket_name(name):
            continue
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.setblocking(False)
            try:
                channel.connect(f"/proc/self/fd/{folder}/{name}")
            except ConnectionRefusedError:  # no process listens
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)
            except OSError:
                continue


def _bind(folder: int, name: str, mode: int, stack: contextlib.ExitStack) -> socket.socket:
    """A socket that listens at *name* in *folder*; it replaces a stale one."""
    # By the descriptor: unix(7) allows paths of 107 bytes, and the folder can't be exchanged.
    listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    os.fchmod(listener.fileno(), _PRIVATE)  # bind(2) makes the file with this mode
    new = f".{name}.new"  # only this mount uses the name, so an existing one is stale
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)
    listener.bind(f"/proc/self/fd/{folder}/{new}")
    try:
        os.chmod(new, mode, dir_fd=folder)
        listener.listen(_BACKLOG)
        ours = os.stat(new, dir_fd=folder, follow_symlinks=False).st_ino
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(new, dir_fd=folder)
        raise
    listener.setblocking(False)
    stack.callback(_remove, folder, name, ours)
    return listener


def _remove(folder: int, name: str, inode: int) -> None:
    """Remove the socket, unless another one has replaced it."""
    with contextlib.suppress(OSError):
        if os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino == inode:
            os.unlink(name, dir_fd=folder)


async def _accept(listener: trio.socket.SocketType, document: Document) -> None:
    """Accept and answer clients, for ever."""
    clients: OrderedDict[trio.CancelScope, None] = OrderedDict()
    failing = False
    async with trio.open_nursery() as nursery:
        while True:
            try:
                client, _ = await listener.accept()
                failing = False
            except OSError as error:
                if not failing:
                    log.warning("`zipfs status` gets no answer: %s", error.strerror)
                failing = True
                await trio.sleep(_PAUSE)
                continue
            if len(clients) >= CLIENTS:
                next(iter(clients)).cancel()
            nursery.start_soon(_answer, client, document, clients)
            await trio.lowlevel.checkpoint()


async def _answer(
    client: trio.socket.SocketType,
    document: Document,
    clients: OrderedDict[trio.CancelScope, None],
) -> None:
    with client, trio.move_on_after(PATIENCE) as scope, _among(clients, scope):
        try:
            await trio.SocketStream(client).send_all(await document())
        except (trio.BrokenResourceError, OSError):
            pass  # the client has disconnected
        except Exception:
            # H4: nothing unexpected ends the mount.
            log.exception("unexpected error while answering `zipfs status`")


@contextlib.contextmanager
def _among(clients: OrderedDict[trio.CancelScope, None], scope: trio.CancelScope) -> Iterator[None]:
    clients[scope] = None
    try:
        yield
    finally:
        clients.pop(scope, None)
