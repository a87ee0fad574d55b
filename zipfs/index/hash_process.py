"""The process that hashes files for a daemon; :mod:`zipfs.index.hash_client` is its other end.

A process and not a thread, since a thread of low priority delays the others: it is preempted
while it holds the interpreter's lock, and a thread that has to answer a read waits for it.
Measured on a busy machine, a loop that wakes each millisecond to read 320 KiB was late, at the
99th percentile, by 4.5 ms without hashing, 9.7 ms with a thread at nice 19, 8 ms with a process
at nice 19, and 4.3 ms with a process in a session of its own, which has its own share of the
CPU. It imports few modules, so that it stays small.

A job names files, and how many bytes of them to hash. The answers are offsets while it runs,
the result of each file in the order of the job, and the end of the job. A file that isn't
finished by then is continued when another job names it. A job can end before all its files have
a result, so that an urgent job doesn't wait for a long list.

Messages are marshalled tuples, each after its length: both ends run the same interpreter and
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
from zipfs.system.rates import Pace

_MESSAGES: Final = 1
"""The version of the messages: zipfs can be upgraded while a daemon runs."""
COMMAND: Final = (
    "import sys; sys.path[:] = sys.argv[1:];"
    f" from zipfs.index.hash_process import main; main({_MESSAGES})"
)
"""The program for ``python -c``, with all of ``sys.path`` as arguments."""

_LONG: Final = 0.25
"""Seconds after which a job ends, even if not all its files are hashed."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15

_LENGTH: Final = struct.Struct("=I")


class Job(NamedTuple):
    """Hash *limit* bytes of *files*, each a number, an absolute path, a state, and *afresh*,
    which daemons of 0.1 leave out.

    *rate* is in bytes per second; 0: no limit. While files are read there is an answer at least
    every *interval* seconds.
    """

    files: Sequence[tuple[int, bytes, tuple[int, int, int, int], bool]]
    limit: int
    rate: float
    interval: float


class Ready(NamedTuple):
    """The process has started."""


class At(NamedTuple):
    """*offset* bytes of a file are hashed."""

    number: int
    offset: int


class Done(NamedTuple):
    """The checksums of a file."""

    number: int
    crc32: int
    digest: bytes
    blocks: bytes

    @property
    def checksums(self) -> Checksums:
        return Checksums(self.crc32, self.digest, self.blocks)


class Failed(NamedTuple):
    """A file can't be hashed: *error* is the errno, 0 if the file has changed."""

    number: int
    error: int
    reason: str


class Unexpected(NamedTuple):
    """A file can't be hashed because of a defect in zipfs."""

    number: int
    traceback: str


class End(NamedTuple):
    """The job is done."""


Answer: TypeAlias = Ready | At | Done | Failed | Unexpected | End
_Message: TypeAlias = Job | Answer
_KINDS: Final[tuple[type[_Message], ...]] = (Job, Ready, At, Done, Failed, Unexpected, End)


def packed(message: _Message) -> bytes:
    """*message* as bytes: a 32-bit length in native order, then the marshalled tuple."""
    data = marshal.dumps((_KINDS.index(type(message)), *message))
    return _LENGTH.pack(len(data)) + data


def messages_in(buffer: bytearray) -> Iterator[_Message]:
    """The complete messages in *buffer*; each is removed from it."""
    while len(buffer) >= _LENGTH.size:
        end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
        if len(buffer) < end:
            return
        data = bytes(buffer[_LENGTH.size : end])
        del buffer[:end]
        kind, *fields = marshal.loads(data)  # noqa: S302 - from our own parent, or child
        yield _KINDS[kind](*fields)


class _Gone(BaseException):
    """The daemon has ended. Not an :exc:`Exception`: those are reported as errors of a file."""


