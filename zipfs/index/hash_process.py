"""The process that hashes files for a daemon; :mod:`zipfs.index.hash_client` is its other end.

A process of its own, since a thread of low priority is in the way all the same: it is
preempted while it holds the interpreter's lock, and whoever is to answer a read then waits
for it. Measured on a busy machine, a loop that wakes each millisecond to read 320 KiB was
late in 99 of 100 cases by no more than 4.5 ms with no hashing beside it, 9.7 ms with a
thread at nice 19, 8 ms with a process at nice 19, and 4.3 ms with one in a session of its
own, which isn't paid for with our session's share of the CPU. Few modules are imported
here, so that it stays small.

A request names some files, and how many bytes of them to hash. The answers are how far it
is, what came of each file, one after the other in the order of the request, and the end of
them all; a file that isn't done by then is gone on with when it is named again. There may
be fewer answers than files: who asks for something urgent isn't to wait for a long list.

Messages are marshalled tuples behind their length: both ends are the same interpreter and
trust each other.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import marshal
import os
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from zipfs.errors import ChangedError
from zipfs.index.hash_file import FileHasher
from zipfs.library.filestate import Checksums, FileState
from zipfs.system.process import lower_process, lower_session

_MESSAGES: Final = 1
"""Raised with each change of the messages: zipfs may be upgraded while a daemon runs."""
COMMAND: Final = (
    "import sys; sys.path[:] = sys.argv[1:];"
    f" from zipfs.index.hash_process import main; main({_MESSAGES})"
)
"""What Python has to run, with all of its ``sys.path`` as arguments."""

_LONG: Final = 0.25
"""Seconds after which a list of files is broken off."""
_BURST: Final = 0.1
"""Seconds by which one may be behind a bounded rate and catch up again."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15

_LENGTH: Final = struct.Struct("=I")


class Request(NamedTuple):
    """What to hash: *limit* bytes of *files*, each a number, an absolute path, and a state.

    At *rate* bytes a second; 0: as fast as it goes. At least each *interval* seconds there
    is an answer, as long as there is anything to read.
    """

    files: Sequence[tuple[int, bytes, tuple[int, int, int, int]]]
    limit: int
    rate: float
    interval: float


class Ready(NamedTuple):
    """It has started."""


class At(NamedTuple):
    """So many bytes of a file are done."""

    number: int
    offset: int


class Done(NamedTuple):
    """What a file's checksums are."""

    number: int
    crc32: int
    digest: bytes
    blocks: bytes

    @property
    def checksums(self) -> Checksums:
        return Checksums(self.crc32, self.digest, self.blocks)


class Failed(NamedTuple):
    """A file has none: *error* is its errno, 0 if it has changed."""

    number: int
    error: int
    reason: str


class Unexpected(NamedTuple):
    """The same, because of a defect in zipfs."""

    number: int
    traceback: str


class End(NamedTuple):
    """All that was asked for is answered."""


Answer: TypeAlias = Ready | At | Done | Failed | Unexpected | End
_Message: TypeAlias = Request | Answer
_KINDS: Final[tuple[type[_Message], ...]] = (Request, Ready, At, Done, Failed, Unexpected, End)


def packed(message: _Message) -> bytes:
    """*message* as it is sent."""
    data = marshal.dumps((_KINDS.index(type(message)), *message))
    return _LENGTH.pack(len(data)) + data


def messages_in(buffer: bytearray) -> Iterator[_Message]:
    """The messages that *buffer* has whole; they are taken out of it one by one."""
    while len(buffer) >= _LENGTH.size:
        end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
        if len(buffer) < end:
            return
        data = bytes(buffer[_LENGTH.size : end])
        del buffer[:end]
        kind, *fields = marshal.loads(data)  # noqa: S302 - from our own parent, or child
        yield _KINDS[kind](*fields)


class _Gone(BaseException):
    """Nobody is there any more to hash for. No file's error, so no :exc:`Exception`."""


def serve(requests: int, answers: int) -> None:
    """Answer all that comes from one descriptor on the other, until nothing comes any more.

    Both are closed in the end.
    """
    server = _Server(requests, answers)
    try:
        server.run()
    except _Gone:
        pass
    finally:
        server.close()
        os.close(requests)
        os.close(answers)


