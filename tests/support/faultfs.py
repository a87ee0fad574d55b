"""A file system that passes a folder through, and fails on command.

    python -m tests.support.faultfs SOURCE MOUNTPOINT CONTROL_SOCKET

Any `read`, `stat` (lookup and getattr) or `open` of chosen files can be delayed, hung until
released, or failed with a chosen errno; reads can be made short, or to end too early, to give a
wrong byte, or none around one, as a disk does that rots. What `stat` says can be what it once was,
as on shares whose attributes come from a cache, and the inodes others, as after a new mount.
:class:`Faults` is the other end of the control socket, :func:`faultfs` runs it all.

Nothing is cached: names and attributes are good for no time at all and files are opened for direct
I/O, so that whatever a program asks for arrives here. Inodes, sizes and times are the source's.
Changes are made in the source; the mount is read-only.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import functools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, Final, Literal, ParamSpec, TypeVar

import pyfuse3
import trio

from tests.support.waiting import SECONDS, poll
from zipfs.logs import is_of_a_request

Op = Literal["read", "stat", "open"]
OPS: Final[tuple[Op, ...]] = ("read", "stat", "open")

P = ParamSpec("P")
R = TypeVar("R")
_Handler = Callable[Concatenate["FaultFs", P], Coroutine[Any, Any, R]]

# ---------------------------------------------------------------- the file system


@dataclass(eq=False)
class Rule:
    """What is to happen to *op* of the files that match *path*, a pattern as of fnmatch(3)."""

    path: str
    op: str
    action: str
    value: float
    released: trio.Event = field(default_factory=trio.Event)

    def matches(self, path: str, op: str) -> bool:
        return op == self.op and fnmatch.fnmatchcase(path, self.path)


class Rules:
    """The rules in force, and how often each operation was asked for."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.rules: list[Rule] = []
        self.asked: Counter[tuple[str, str]] = Counter()
        self.waiting: Counter[tuple[str, str]] = Counter()
        self.frozen: dict[str, os.stat_result] = {}
        """What `stat` says whatever happens, by path."""
        self.shift = 0
        """What is added to all inodes."""

    def status(self, path: str, absolute: str) -> os.stat_result:
        """What `stat` says of the file *absolute*, called *path*."""
        status = os.lstat(absolute)
        return self.frozen.get(path, status)

    async def apply(self, path: str, op: Op) -> None:
        """Count an operation; wait, or raise :exc:`pyfuse3.FUSEError`, as the rules want it."""
        self.asked[path, op] += 1
        for rule in [rule for rule in self.rules if rule.matches(path, op)]:
            if rule.action == "fail":
                raise pyfuse3.FUSEError(int(rule.value))
            self.waiting[path, op] += 1
            try:
                if rule.action == "delay":
                    await trio.sleep(rule.value)
                elif rule.action == "hang":
                    await rule.released.wait()
            finally:
                self.waiting[path, op] -= 1

    def limit(self, path: str, offset: int, size: int) -> int:
        """How many of the *size* bytes at *offset* a read may give."""
        for rule in self.rules:
            if rule.matches(path, "read"):
                if rule.action == "shorten":
                    size = max(0, min(size, int(rule.value) - offset))
                elif rule.action == "trickle":
                    size = min(size, int(rule.value))
        return size

    def damage(self, path: str, offset: int, data: bytes) -> bytes:
        """What a read gives instead of *data*. Raises :exc:`pyfuse3.FUSEError`."""
        for rule in list(self.rules):
            at = int(rule.value) - offset
            if not rule.matches(path, "read") or not 0 <= at < len(data):
                continue
            if rule.action == "break":
                raise pyfuse3.FUSEError(errno.EIO)
            if rule.action in ("rot", "rot once"):
                data = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
            if rule.action == "rot once":
                self.rules.remove(rule)
        return data

    def obey(self, command: dict[str, Any]) -> int:
        """Carry out a command of :class:`Faults`; the answer."""
        path, op, action = command["path"], command["op"], command["action"]
        if action == "count":
            return sum(n for (p, o), n in self.asked.items() if o == op and _match(p, path))
        if action == "waiting":
            return sum(n for (p, o), n in self.waiting.items() if o == op and _match(p, path))
        if action == "clear":
            over = [rule for rule in self.rules if path is None or rule.path == path]
            for name in [name for name in self.frozen if path in (None, name)]:
                del self.frozen[name]
        elif action == "release":
            over = [
                rule
                for rule in self.rules
                if rule.action == "hang" and path in (None, rule.path) and op in (None, rule.op)
            ]
        elif action == "freeze":
            self.frozen[path] = os.lstat(f"{self._source}/{path}")
            return 0
        elif action == "shift":
            self.shift = int(command["value"])
            return 0
        else:
            self.rules.append(Rule(path, op, action, command["value"]))
            return 0
        for rule in over:
            self.rules.remove(rule)
            rule.released.set()
        return len(over)