def serve(requests: int, answers: int) -> None:
    """Read jobs from *requests* until its end, and write the results to *answers*.

    Closes both descriptors.
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
        """Hashers of unfinished files, by the file's number."""
        self._open: FileHasher | None = None
        """The only hasher whose file can be open (DESIGN R4)."""
        self._hangup = select.poll()
        self._hangup.register(requests, 0)
        self._job = Job((), 0, 0.0, 0.0)
        self._current = -1
        self._answered_at = 0.0
        self._pace = Pace(0.0, time.monotonic, self._sleep)

    def close(self) -> None:
        if self._open:
            self._open.close()

    def run(self) -> None:
        self._send(Ready())
        buffer = bytearray()
        while piece := os.read(self._requests, 1 << 16):
            buffer += piece
            for job in messages_in(buffer):
                if isinstance(job, Job):
                    self._work(job)

    def _work(self, job: Job) -> None:
        self._job = job
        self._pace.rate = job.rate
        started = self._answered_at = time.monotonic()
        left = job.limit
        last = job.files[-1][0]
        for number, path, state, *afresh in job.files:
            self._current = number
            before = self._hashers[number].offset if number in self._hashers else 0
            answer = self._answer(number, path, FileState(*state), left, afresh=any(afresh))
            left -= (answer.offset if isinstance(answer, At) else state[1]) - before
            if left <= 0 or time.monotonic() - started > _LONG or number == last:
                self._send(answer, End())
                return
            # At once, so that if this process hangs, it is in the first file without an answer.
            self._send(answer)

    def _answer(
        self, number: int, path: bytes, state: FileState, limit: int, *, afresh: bool
    ) -> Answer:
        """Hash *limit* more bytes of a file."""
        try:
            hasher = self._hashers.get(number)
            if self._open is not hasher:
                self._close()
            if hasher is None:
                hasher = self._hashers[number] = FileHasher(
                    path, state, self._progress, afresh=afresh
                )
            self._open = hasher
            checksums = hasher.advance(limit)
            if checksums is None:
                return At(number, hasher.offset)
            answer: Answer = Done(number, *checksums)
        except ChangedError:
            answer = Failed(number, 0, "")
        except OSError as error:
            answer = Failed(number, error.errno or errno.EIO, error.strerror or str(error))
        except Exception:  # noqa: BLE001 - H4: the daemon logs it and continues
            answer = Unexpected(number, traceback.format_exc())
        self._hashers.pop(number, None)
        self._close()
        return answer

    def _close(self) -> None:
        if self._open:
            self._open.close()
            self._open = None

    def _progress(self, count: int) -> None:
        """After *count* more bytes: keep to the rate, and answer if the interval has passed."""
        self._pace.took(count)
        self._answer_offset(time.monotonic())

    def _sleep(self, seconds: float) -> None:
        """Sleep for *seconds* or less, by poll(2), which returns at once if the daemon ends."""
        if self._hangup.poll(min(seconds, self._job.interval) * 1000):
            raise _Gone
        self._answer_offset(time.monotonic())  # else the daemon assumes that this process hangs

    def _answer_offset(self, now: float) -> None:
        if self._open and now - self._answered_at >= self._job.interval:
            self._answered_at = now
            self._send(At(self._current, self._open.offset))

    def _send(self, *answers: Answer) -> None:
        data = memoryview(b"".join(map(packed, answers)))
        try:
            while data:
                data = data[os.write(self._answers, data) :]
        except BrokenPipeError:
            raise _Gone from None


def main(messages: int) -> None:
    """Serve the daemon through stdin and stdout, at the lowest priority.

    *messages* is the daemon's version of the messages; exits if it is another one.
    """
    if messages != _MESSAGES:
        sys.exit("zipfs has been replaced by another version; it has to be started again")
    # Ctrl-C and a closed terminal are handled by the daemon.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _lower()
    # Stdout becomes /dev/null, so that nothing that a module prints is read as an answer. From 3
    # on, so that this holds even if stderr is closed.
    answers = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
    serve(0, answers)
    os._exit(0)


def _lower() -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NAME, b"zipfs-hasher")
    # The pipes alone don't show that the daemon was killed: its ends stay open as long as one of
    # its threads hangs in a dead disk.
    libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    lower_process()
    lower_session()  # which holds only this process
