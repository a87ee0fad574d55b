"""Mounts for tests: a daemon as a child process, watched from its start to its end.

Whatever happens, nothing is left: a :class:`Mounted` ends by being unmounted or stopped, and
that it ended as it should (status 0, nothing mounted, no descriptor or process leaked, no
surprise in its log) is asserted. Force comes only after that has failed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.mount import is_mounted, mounts_below, unmount_lazily, zipfs_program
from bench.process import start
from tests.support.waiting import SECONDS, poll
from zipfs.system.mounts import copies, mounted_at

PREFIX: Final = "zipfs-test-"
"""How our temporary folders are called; then the process that owns one, and something random."""
MARKER: Final = "ZIPFS_TEST_PROCESS"
"""Environment variable by which the processes that a test started are known."""
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - folders in it are as safe as in /tmp
_OF_MOUNT: Final = "ZIPFS_TEST_MOUNT"
"""The same for a daemon and those that it has started: the address that it notifies."""

_PROBLEM: Final = re.compile(
    r"\b(WARNING|ERROR|CRITICAL):|Traceback \(most recent call last\)|Fatal Python error"
    r"|\w+Warning: |Exception ignored"
)
_SEALED: Final = re.compile(r"everything is sealed: (\d+) archives")


def fuse_missing() -> str | None:
    """Why nothing can be mounted here; None if it can."""
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse can't be opened: {error.strerror}"
    if shutil.which("fusermount3") is None:
        return "fusermount3 is not installed"
    return None


def as_user(user: int) -> list[str]:
    """The start of a command that is to run as the unprivileged user (and group) *user*."""
    # A change of user clears the signal that bench.process asked for, so ask again. setpriv
    # itself still finds programs with root's permissions; env doesn't.
    identity = ["--reuid", str(user), "--regid", str(user), "--clear-groups"]
    return ["setpriv", *identity, "--pdeathsig", "TERM", "--", "env", "--"]


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Ours, for a child, with *changes*; None takes a variable away."""
    # No service manager's or user's settings take part; Python's own warnings are to be seen.
    names = (
        "NOTIFY_SOCKET",
        "JOURNAL_STREAM",
        "STATE_DIRECTORY",
        "RUNTIME_DIRECTORY",
        "XDG_RUNTIME_DIR",
    )
    ours = {name: value for name, value in os.environ.items() if name not in names}
    ours |= {"PYTHONWARNINGS": "default", MARKER: str(os.getpid())}
    for name, value in (changes or {}).items():
        ours.pop(name, None)
        if value is not None:
            ours[name] = value
    return ours


def remount(path: Path, *options: str) -> None:
    """Have the kernel forget what it has cached of the mount at *path*; *options* are new ones.

    By mount(2): file systems of FUSE and overlays refuse the newer call that libmount prefers.
    """
    subprocess.run(
        ["mount", "-i", "-o", ",".join(["remount", *options]), path],
        env=dict(os.environ, LIBMOUNT_FORCE_MOUNT2="always"),
        check=True,
        capture_output=True,
    )


