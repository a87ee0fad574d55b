"""The small process that holds a mount, and starts its daemon again when that dies.

``zipfs mount`` makes the mount, starts the daemon as a child, and becomes this program by
execve(2): a Python interpreter with nothing of zipfs in it, which has the user's process ID, and a
few MB. It keeps ``/dev/fuse`` and the state open (:mod:`.adoption`), so that the kernel keeps the
mount, passes signals and notifications on, and ends with the daemon's status.

It never touches the mount: its own request would wait for the daemon that it is to start, and a
process that waits for FUSE can't be ended. It knows the mount by its number in mountinfo alone.

SIGUSR2 starts a successor, which takes over when it has loaded everything (``zipfs restart``);
SIGTERM and SIGINT unmount and end; SIGHUP and SIGUSR1 are passed on.

A daemon that dies is started again, after a pause that grows, :data:`MOST` times in :data:`WITHIN`
seconds: what kills it may be a request that is asked again. One that can't take the mount over
ends with :data:`NOT_ADOPTED`; then the mount is taken away and all begins anew. Whoever connects
to an abstract socket (unix(7)) with the mount's number in its name is told how far it is.

Only :mod:`.telling` is imported of zipfs, and nothing that isn't needed: this program outlives
upgrades.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time

if __package__:
    from zipfs.mount.restart.telling import Teller, named
else:  # run as a program: it has nothing of zipfs but what lies beside it
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from telling import Teller, named  # type: ignore[import-not-found,no-redef]

    del sys.path[0]

HOLDER = "ZIPFS_HOLDER"
"""Environment variable with what to hold, in JSON (:class:`Holder`)."""
HELD = "ZIPFS_HELD"
DEATHS = "ZIPFS_DEATHS"
"""When daemons died, in seconds of CLOCK_MONOTONIC, over a fresh start."""
ATTEMPT = "ZIPFS_ATTEMPT"
"""For a daemon that follows a dead one: which attempt it is, and of how many."""
NOT_ADOPTED = 96
ENOUGH = 30.0
"""Seconds after which a daemon that is to end is killed; so it is by a second signal."""
MOST = 10
WITHIN = 120.0
PAUSES = (0.0, 0.1, 0.3, 1.0, 2.0, 5.0)
_LINE = 1 << 16


class Daemon:
    """A child, and the socket by which it talks."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.channel = channel
        self.began = time.monotonic()
        self.is_ready = False
        self.is_loaded = False
        """Whether it waits for the mount, as a successor."""
        self.hands_over = False
        """Whether it was told to: it ends, and another one has to follow."""

    def say(self, message: bytes) -> None:
        with contextlib.suppress(OSError):
            self.channel.send(message)

    def signal(self, number: int) -> None:
        """Send it a signal: a child's number is its own until it is waited for."""
        try:
            os.kill(self.pid, number)
        except PermissionError:
            # kill(2): without CAP_KILL, a process of that user may.
            mine = os.geteuid()
            with contextlib.suppress(OSError):
                os.seteuid(os.stat(f"/proc/{self.pid}").st_uid)
                os.kill(self.pid, number)
            os.seteuid(mine)


