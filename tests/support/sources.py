"""What libraries lie on besides local disks: file systems that a program shows.

``with source("sshfs", place, mountpoint) as nas``: *nas.library* is where zipfs finds the library,
*nas.at_server* is where somebody else changes it, behind the back of whoever has it mounted. The
programs run with their default options, caches included; ``allow_other`` is added where it takes
root, since Apache serves as somebody else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

import pytest

from bench import BenchError
from bench.mount import is_mounted, unmount_lazily
from bench.process import find_program, start
from bench.web import serving
from tests.support.mounting import processes_with, remount
from tests.support.waiting import SECONDS, poll

_MARK: Final = "ZIPFS_TEST_SOURCE"
"""Environment variable by which a program is known that leaves us for the background."""
_SFTP_SERVERS: Final = (
    "/usr/lib/openssh/sftp-server",  # Debian
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
)
_UNMOUNTED: Final = 20.0
"""Seconds that a program has to end after its mount has ended."""
_DISK: Final = 1 << 30
"""Size of an image, most of which is a hole."""


class Source:
    """A file system on *mountpoint* that a program shows; *place* is for its files."""

    programs: ClassVar[dict[str, str]] = {}
    """What has to be installed: program and Debian package."""
    needs_root: ClassVar[bool] = False
    links: ClassVar[bool] = True
    """Whether it has symbolic links."""
    lasting_inodes: ClassVar[bool | None] = True
    """Whether inodes are the same after it was mounted again, or has dropped its caches; None: in
    some versions."""

    def __init__(self, place: Path, mountpoint: Path) -> None:
        self.place = place
        self.library = mountpoint
        """Where the client, which is zipfs, sees it."""
        self.at_server = place / "at server"
        """The same folder where others change it."""
        self._process: subprocess.Popen[bytes] | None = None
        self._server: int | None = None
        self.hangs = False
        self._log = place / "source.log"
        mountpoint.mkdir(parents=True, exist_ok=True)

    # -- What each kind says of itself ---------------------------------------------

    @classmethod
    def missing(cls) -> str | None:
        """Why there is none here; None if there is."""
        for program, package in cls.programs.items():
            try:
                find_program(program, package=package)
            except BenchError as error:
                return str(error)
        if cls.needs_root and os.geteuid() != 0:
            return "only root can mount it"
        return None

    def make(self) -> None:
        """Make what is to be mounted, once."""
        self.at_server.mkdir()

    def command(self) -> Sequence[str | Path]:
        """What shows it, in the foreground."""
        raise NotImplementedError

    def mount(self) -> None:
        """Mount it; a server runs already, or is started here."""
        self._process = self._start(self.command())

    # -- What all of them can do ---------------------------------------------------

    def _start(
        self,
        command: Sequence[str | Path],
        stdin: socket.socket | None = None,
    ) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            if stdin is None:
                return start(command, stdout=log, stderr=log)
            return subprocess.Popen(
                command, stdin=stdin, stdout=stdin, stderr=log, start_new_session=True
            )

    @property
    def server(self) -> int:
        """The process that answers."""
        return self._server or self._process.pid  # type: ignore[union-attr]  # once it is mounted

    def begin(self) -> None:
        self.mount()

        def mounted() -> bool:
            ended = self._process is not None and self._process.poll() is not None
            assert not ended, f"{self.command()} ended: {self._log.read_text(errors='replace')}"
            return is_mounted(self.library)

        poll(f"{self.library} to be mounted", mounted)

    def unmount(self) -> None:
        """Unmount it, once nobody is in there any more, and see its program end."""
        said = ""

        def unmounted() -> bool:
            nonlocal said
            done = subprocess.run(
                _unmounting(self.library), capture_output=True, text=True, check=False
            )
            said = done.stderr.strip()
            return done.returncode == 0 or not is_mounted(self.library)

        try:
            poll(f"{self.library} to be free", unmounted)
        except AssertionError as error:
            raise AssertionError(f"{error}: {said}") from None
        self.see_end()

    def see_end(self) -> None:
        if self._process is not None:
            self._process.wait(SECONDS)
            self._process = None

    def remount(self) -> None:
        """Unmount it and mount it again: its caches are gone.

        Then everything is looked up in another order, so that inodes that are numbers of nodes
        in memory are other ones.
        """
        self.unmount()
        self.begin()
        self.stir()

    def drop_caches(self) -> None:
        """Have the kernel forget all names and inodes of it that nobody has in use."""
        remount(self.library)
        self.stir()

    def stir(self) -> None:
        """Look at everything, the last names first."""
        for folder, folders, names in os.walk(self.library):
            folders.sort(reverse=True)
            for name in sorted(names, reverse=True):
                os.lstat(os.path.join(folder, name))

    def forget(self) -> None:
        """What its user can do so that it shows sooner what has changed at the server."""

    def hang(self) -> None:
        """It answers nothing more, until it goes on."""
        self.hangs = True
        os.kill(self.server, signal.SIGSTOP)

    def go_on(self) -> None:
        self.hangs = False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.server, signal.SIGCONT)

    def end(self) -> None:
        """End it by all means; the test has seen to it that nobody is in there."""
        if self.hangs:
            self.go_on()
        if self._process is None and not is_mounted(self.library):
            return
        failure = None
        try:
            self.unmount()
        except (AssertionError, subprocess.SubprocessError) as error:
            failure = str(error)
        unmount_lazily(self.library)
        if self._process is not None:
            self._process.kill()
            self._process.wait(SECONDS)
        assert failure is None, failure


def _unmounting(folder: Path) -> list[str]:
    if os.geteuid() == 0:
        return ["umount", str(folder)]
    return ["fusermount3", "-u", str(folder)]


def _allow_other() -> list[str]:
    # Others than root need a line in /etc/fuse.conf for it.
    return ["-o", "allow_other"] if os.geteuid() == 0 else []


class Sshfs(Source):
    """sshfs and an SFTP server on two ends of a socket, without SSH between them."""

    programs: ClassVar = {"sshfs": "sshfs"}
    lasting_inodes: ClassVar = False

    @classmethod
    def missing(cls) -> str | None:
        return super().missing() or (
            None if cls._sftp_server() else "no sftp-server: apt-get install openssh-sftp-server"
        )

    @staticmethod
    def _sftp_server() -> str | None:
        return next((path for path in _SFTP_SERVERS if os.access(path, os.X_OK)), None)

    def command(self) -> Sequence[str | Path]:
        # "slave" is what "passive" was called before 3.7.1, and is known to both.
        options = ["-o", "slave", *_allow_other()]
        return ["sshfs", "-f", *options, f"nas:{self.at_server}", self.library]

    def mount(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._sftp = self._start([self._sftp_server() or "", "-e"], theirs)
            self._server = self._sftp.pid
            self._process = self._start(self.command(), ours)

    def see_end(self) -> None:
        super().see_end()
        self._sftp.wait(SECONDS)


class Rclone(Source):
    """``rclone mount`` of a folder of this machine."""

    programs: ClassVar = {"rclone": "rclone"}

    def remote(self) -> str:
        return f":local:{self.at_server}"

    def command(self) -> Sequence[str | Path]:
        allow_other = ["--allow-other"] if os.geteuid() == 0 else []
        return [*self._rclone(), "mount", *allow_other, self.remote(), self.library]

    def _rclone(self) -> list[str | Path]:
        return ["rclone", "--config", os.devnull, "--cache-dir", self.place / "rclone cache"]

    def forget(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)


class RcloneWebdav(Rclone):
    """``rclone mount`` of a WebDAV server, as of a cloud."""

    def __init__(self, place: Path, mountpoint: Path) -> None:
        super().__init__(place, mountpoint)
        self._servers = contextlib.ExitStack()
        self._url = ""

    def remote(self) -> str:
        return f":webdav,url='{self._url}':"

    def make(self) -> None:
        super().make()

        def command(_: Path, port: int) -> list[str | Path]:
            address = ["--addr", f"127.0.0.1:{port}"]
            # The server has no cache: what it is asked for, it looks at.
            return [
                *self._rclone(), "serve", "webdav", *address, "--dir-cache-time", "0s",
                self.at_server,
            ]  # fmt: skip

        server = self._servers.enter_context(serving("rclone", command, None, self.place))
        self._url = server.url
        self._server = server.process.pid

    def end(self) -> None:
        with self._servers:
            super().end()


class Local(Source):
    """A folder of a local disk, shown once more."""

    arguments: ClassVar[tuple[str, ...]] = ()

    def command(self) -> Sequence[str | Path]:
        program = next(iter(self.programs))
        return [program, "-f", *self.arguments, *_allow_other(), self.at_server, self.library]


class Mergerfs(Local):
    """mergerfs with a single branch."""

    programs: ClassVar = {"mergerfs": "mergerfs"}
    lasting_inodes: ClassVar = None  # before 2.34 not without the option use_ino

    def see_end(self) -> None:
        if self._process is not None and not is_mounted(self.library):
            try:
                self._process.wait(_UNMOUNTED)
            except subprocess.TimeoutExpired:
                self._process.kill()  # 2.40 sometimes stays, without a mount
        super().see_end()


class Bindfs(Local):
    programs: ClassVar = {"bindfs": "bindfs"}


class Disk(Source):
    """A disk in a file, which only its own file system changes: the server is the mount itself."""

    mkfs: ClassVar[tuple[str, ...]] = ()
    links: ClassVar = False

    def __init__(self, place: Path, mountpoint: Path) -> None:
        super().__init__(place, mountpoint)
        self.at_server = mountpoint
        self._image = place / "disk.img"

    def make(self) -> None:
        with self._image.open("wb") as file:
            file.truncate(_DISK)
        program = find_program(self.mkfs[0], package="")
        subprocess.run([program, *self.mkfs[1:], self._image], check=True, capture_output=True)


class Ntfs3g(Disk):
    programs: ClassVar = {"ntfs-3g": "ntfs-3g", "mkfs.ntfs": "ntfs-3g"}
    mkfs: ClassVar = ("mkfs.ntfs", "-F", "-Q")
    links: ClassVar = True

    def command(self) -> Sequence[str | Path]:
        return ["ntfs-3g", "-o", "no_detach", *_allow_other(), self._image, self.library]


class ExfatFuse(Disk):
    """exfat-fuse, which wants a block device, and goes into the background by itself."""

    programs: ClassVar = {
        "mount.exfat-fuse": "exfat-fuse",
        "mkfs.exfat": "exfatprogs",
        "losetup": "mount",
    }
    needs_root: ClassVar = True
    lasting_inodes: ClassVar = False
    mkfs: ClassVar = ("mkfs.exfat",)

    def command(self) -> Sequence[str | Path]:
        return [find_program("mount.exfat-fuse", package="exfat-fuse"), *_allow_other()]

    @classmethod
    def missing(cls) -> str | None:
        if found := super().missing():
            return found
        done = subprocess.run(["losetup", "-f"], capture_output=True, text=True, check=False)
        return f"no loop device: {done.stderr.strip()}" if done.returncode else None

    def mount(self) -> None:
        mark = uuid.uuid4().hex
        losetup = ["losetup", "--find", "--show", self._image]
        device = subprocess.run(losetup, check=True, capture_output=True, text=True).stdout.strip()
        try:
            with self._log.open("ab") as log:
                subprocess.run(
                    [*self.command(), device, self.library],
                    env={**os.environ, _MARK: mark},
                    stdout=log,
                    stderr=log,
                    timeout=SECONDS,
                    check=True,
                )
        finally:
            # It goes with its last user.
            subprocess.run(["losetup", "--detach", device], check=True)
        (self._server,) = processes_with(f"{_MARK}={mark}")

    def see_end(self) -> None:
        pid = self.server
        poll("exfat-fuse to end", lambda: not _runs(pid))
        # A device that is let go is free a moment later, and the next mount is of the same file.
        poll("its loop device to be free", lambda: not self._attached())

    def _attached(self) -> bool:
        losetup = ["losetup", "--associated", self._image]
        return bool(subprocess.run(losetup, check=True, capture_output=True).stdout)


def _runs(pid: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] != "Z"


SOURCES: Final[dict[str, type[Source]]] = {
    "sshfs": Sshfs,
    "rclone": Rclone,
    "rclone webdav": RcloneWebdav,
    "mergerfs": Mergerfs,
    "exfat-fuse": ExfatFuse,
    "ntfs-3g": Ntfs3g,
    "bindfs": Bindfs,
}


@contextlib.contextmanager
def source(kind: str, place: Path, mountpoint: Path, seconds: float = 500) -> Iterator[Source]:
    """One of :data:`SOURCES`, mounted. Skips where it isn't installed, but fails in CI.

    It must not be in use any more at the end, which has to come within *seconds*: whatever hangs
    goes on then, and who waits for it.
    """
    made_by = SOURCES[kind]
    if missing := made_by.missing():
        if os.environ.get("CI"):
            pytest.fail(f"{kind}: {missing}")
        pytest.skip(f"{kind}: {missing}")  # a laptop; in CI it failed just above
    made = made_by(place, mountpoint)
    watchdog = threading.Timer(seconds, lambda: made.go_on() if made.hangs else None)
    watchdog.daemon = True
    watchdog.start()
    try:
        made.make()
        made.begin()
        yield made
    finally:
        watchdog.cancel()
        made.end()


def evict(file: Path) -> None:
    """Have the kernel forget what it has read of *file*, as it does when it wants the memory."""
    with file.open("rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