def run_zipfs(
    *arguments: str | bytes | Path,
    env: Mapping[str, str | None] | None = None,
    user: int | None = None,
    program: Sequence[str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``zipfs`` with *arguments* to its end; its status is the caller's to look at."""
    command = [*(as_user(user) if user is not None else []), *(program or [zipfs_program()])]
    return subprocess.run(
        [*command, *arguments],
        env=environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=SECONDS,
        check=False,
    )


class Notifications:
    """The receiving end of sd_notify(3). An abstract socket: no path, so none too long."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("")  # autobind, unix(7)
        self._socket.setblocking(False)
        self.address = "@" + self._socket.getsockname()[1:].decode()
        self.seen: list[str] = []
        """All states so far, such as ``READY=1``."""

    def update(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.seen += self._socket.recv(65536).decode().splitlines()

    @property
    def status(self) -> str:
        """The latest ``STATUS=``."""
        self.update()
        texts = [text.removeprefix("STATUS=") for text in self.seen if text.startswith("STATUS=")]
        return texts[-1] if texts else ""

    def close(self) -> None:
        self._socket.close()


class Mounted:
    """A running ``zipfs mount``; made by :class:`Mounts`."""

    def __init__(
        self,
        *,
        library: Path,
        path: Path,
        index: Path,
        runtime: Path,
        log: Path,
        process: subprocess.Popen[bytes],
        notifications: Notifications,
        supervised: bool = False,
        apart: bool = False,
    ) -> None:
        self.apart = apart
        """Whether it is mounted in a mount namespace of its own."""
        self.supervised = supervised
        """Whether *process* holds the mount, and the daemon is a child of it."""
        self.library = library
        self.path = path
        """The mount point."""
        self.index = index
        self.runtime = runtime
        """The folder of its socket."""
        self.log = log
        """The daemon's standard error."""
        self.process = process
        self.notifications = notifications
        self.ended = False
        """Whether it was stopped, unmounted or killed, and looked at afterwards."""
        # Where the tests run in a container: true of mounts in /dev/shm.
        self._expected: list[re.Pattern[str]] = [re.compile("will stay in this container")]
        self._descriptors = 0

    # -- While it runs ---------------------------------------------------------

    @property
    def daemons(self) -> list[int]:
        """The processes that serve it, or are to: mostly one."""
        if not self.supervised:
            return [self.process.pid]
        holder = self.process.pid
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
            return list(map(int, children))
        return []

    @property
    def within(self) -> list[str]:
        """What to put before a command that runs in its mount namespace."""
        return ["nsenter", "--mount", f"--target={self.process.pid}", "--"] if self.apart else []

    @property
    def daemon(self) -> int:
        """The process that serves it."""
        poll("a daemon", lambda: self.daemons)
        return self.daemons[0]

    def kill_daemon(self) -> None:
        """SIGKILL the daemon; its holder starts another one."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.daemon, signal.SIGKILL)

    def status(self) -> dict[str, Any]:
        """What ``zipfs status`` says of it."""
        done = run_zipfs(
            *("status", "--json", self.path),
            env={"RUNTIME_DIRECTORY": str(self.runtime)},
            program=[*self.within, zipfs_program()],
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def wait_restarts(self, count: int) -> None:
        """Wait until *count* daemons have taken the mount over."""

        def taken_over() -> bool:
            self.check_runs()
            return self.log_text().count("took the mount on") >= count

        poll(f"{count} restarts", taken_over)

    def wait_ready(self, seconds: float = SECONDS) -> None:
        """Wait for its own ``READY=1``."""

        def ready() -> bool:
            self.check_runs()
            self.notifications.update()
            return "READY=1" in self.notifications.seen

        poll("READY=1", ready, seconds)
        self._descriptors = self._count_descriptors()

    def check_runs(self) -> None:
        """Fail, with its log, if the daemon has ended."""
        status = self.process.poll()
        assert status is None, f"zipfs ended with status {status}:\n{self.log_text()}"

    def wait_sealed(self, archives: int | None = None, timeout: float = SECONDS) -> None:
        """Wait until it says that everything is sealed (and *archives* are there altogether).

        Without a number any such line will do, also an old one: after a change say how many
        you expect, or wait for the change itself.
        """

        def sealed() -> bool:
            self.check_runs()
            said = _SEALED.findall(self.log_text())
            return bool(said) and (archives is None or int(said[-1]) == archives)

        what = "all" if archives is None else f"{archives}"
        poll(f"{what} archives to be sealed", sealed, timeout)

    def archive(self, relative: str) -> Path:
        """Where the archive of the game folder at *relative* is, or will be."""
        return self.path / f"{relative}.zip"

    def wait_for(self, relative: str | bytes, timeout: float = SECONDS) -> Path:
        """Wait until there is something at *relative*, and say where."""
        found = Path(os.fsdecode(os.path.join(os.fsencode(self.path), os.fsencode(relative))))

        def there() -> bool:
            self.check_runs()
            return found.exists()

        poll(f"{found} to be there", there, timeout)
        return found

    def wait_archive(self, relative: str, timeout: float = SECONDS) -> Path:
        """Wait until the archive of the game folder at *relative* is there."""
        return self.wait_for(f"{relative}.zip", timeout)

    def wait_gone(self, relative: str | bytes, timeout: float = SECONDS) -> None:
        """Wait until there is nothing at *relative* any more."""
        path = os.path.join(os.fsencode(self.path), os.fsencode(relative))

        def gone() -> bool:
            self.check_runs()
            return not os.path.lexists(path)

        poll(f"{os.fsdecode(path)} to be gone", gone, timeout)

    def wait_log(self, pattern: str, timeout: float = SECONDS) -> re.Match[str]:
        """Wait until *pattern*, a regular expression, is in the log."""

        def said() -> bool:
            if re.search(pattern, self.log_text(), re.MULTILINE):
                return True
            self.check_runs()
            return False

        poll(f"the log to say {pattern!r}", said, timeout)
        match = re.search(pattern, self.log_text(), re.MULTILINE)
        assert match
        return match

    def expect_log(self, pattern: str) -> None:
        """Take lines of the log with *pattern*, a regular expression, for no surprise."""
        self._expected.append(re.compile(pattern))

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def problems(self) -> list[str]:
        """Lines of the log that tell of something unexpected."""
        return [
            line
            for line in self.log_text().splitlines()
            if _PROBLEM.search(line) and not any(p.search(line) for p in self._expected)
        ]

    # -- Its descriptors -------------------------------------------------------

    def descriptors(self) -> dict[int, str]:
        """What the daemon has open: descriptor numbers and what they lead to."""
        return self._descriptors_of(self.daemon)

    def _descriptors_of(self, pid: int) -> dict[int, str]:
        found = {}
        folder = f"/proc/{pid}/fd"
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found[int(name)] = self._leads_to(f"{folder}/{name}")
        return found

    def children(self) -> list[int]:
        """Processes that the daemon has started, such as the one that hashes."""
        mark = f"{_OF_MOUNT}={self.notifications.address}"
        ours = {self.process.pid, *self.daemons}
        return [pid for pid in processes_with(mark) if pid not in ours]

    def _leads_to(self, descriptor: str) -> str:
        try:
            return os.readlink(descriptor)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            # Too deep for a path: only libraries of ours go that far.
            return f"{os.path.realpath(self.library)}/inode {os.stat(descriptor).st_ino}"

    def library_descriptors(self) -> dict[tuple[int, int], str]:
        """What leads into the library, the children's too, by process and descriptor."""
        found = {}
        for pid in (*self.daemons, *self.children()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                for number, path in self._descriptors_of(pid).items():
                    if self._is_in_library(path):
                        found[pid, number] = path
        return found

    def _is_in_library(self, path: str) -> bool:
        return (path + "/").startswith(os.path.realpath(self.library) + "/")

    def own_descriptors(self) -> dict[int, str]:
        """Those that the daemon has for itself."""
        return {n: path for n, path in self.descriptors().items() if not self._is_in_library(path)}

    def _count_descriptors(self) -> int:
        # Not counted: the watcher's and the table of mounts, which come when it is ready already;
        # the pipe for splice(2),
        # which libfuse makes when it first needs it; the two pipes to the process that hashes,
        # which comes and goes; and SQLite's three files, which it opens anew if they were damaged.
        paths = [p for p in self.own_descriptors().values() if not p.startswith("anon_inode:")]
        pipes = sum(path.startswith("pipe:") for path in paths)
        index = sum(path.startswith(str(self.index)) for path in paths)
        table = sum(path.endswith("/mountinfo") for path in paths)
        return len(paths) - min(4, pipes) - min(3, index) - min(1, table)

    def recount_descriptors(self) -> None:
        """What it has open now, such as a connection to a shared index, it needs."""
        self._descriptors = max(self._descriptors, self._count_descriptors())

    def check_descriptors(self) -> None:
        """Fail if the daemon has leaked descriptors.

        For its own needs it never holds more than when it was ready. Files of the library stay
        open for a few seconds after their last reader, each but once.
        """
        if self.supervised:  # it may be another one
            self._descriptors = max(self._descriptors, self._count_descriptors())
        try:
            poll(
                "the daemon's descriptors to be no more than at its start",
                lambda: self._count_descriptors() <= self._descriptors,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.own_descriptors()}") from None
        poll("all folders of the library to be closed", lambda: not self._open_often(folders=True))
        # A file in older states lingers for a while, and hashing or reading one may be under way.
        poll(
            "files of the library not to be open in many states",
            lambda: max(self._open_often(folders=False).values(), default=0) <= 3,
        )

    def _open_often(self, *, folders: bool) -> Counter[str]:
        """How often each file, or folder, of the library is open."""
        found: Counter[str] = Counter()
        for (pid, number), path in self.library_descriptors().items():
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(f"/proc/{pid}/fd/{number}")
                if stat.S_ISDIR(status.st_mode) == folders:
                    found[path] += 1
        return found

    # -- Its end ---------------------------------------------------------------

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal *number* and see it end as it should; its exit status, which is 0."""
        self.check_runs()
        self.check_descriptors()
        self.process.send_signal(number)
        return self.see_end()

    def unmount(self) -> int:
        """Unmount it, which fails as long as somebody is in there, and see it end."""
        self.check_runs()
        self.check_descriptors()
        mounted = mounted_at(str(self.path))
        command = ["fusermount3", "-u", str(self.path)]
        if os.geteuid() == 0:  # any user's mount
            command = [*self.within, "umount", str(self.path)]
        said = ""

        def unmounted() -> bool:
            nonlocal said
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said = done.stderr.strip()
            return done.returncode == 0 or not (self.apart or is_mounted(self.path))

        try:
            poll(f"{self.path} to be free", unmounted)
        except AssertionError as error:
            raise AssertionError(f"{error}: {said}; did the test leave something open?") from None
        return self.see_end(mounted.device if mounted else None)

    def see_end(self, device: str | None = None) -> int:
        """Wait for the daemon's end, and assert that it is a good one.

        *device* is that of a mount that is unmounted by now.
        """
        try:
            # It saves its index at last, and other tests may have filled the disk's queue.
            status = self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            # Who made a mount namespace meanwhile, such as a container's, has a copy of it.
            elsewhere = copies(device)[0] if device else []
            raise AssertionError(
                f"the daemon doesn't end; mounted elsewhere: {elsewhere}"
            ) from None
        self.ended = True
        self.notifications.update()
        self.notifications.close()
        assert not is_mounted(self.path), f"{self.path} is still mounted"
        assert status == 0, f"zipfs ended with status {status}:\n{self.log_text()}"
        assert not self.problems(), "unexpected in the log:\n" + self.log_text()
        self.see_children_end()
        return status

    def kill(self) -> None:
        """SIGKILL: what it has mounted stays there, dead."""
        daemons = self.daemons
        self.process.kill()
        self._kill(daemons)
        self.process.wait(SECONDS)
        self.ended = True
        self.notifications.close()
        self.see_children_end()

    def _kill(self, daemons: Iterable[int]) -> None:
        for pid in daemons:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def see_children_end(self) -> None:
        """Assert that no process which the daemon has started outlives it."""
        poll("the daemon's children to end", lambda: not self.children())

    def force(self) -> None:
        """End it by any means."""
        if self.process.poll() is None:
            daemons = self.daemons
            self.process.kill()
            self._kill(daemons)
            self.process.wait(SECONDS)
        self.ended = True
        self.notifications.close()
        unmount_lazily(self.path)


class Mounts:
    """Makes the mounts of one test, and sees all of them end. *place* is for their files."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.all: list[Mounted] = []
        self._indexes: dict[Path, Path] = {}

    def __call__(
        self,
        library: Path,
        *options: str | Path,
        mountpoint: Path | None = None,
        index: Path | None = None,
        settle: float = 0.2,
        env: Mapping[str, str | None] | None = None,
        user: int | None = None,
        program: Sequence[str] | None = None,
        ready: bool = True,
        supervised: bool = False,
        apart: bool = False,
    ) -> Mounted:
        """Mount *library*; ready if not told otherwise.

        The mount point is a new folder, and the index a file that all mounts of one library
        share, unless they are given. Nothing is read again unless the options say so.
        *program* is what to run instead of our ``zipfs``. With *supervised* the mount outlives its
        daemon, else it is one process. *apart*: in a mount namespace of its own, from which nothing
        propagates, as on another machine; for root.
        """
        number = len(self.all)
        if mountpoint is None:
            mountpoint = self.place / f"mount-{number}"
            mountpoint.mkdir()
            if user is not None:
                os.chown(mountpoint, user, user)
        if index is None:
            folder = self.place / f"index-{len(self._indexes)}"
            index = self._indexes.setdefault(library, folder / "index.sqlite3")
            if not index.parent.exists():
                index.parent.mkdir()
                if user is not None:
                    os.chown(index.parent, user, user)
        runtime = self.place / f"run-{number}"
        runtime.mkdir(mode=0o755)
        if user is not None:
            os.chown(runtime, user, user)
        log = self.place / f"log-{number}"
        notifications = Notifications()
        command = ["unshare", "--mount", "--propagation=private", "--"] if apart else []
        command += as_user(user) if user is not None else []
        command += [*(program or [zipfs_program()]), "mount", f"--settle={settle}"]
        if not supervised:
            command.append("--no-supervise")
        # What is read again would be in the way of tests that count reads, or make them fail.
        command += ["--recheck-rate=0"]
        with log.open("wb") as stderr:
            process = start(
                [*command, "--index", index, *options, library, mountpoint],
                stderr=stderr,
                env=environment(
                    {
                        "NOTIFY_SOCKET": notifications.address,
                        "RUNTIME_DIRECTORY": str(runtime),
                        _OF_MOUNT: notifications.address,
                        **(env or {}),
                    }
                ),
            )
        mounted = Mounted(
            library=library.absolute(),  # the test may go elsewhere
            path=mountpoint.absolute(),
            index=index.absolute(),
            runtime=runtime.absolute(),
            log=log,
            process=process,
            notifications=notifications,
            supervised=supervised,
            apart=apart,
        )
        self.all.append(mounted)
        if ready:
            mounted.wait_ready()
        return mounted

    def end(self) -> None:
        """End whatever runs, the latest first; fails if one didn't end as it should."""
        failures = []
        for mounted in reversed(self.all):
            if mounted.ended:
                continue
            try:
                mounted.unmount()
            except (AssertionError, OSError, subprocess.SubprocessError) as error:
                failures.append(str(error))
                mounted.force()
        for mounted in self.all:
            unmount_lazily(mounted.path)  # what a killed one has left
        assert not failures, "\n".join(failures)

    def dump(self) -> None:
        """Have all daemons write their stacks to their logs."""
        for mounted in self.all:
            if mounted.process.poll() is None:
                before = mounted.log.stat().st_size
                mounted.process.send_signal(signal.SIGUSR1)
                with contextlib.suppress(AssertionError):
                    poll("stacks", lambda m=mounted, b=before: m.log.stat().st_size > b, 2)  # type: ignore[misc]

    def break_off(self) -> None:
        """For a test that hangs: kill the daemons, so that whoever waits for them goes on."""
        self.dump()
        for mounted in self.all:
            if mounted.process.poll() is None:
                mounted.kill()


# -- What tests leave behind ---------------------------------------------------------


@contextlib.contextmanager
def temporary_folder(*, in_memory: bool = False) -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's own ones; it is gone afterwards.

    *in_memory*: where many files are made quickly, if there is room for them.
    """
    root = _MEMORY if in_memory and _has_room(_MEMORY) else None
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=root)).resolve()
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        _remove(folder)


def _has_room(root: Path) -> bool:
    try:
        return shutil.disk_usage(root).free > 4 << 30 and os.access(root, os.W_OK)
    except OSError:
        return False


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError:
        # Folders without permissions are part of some tests, and not every tester is root.
        for _, names, _, descriptor in os.fwalk(folder):
            for name in names:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    os.chmod(name, 0o700, dir_fd=descriptor)
        shutil.rmtree(folder)


def sweep() -> None:
    """Take away mounts and folders of test runs that were killed."""
    roots = (Path(tempfile.gettempdir()).resolve(), _MEMORY)
    for folder in (folder for root in roots for folder in root.glob(f"{PREFIX}*")):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if not owner.isdecimal() or os.path.exists(f"/proc/{owner}"):
            continue
        for mounted in mounts_below(folder):
            unmount_lazily(mounted)
        shutil.rmtree(folder, ignore_errors=True)


def processes_with(setting: str) -> list[int]:
    """The processes that were started with *setting*, ``NAME=value``, in their environment."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if setting.encode() in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
    return found


def marked_processes() -> dict[tuple[int, str], str]:
    """Processes that our tests started: process and start time, and what it is."""
    found = {}
    for pid in processes_with(f"{MARKER}={os.getpid()}"):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                found[pid, fields[19]] = b" ".join(command).decode(errors="replace")
    return found