class Holder:
    """Holds the mount that *given* describes: descriptors ``fuse`` and ``state``; its path and
    MAJOR:MINOR; the ``command`` of a daemon, and its ``folder``; ``pid`` of the one that runs, and
    our end of its socket; a command to ``tune`` it once it is served, or none; whether it is
    ``quiet``: stderr leads nowhere, and messages go to syslog(3).
    """

    def __init__(self, given: dict) -> None:  # type: ignore[type-arg]  # any JSON
        self.fuse: int = given["fuse"]
        self.state: int = given["state"]
        self.mountpoint: str = given["mountpoint"]
        self.number: str = given["number"]
        self.command: list[str] = given["command"]
        self.folder: str = given["folder"]
        self.tune: list[str] = given["tune"]
        self.teller = Teller(self.mountpoint, self.number, quiet=given["quiet"])
        self.log = self.teller.log
        self.current: Daemon | None = Daemon(given["pid"], socket.socket(fileno=given["channel"]))
        self.successor: Daemon | None = None
        self.retired: list[Daemon] = []
        self.stopping = False
        self.kill_at: float | None = None
        """When to kill a daemon that doesn't end."""
        self.has_served = False
        self.start_at: float | None = None
        """When to start a daemon; None if there is no need."""
        self.died_ns = 0
        self.deaths = [float(text) for text in os.environ.pop(DEATHS, "").split()]

    # -- The loop ------------------------------------------------------------------------

    def run(self) -> None:
        """Hold it until the end; doesn't return."""
        wake, woken = socket.socketpair()
        for end in (wake, woken):
            end.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
                       signal.SIGCHLD):  # fmt: skip
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        self.reap()  # who ended before there was a handler
        while True:
            poll = select.poll()
            poll.register(wake, select.POLLIN)
            asked = self.teller.fileno()
            if asked >= 0:
                poll.register(asked, select.POLLIN)
            daemons = {d.channel.fileno(): d for d in self.daemons()}
            for descriptor in daemons:
                poll.register(descriptor, select.POLLIN)
            times = [at for at in (self.start_at, self.kill_at) if at is not None]
            left = max(0, int(1000 * (min(times) - time.monotonic())) + 1) if times else None
            for descriptor, _ in poll.poll(left):
                if descriptor == wake.fileno():
                    for received in wake.recv(_LINE):
                        self.heed(received)
                elif descriptor in daemons:
                    self.hear(daemons[descriptor])
                elif descriptor == asked:
                    self.teller.answer(self.progress())
            self.reap()
            if self.start_at is not None and time.monotonic() >= self.start_at:
                self.start_at = None
                self.current = self.start("again")
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                self.kill_at = None
                if self.current:
                    self.log(4, "the daemon doesn't end; killing it")
                    self.current.signal(signal.SIGKILL)

    def daemons(self) -> list[Daemon]:
        """Those that may say something."""
        known = [self.current, self.successor, *self.retired]
        return [daemon for daemon in known if daemon and daemon.channel.fileno() >= 0]

    def heed(self, number: int) -> None:
        """Do what the signal *number* wants."""
        if number in (signal.SIGTERM, signal.SIGINT):
            self.kill_at = time.monotonic() + (0 if self.stopping else ENOUGH)
            self.stopping = True
            if self.successor:
                self.successor.signal(signal.SIGKILL)
            if self.current is None:
                self.finish(0)
        elif number == signal.SIGUSR2:
            if self.successor:
                self.successor.signal(signal.SIGKILL)
                self.retired.append(self.successor)
            if self.current and not self.stopping:
                self.successor = self.start("standby")
            return
        if number != signal.SIGCHLD and self.current:
            self.current.signal(number)

    def hear(self, daemon: Daemon) -> None:
        """Take a message of *daemon*."""
        try:
            message = daemon.channel.recv(_LINE)
        except OSError:
            message = b""
        if not message:
            daemon.channel.close()  # it ends
        elif message.startswith(b"notify "):
            self.teller.notify(message[7:])
        elif message == b"ready":
            daemon.is_ready = self.has_served = True
            if self.tune:  # it knows the mount by mountinfo alone, too
                command, self.tune = self.tune, []
                with contextlib.suppress(OSError):
                    os.posix_spawn(command[0], command, os.environ)
            self.relieve()  # a daemon that starts ignores signals
        elif message == b"loaded":
            daemon.is_loaded = True
            self.relieve()
        elif message == b"stopped" and daemon is self.current and self.successor:
            self.retired.append(daemon)
            self.promote()

    def relieve(self) -> None:
        """Have the daemon hand over, if its successor has loaded everything."""
        if self.successor and self.successor.is_loaded:
            if self.current:
                self.current.hands_over = True
                self.current.signal(signal.SIGUSR2)
            else:
                self.promote()

    def promote(self) -> None:
        """The successor takes over, now."""
        self.current, self.successor = self.successor, None
        self.start_at = None
        if self.current:
            self.current.say(b"go")

    def reap(self) -> None:
        """See to all children that have ended; as process 1 there are others', too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            for daemon in (self.current, self.successor, *self.retired):
                if daemon and daemon.pid == pid:
                    self.hear_last(daemon)
                    self.ended(daemon, code)
                    break

    def hear_last(self, daemon: Daemon) -> None:
        """What *daemon* has said before its end."""
        while daemon.channel.fileno() >= 0:
            if not select.select([daemon.channel], [], [], 0)[0]:
                daemon.channel.close()
            else:
                self.hear(daemon)

    def ended(self, daemon: Daemon, code: int) -> None:
        """*daemon* has ended with the exit status *code*, negative for a signal."""
        if daemon in self.retired:
            self.retired.remove(daemon)
        elif daemon is self.successor:
            self.successor = None
            if self.current:
                self.current.say(b"failed " + named(code).encode())
            elif not self.stopping and self.start_at is None:
                self.start_at = time.monotonic()
        elif self.stopping or (code == 0 and not self.successor and not daemon.hands_over):
            self.finish(code)
        elif self.successor:  # it was to hand over
            self.died_ns = time.monotonic_ns()
            self.promote()
        elif code == NOT_ADOPTED:
            self.begin_anew()
        elif code > 0 and not self.has_served:  # an error at the start, which it has told
            self.finish(code)
        else:
            self.died(code)

    def died(self, code: int) -> None:
        """The daemon has died: start another one, unless that was tried too often."""
        now = time.monotonic()
        self.died_ns = time.monotonic_ns()
        self.current = None
        what = f"the daemon has died ({named(code)})"
        if code == 0:
            what = "the daemon has handed over, but its successor has died"
        self.deaths = [*(at for at in self.deaths if now - at < WITHIN), now]
        if len(self.deaths) > MOST:
            self.log(3, f"{what}, too often; unmounting")
            self.finish(code or 1)
        pause = PAUSES[min(len(self.deaths), len(PAUSES)) - 1]
        when = f" in {pause:g} s" if pause else ""
        again = f", attempt {len(self.deaths)} of {MOST}" if len(self.deaths) > 1 else ""
        self.log(4, f"{what}; starting it again{when}{again}")
        self.start_at = now + pause

    def progress(self) -> dict[str, object]:
        """How far it is with starting a daemon; times are in seconds."""
        now, current = time.monotonic(), self.current
        return {
            "holder": os.getpid(),
            "attempt": len(self.deaths),
            "attempts": MOST,
            "starts_in": None if self.start_at is None else max(0.0, self.start_at - now),
            "starting_for": now - current.began if current and not current.is_ready else None,
        }

    # -- Daemons -------------------------------------------------------------------------

    def start(self, task: str) -> Daemon:
        """Start a daemon that takes the mount over."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        died, self.died_ns = self.died_ns, 0
        pid = os.fork()
        if pid:
            its.close()
            return Daemon(pid, ours)
        try:
            for descriptor in (self.fuse, self.state, its.fileno()):
                os.set_inheritable(descriptor, True)
            os.environ[HELD] = f"{self.fuse} {self.state} {its.fileno()} {task} {died}"
            if task == "again":
                os.environ[ATTEMPT] = f"{len(self.deaths)} {MOST}"
            if os.environ.get("WATCHDOG_PID") == str(os.getppid()):
                os.environ["WATCHDOG_PID"] = str(os.getpid())
            _enter(self.folder)
            os.execvp(self.command[0], self.command)  # noqa: S606 - a list, no shell
        except BaseException as error:  # noqa: BLE001 - whatever happens, here it ends
            self.log(3, f"can't start {self.command[0]}: {error}")
        finally:
            os._exit(127)

    def begin_anew(self) -> None:
        """Take the mount away, and become what the user has started."""
        if not self.is_mounted():
            self.finish(0)  # somebody has unmounted it meanwhile
        self.log(4, "the mount can't be taken over; making it anew")
        self.let_go()
        now = time.monotonic()
        deaths = [*(at for at in self.deaths if now - at < WITHIN), now]
        if len(deaths) > MOST:
            self.log(3, "the daemon has died too often; it isn't mounted again")
            os._exit(NOT_ADOPTED)
        os.environ[DEATHS] = " ".join(map(str, deaths))
        _enter(self.folder)
        os.execvp(self.command[0], self.command)  # noqa: S606 - a list, no shell

    # -- The end -------------------------------------------------------------------------

    def finish(self, code: int) -> None:
        """Take the mount away, and end as the daemon did."""
        self.let_go()
        if code < 0:
            with contextlib.suppress(OSError):  # SIGKILL can't be set
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code if code >= 0 else 128 - code)

    def let_go(self) -> None:
        """Close the connection, upon which nobody waits any more, and unmount."""
        for daemon in self.daemons():
            if daemon is not self.current:
                daemon.signal(signal.SIGKILL)
        os.close(self.fuse)
        os.close(self.state)
        if not self.is_mounted():
            return
        for program in (["fusermount3", "-u", "-z"], ["umount", "-l"]):
            command = [*program, "--", self.mountpoint]
            nothing = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_RDWR, 0) for n in (0, 1, 2)]
            try:
                child = os.posix_spawnp(command[0], command, os.environ, file_actions=nothing)
            except OSError:
                continue
            if os.waitpid(child, 0)[1] == 0 or not self.is_mounted():  # or by others meanwhile
                return
        self.log(4, f"can't unmount {self.mountpoint}")

    def is_mounted(self) -> bool:
        """Whether the mount is still there, in the table: proc_pid_mountinfo(5)."""
        path = os.fsencode(self.mountpoint)
        for byte in b"\\ \t\n":
            path = path.replace(bytes([byte]), b"\\%03o" % byte)
        with open("/proc/self/mountinfo", "rb") as lines:
            return [self.number.encode(), path] in [line.split()[2:5:2] for line in lines]


def _enter(folder: str) -> None:
    """Go where the user has started the program; relative paths must not lead anywhere else."""
    try:
        os.chdir(folder)
    except OSError:
        gone = tempfile.mkdtemp()
        os.chdir(gone)
        os.rmdir(gone)


if __name__ == "__main__":
    os.chdir("/")
    Holder(json.loads(os.environ.pop(HOLDER))).run()
