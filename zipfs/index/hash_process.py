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

Small files of a source that answers slowly are hashed many at a time, by threads; as many as make
it quicker (:mod:`zipfs.system.measuring.gauge`). Others are hashed one after the other.

:mod:`zipfs.index.hash_messages` has the messages.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import sys
import time
import traceback
from _queue import SimpleQueue  # `queue` imports `threading`, half a MiB
from _thread import allocate_lock, start_new_thread
from collections import deque
from typing import Final, TypeAlias

from zipfs.errors import ChangedError
from zipfs.index.hash_file import FileHasher
from zipfs.index.hash_messages import (
    Answer,
    At,
    Done,
    End,
    Failed,
    File,
    Job,
    Ready,
    Unexpected,
    messages_in,
    packed,
)
from zipfs.library.filestate import FileState
from zipfs.system.folders import Folders
from zipfs.system.measuring.gauge import Gauge, is_slow
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

_SMALL: Final = 256 << 10
"""Bytes of a file up to which it is hashed with others at the same time, if the source is slow."""
_THREADS: Final = 32
"""Most files that are hashed at the same time."""
_FOLDERS: Final = 4
"""Most folders that are kept open; until the end of a job."""
_SAMPLES: Final = 16


_Result: TypeAlias = tuple[Answer, int, float]
"""An answer, the size of its file, and the seconds that it took."""


def _failure(number: int, error: Exception) -> Failed | Unexpected:
    """The answer for a file that can't be hashed because of *error*, which is being handled."""
    if isinstance(error, ChangedError):
        return Failed(number, 0, "")
    if isinstance(error, OSError):
        return Failed(number, error.errno or errno.EIO, error.strerror or str(error))
    return Unexpected(number, traceback.format_exc())


def _hashed(file: File, folders: Folders) -> _Result:
    """In a thread: hash a whole *file*."""
    number, path, state, *afresh = file
    started = time.monotonic()
    try:
        hasher = FileHasher(path, FileState(*state), afresh=any(afresh), folders=folders)
        try:
            checksums = hasher.advance(state[1])
        finally:
            hasher.close()
        answer: Answer = Done(number, *checksums) if checksums else At(number, hasher.offset)
    except Exception as error:  # noqa: BLE001 - H4: the daemon logs it and continues
        answer = _failure(number, error)
    return answer, state[1], time.monotonic() - started


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
        self._started = 0.0
        self._left = 0
        """Bytes that the job has left."""
        self._folders = Folders(_FOLDERS)
        self._lock = allocate_lock()
        self._parallel = 0
        self._gauge = Gauge(_THREADS)
        self._seconds: deque[float] = deque(maxlen=_SAMPLES)
        """How long each of the last small files took."""

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
        self._started = self._answered_at = time.monotonic()
        self._left = job.limit
        todo = deque(job.files)
        if job.parallel != self._parallel:
            self._parallel = job.parallel
            self._gauge = Gauge(job.parallel or _THREADS, fixed=job.parallel > 0)
        is_over = False
        while not is_over:  # once at least, however long it took to get here
            wanted = job.parallel > 1 or (not job.parallel and is_slow(self._seconds))
            if wanted and not job.rate and (small := self._small(todo)):
                self._many(todo, small)
            else:
                # At once, so that if this process hangs, it is in the first file without an answer.
                self._send(self._one(todo.popleft()))
            is_over = not todo or self._left <= 0 or self._is_long
        self._folders.close()
        self._send(End())

    def _one(self, file: File) -> Answer:
        """Hash as much of *file* as is left to the job."""
        number, path, state, *afresh = file
        started = time.monotonic()
        self._current = number
        before = self._hashers[number].offset if number in self._hashers else 0
        answer = self._answer(number, path, FileState(*state), afresh=any(afresh))
        self._left -= (answer.offset if isinstance(answer, At) else state[1]) - before
        if state[1] <= _SMALL:
            self._seconds.append(time.monotonic() - started)
        return answer

    @property
    def _is_long(self) -> bool:
        return time.monotonic() - self._started > _LONG

    def _small(self, todo: deque[File]) -> int:
        """How many of the next files are small, and haven't been begun."""
        files = enumerate(todo)
        return next((n for n, f in files if f[2][1] > _SMALL or f[0] in self._hashers), len(todo))

    def _many(self, todo: deque[File], small: int) -> None:
        """Hash the first *small* files of *todo*, several at a time, and send their results.

        They are begun in their order, so if a file hangs, the first without an answer does.
        """
        files = [todo.popleft() for _ in range(small)]
        results = SimpleQueue[_Result | None]()
        working = begun = alive = 0
        over = False

        def take() -> File | None:
            """The next file for a thread, which ends if there is none."""
            nonlocal over, working, begun
            with self._lock:
                over = over or (begun > 0 and self._is_long)
                if over or begun == small or working > self._gauge.limit:
                    working -= 1
                    return None
                begun += 1
                return files[begun - 1]

        def work() -> None:
            for file in iter(take, None):
                results.put(_hashed(file, self._folders))
            results.put(None)

        while True:
            while working < self._gauge.limit and not over and begun < small:
                with self._lock:
                    working += 1
                alive += 1
                try:
                    start_new_thread(work, ())
                except RuntimeError:  # there may be no more threads
                    with self._lock:
                        working -= 1
                    alive -= 1
                    if not alive:
                        self._seconds.clear()  # one after the other then
                        over = True
                    break
            if not alive:
                break
            if (result := results.get()) is None:
                alive -= 1
                continue
            answer, size, seconds = result
            self._gauge.add(size, time.monotonic())
            self._seconds.append(seconds)
            self._left -= size
            self._send(answer)
        self._gauge.idle()
        todo.extendleft(reversed(files[begun:]))

    def _answer(self, number: int, path: bytes, state: FileState, *, afresh: bool) -> Answer:
        """Hash more bytes of a file, as many as are left to the job."""
        try:
            hasher = self._hashers.get(number)
            if self._open is not hasher:
                self._close()
            if hasher is None:
                hasher = self._hashers[number] = FileHasher(
                    path, state, self._progress, afresh=afresh, folders=self._folders
                )
            self._open = hasher
            checksums = hasher.advance(self._left)
            if checksums is None:
                return At(number, hasher.offset)
            answer: Answer = Done(number, *checksums)
        except Exception as error:  # noqa: BLE001 - H4: the daemon logs it and continues
            answer = _failure(number, error)
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