def _match(path: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(path, pattern)


def _handler(function: _Handler[P, R]) -> _Handler[P, R]:
    """Pass on what the source says: any other exception would end the mount."""

    @functools.wraps(function)
    async def handler(self: FaultFs, *arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            return await function(self, *arguments, **keywords)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from None
        except KeyError:
            raise pyfuse3.FUSEError(errno.ESTALE) from None

    return handler  # type: ignore[return-value]  # wraps() hides that it is a plain function


class FaultFs(pyfuse3.Operations):
    """Passes *source* through; *rules* say what goes wrong."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, source: str, rules: Rules) -> None:
        super().__init__()
        self._source = source
        self._rules = rules
        # Never forgotten: a test has few files. The last path by which one was seen.
        self._paths: dict[int, str] = {pyfuse3.ROOT_INODE: ""}
        self._files: dict[int, tuple[int, int]] = {}
        self._listings: dict[int, list[tuple[str, pyfuse3.EntryAttributes]]] = {}
        self._last = 0

    def _absolute(self, path: str) -> str:
        return f"{self._source}/{path}" if path else self._source

    @_handler
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        parent = self._paths[parent_inode]
        path = f"{parent}/{os.fsdecode(name)}" if parent else os.fsdecode(name)
        await self._rules.apply(path, "stat")
        status = self._rules.status(path, self._absolute(path))
        return self._entry(path, status)

    def _entry(self, path: str, status: os.stat_result) -> pyfuse3.EntryAttributes:
        inode = status.st_ino + self._rules.shift
        self._paths[inode] = path
        return _entry(status, inode)

    @_handler
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        path = self._paths[inode]
        await self._rules.apply(path, "stat")
        # A file that was deleted is still there for who has it open.
        for node, descriptor in self._files.values():
            if node == inode and os.fstat(descriptor).st_nlink == 0:
                return _entry(os.fstat(descriptor), inode)
        return _entry(self._rules.status(path, self._absolute(path)), inode)

    @_handler
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return os.fsencode(os.readlink(self._absolute(self._paths[inode])))

    @_handler
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        path = self._paths[inode]
        await self._rules.apply(path, "open")
        listing = []
        for name in os.listdir(self._absolute(path)):
            child = f"{path}/{name}" if path else name
            with contextlib.suppress(FileNotFoundError):
                status = self._rules.status(child, self._absolute(child))
                listing.append((name, self._entry(child, status)))
        self._last += 1
        self._listings[self._last] = listing
        return self._last

    @_handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._listings[fh]
        for number in range(start_id, len(listing)):
            name, entry = listing[number]
            if not pyfuse3.readdir_reply(token, os.fsencode(name), entry, number + 1):
                return

    @_handler
    async def releasedir(self, fh: int) -> None:
        del self._listings[fh]

    @_handler
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        path = self._paths[inode]
        await self._rules.apply(path, "open")
        descriptor = os.open(self._absolute(path), os.O_RDONLY | os.O_CLOEXEC)
        self._last += 1
        self._files[self._last] = inode, descriptor
        return pyfuse3.FileInfo(fh=self._last, direct_io=True)

    @_handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        inode, descriptor = self._files[fh]
        path = self._paths[inode]
        await self._rules.apply(path, "read")
        data = os.pread(descriptor, self._rules.limit(path, off, size), off)
        return self._rules.damage(path, off, data)

    @_handler
    async def release(self, fh: int) -> None:
        os.close(self._files.pop(fh)[1])

    @_handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        status = os.statvfs(self._source)
        data = pyfuse3.StatvfsData()
        for name in (
            "f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail",
            "f_files", "f_ffree", "f_favail", "f_namemax",
        ):  # fmt: skip
            setattr(data, name, getattr(status, name))
        return data


def _entry(status: os.stat_result, inode: int | None = None) -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = status.st_ino if inode is None else inode
    for name in (
        "st_mode", "st_nlink", "st_uid", "st_gid", "st_rdev", "st_size", "st_blocks",
        "st_atime_ns", "st_mtime_ns", "st_ctime_ns",
    ):  # fmt: skip
        setattr(entry, name, int(getattr(status, name)))
    entry.entry_timeout = 0
    entry.attr_timeout = 0
    return entry


async def _control(rules: Rules, stream: trio.SocketStream) -> None:
    """Commands and answers, a line of JSON each."""
    buffer = b""
    async for piece in stream:
        buffer += piece
        while b"\n" in buffer:
            line, _, buffer = buffer.partition(b"\n")
            await stream.send_all(b"%d\n" % rules.obey(json.loads(line)))


async def _serve(source: str, mountpoint: str, control: str) -> None:
    rules = Rules(source)
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await listener.bind(control)
    listener.listen()
    options = {"ro", "default_permissions", "fsname=faultfs", "subtype=faultfs"}
    logging.getLogger("pyfuse3").addFilter(is_of_a_request)
    pyfuse3.init(FaultFs(source, rules), mountpoint, options)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_at_signal, nursery.cancel_scope)
            nursery.start_soon(
                trio.serve_listeners,
                functools.partial(_control, rules),
                [trio.SocketListener(listener)],
            )
            _say_ready()
            # Hung requests are tasks, too.
            await pyfuse3.main(max_tasks=10_000)
            nursery.cancel_scope.cancel()
    finally:
        pyfuse3.close(unmount=True)


async def _end_at_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()


def _say_ready() -> None:
    """sd_notify(3)."""
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)


# ---------------------------------------------------------------- the other end


class Faults:
    """Says what goes wrong in a file system that is served by a process of this module.

    Paths are relative to the source, and may be patterns as of fnmatch(3). Rules add up, until
    they are cleared or, for a hang, released.
    """

    def __init__(self, control: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(20)
        self._socket.connect(str(control))
        self._answers = self._socket.makefile("rb")

    def close(self) -> None:
        self._answers.close()
        self._socket.close()

    def _tell(self, action: str, path: str | None, op: str | None, value: float = 0) -> int:
        command = {"action": action, "path": path, "op": op, "value": value}
        self._socket.sendall(json.dumps(command).encode() + b"\n")
        return int(self._answers.readline())

    def fail(self, path: str, op: Op, number: int) -> None:
        """*op* fails with the errno *number*."""
        self._tell("fail", path, op, number)

    def delay(self, path: str, op: Op, seconds: float) -> None:
        """*op* takes *seconds* longer."""
        self._tell("delay", path, op, seconds)

    def hang(self, path: str, op: Op = "read") -> None:
        """*op* doesn't end before it is released."""
        self._tell("hang", path, op)

    def shorten(self, path: str, at: int) -> None:
        """Reads find the end of the file at *at*, whatever its size is said to be."""
        self._tell("shorten", path, "read", at)

    def trickle(self, path: str, most: int) -> None:
        """A read gives *most* bytes at most."""
        self._tell("trickle", path, "read", most)

    def rot(self, path: str, at: int, *, once: bool = False) -> None:
        """A bit of the byte *at* is another one; *once*: only when it is read next."""
        self._tell("rot once" if once else "rot", path, "read", at)

    def break_at(self, path: str, at: int) -> None:
        """A read that has the byte *at* in it fails."""
        self._tell("break", path, "read", at)

    def freeze(self, path: str) -> None:
        """`stat` says what it says now, whatever happens to the file."""
        self._tell("freeze", path, "stat")

    def shift(self, number: int) -> None:
        """All inodes are others: *number* is added to them."""
        self._tell("shift", None, None, number)

    def release(self, path: str | None = None, op: Op | None = None) -> None:
        """Let go what hangs, and take those rules away."""
        self._tell("release", path, op)

    def clear(self, path: str | None = None) -> None:
        """Take all rules away, or those made for *path*; nothing hangs any more."""
        self._tell("clear", path, None)

    def count(self, path: str, op: Op) -> int:
        """How often *op* was asked for."""
        return self._tell("count", path, op)

    def waiting(self, path: str, op: Op) -> int:
        """How many hang, or are delayed, right now."""
        return self._tell("waiting", path, op)


@contextlib.contextmanager
def faultfs(source: Path, place: Path, seconds: float = 500) -> Iterator[tuple[Path, Faults]]:
    """Where *source* is shown by a file system that can fail, and what makes it.

    *place* is for its files. It must not be in use any more at the end, which has to come within
    *seconds*: it is killed then, as not even a killed process gets away from a hung request.
    """
    # Not at the top: the file system itself has no use for it.
    from bench.process import start  # noqa: PLC0415
    from tests.support.mounting import Notifications, environment  # noqa: PLC0415

    mountpoint, control, log = (place / f"faultfs{end}" for end in ("", ".socket", ".log"))
    mountpoint.mkdir()
    notifications = Notifications()
    with log.open("wb") as stderr:
        process = start(
            [sys.executable, "-m", __name__, source, mountpoint, control],
            stderr=stderr,
            env=environment({"NOTIFY_SOCKET": notifications.address}),
        )
    faults: Faults | None = None
    watchdog = threading.Timer(seconds, process.kill)
    watchdog.daemon = True
    watchdog.start()

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        notifications.update()
        return "READY=1" in notifications.seen

    try:
        poll("faultfs", ready)
        faults = Faults(control)
        yield mountpoint, faults
        assert process.poll() is None, f"faultfs ended: {log.read_text()}"
    finally:
        watchdog.cancel()
        notifications.close()
        with contextlib.suppress(OSError, ValueError):
            if faults is not None:
                faults.clear()
                faults.close()
        _end(process, mountpoint)
    assert process.returncode == 0, log.read_text()
    said = log.read_text()
    assert not said, f"faultfs said: {said}"


def _end(process: subprocess.Popen[bytes], mountpoint: Path) -> None:
    from bench.mount import unmount_lazily  # noqa: PLC0415

    command: Sequence[str] = ["fusermount3", "-u", str(mountpoint)]
    if os.geteuid() == 0:
        command = ["umount", str(mountpoint)]
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        subprocess.run(command, capture_output=True, check=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    busy = process.poll() is None
    if busy:
        process.kill()
        process.wait(SECONDS)
    unmount_lazily(mountpoint)
    assert not busy, f"{mountpoint} is still in use"


if __name__ == "__main__":
    trio.run(_serve, os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3])