class _Server:
    def __init__(self, requests: int, answers: int) -> None:
        self._requests = requests
        self._answers = answers
        self._hashers: dict[int, FileHasher] = {}
        """Files that have been begun."""
        self._open: FileHasher | None = None
        """The one that may be open: DESIGN R4, however many have been begun."""
        self._hangup = select.poll()
        self._hangup.register(requests, 0)
        self._request = Request((), 0, 0.0, 0.0)
        self._current = -1
        self._told = 0.0
        self._due = 0.0
        """When so much may have been read as has been."""

    def close(self) -> None:
        if self._open:
            self._open.close()

    def run(self) -> None:
        self._tell(Ready())
        buffer = bytearray()
        while piece := os.read(self._requests, 1 << 16):
            buffer += piece
            for request in messages_in(buffer):
                if isinstance(request, Request):
                    self._work(request)

    def _work(self, request: Request) -> None:
        self._request = request
        started = self._told = time.monotonic()
        left = request.limit
        last = request.files[-1][0]
        for number, path, state in request.files:
            self._current = number
            before = self._hashers[number].offset if number in self._hashers else 0
            answer = self._answer(number, path, FileState(*state), left)
            left -= (answer.offset if isinstance(answer, At) else state[1]) - before
            if left <= 0 or time.monotonic() - started > _LONG or number == last:
                self._tell(answer, End())
                return
            # At once: who hangs is whoever is next to be answered.
            self._tell(answer)

    def _answer(self, number: int, path: bytes, state: FileState, limit: int) -> Answer:
        """What comes of a file if *limit* bytes more of it are hashed."""
        try:
            hasher = self._hashers.get(number)
            if self._open is not hasher:
                self._close()
            if hasher is None:
                hasher = self._hashers[number] = FileHasher(path, state, self._progress)
            self._open = hasher
            checksums = hasher.advance(limit)
            if checksums is None:
                return At(number, hasher.offset)
            answer: Answer = Done(number, *checksums)
        except ChangedError:
            answer = Failed(number, 0, "")
        except OSError as error:
            answer = Failed(number, error.errno or errno.EIO, error.strerror or str(error))
        except Exception:  # noqa: BLE001 - H4: the daemon logs it, and goes on
            answer = Unexpected(number, traceback.format_exc())
        self._hashers.pop(number, None)
        self._close()
        return answer

    def _close(self) -> None:
        if self._open:
            self._open.close()
            self._open = None

    def _progress(self, count: int) -> None:
        """*count* bytes have been read: say so now and then, and dawdle if they were too many."""
        now = time.monotonic()
        if self._request.rate:
            self._due = max(self._due, now - _BURST) + count / self._request.rate
            while now < self._due:
                # By poll(2), which ends at once with the daemon.
                pause = min(self._due - now, self._request.interval)
                if self._hangup.poll(pause * 1000):
                    raise _Gone
                self._say_where(now)  # or we would be taken for hanging
                now = time.monotonic()
        self._say_where(now)

    def _say_where(self, now: float) -> None:
        if self._open and now - self._told >= self._request.interval:
            self._told = now
            self._tell(At(self._current, self._open.offset))

    def _tell(self, *answers: Answer) -> None:
        data = memoryview(b"".join(map(packed, answers)))
        try:
            while data:
                data = data[os.write(self._answers, data) :]
        except BrokenPipeError:
            raise _Gone from None


def main(messages: int) -> None:
    """Serve the daemon at the other ends of stdin and stdout, out of everybody's way."""
    if messages != _MESSAGES:
        sys.exit("zipfs has been replaced by another version; it has to be started again")
    # Ctrl-C and a closed terminal are the daemon's to act upon.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _get_out_of_the_way()
    # Whatever is printed is no answer. Nor is it if the daemon has no stderr to be inherited.
    answers = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
    serve(0, answers)
    os._exit(0)


def _get_out_of_the_way() -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NAME, b"zipfs-hasher")
    # A daemon that was killed closes its ends of our pipes only when none of its threads hangs
    # in a dead disk any more.
    libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    lower_process()
    lower_session()  # it has been given one of its own
