"""A PostgreSQL server of our own, from Debian's packages: in a folder, on a Unix socket.

``postgres`` refuses to run as root, so it runs as an unprivileged user then.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg

from bench import BenchError
from bench.process import start

PORT: Final = 54329
"""Of a socket in a folder of ours, and so nobody else's."""
_START: Final = 120.0
"""Seconds for its start, on a machine that has ten times as much to do."""
_SETTINGS: Final = {
    "listen_addresses": "''",
    "port": str(PORT),
    "fsync": "off",  # it is the power that doesn't fail
    "shared_buffers": "32MB",
    "max_connections": "40",
    "log_min_messages": "warning",
}


def programs() -> Path | None:
    """The folder of ``initdb`` and ``postgres``: Debian has one for each version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return Path(program).resolve().parent if program else None


def _user() -> int:
    """Whose it is if we are root; ``initdb`` wants a user with a name."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise BenchError("there is no user to run PostgreSQL as")


def _version(path: Path) -> float:
    with contextlib.suppress(ValueError):
        return float(path.parts[-3])
    return 0.0


class Server:
    """A server with its data in *folder*."""

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        self.folder = folder
        self.data = data or folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        """Make its files."""
        self._make_folders()
        self._run(
            "initdb", "--pgdata", self.data, "--username=zipfs", "--auth=trust", "--no-sync",
            "--encoding=UTF8", "--locale=C",
        )  # fmt: skip

    def _make_folders(self) -> None:
        for folder in (self.folder, self.data):
            folder.mkdir(mode=0o711 if folder is self.folder else 0o700, exist_ok=True)
            if os.geteuid() == 0:
                os.chown(folder, _user(), -1)

    def follow(self, primary: Server) -> None:
        """Make its files of those of *primary*, which runs: it will be a standby of that one."""
        self._make_folders()
        self._run(
            "pg_basebackup", "--pgdata", self.data, "--write-recovery-conf", "--checkpoint=fast",
            "--no-sync", f"--host={primary.folder}", f"--port={PORT}", "--username=zipfs",
        )  # fmt: skip

    def unfollow(self) -> None:
        """Get nothing more from its primary."""
        self.ask("postgres", "ALTER SYSTEM SET primary_conninfo = ''")
        self.ask("postgres", "SELECT pg_reload_conf()")
        until = time.monotonic() + _START
        while self.ask("postgres", "SELECT pid FROM pg_stat_wal_receiver"):
            if time.monotonic() > until:
                raise BenchError("the standby still gets something")
            time.sleep(0.05)

    def promote(self) -> None:
        """Be no standby any more."""
        (done,) = self.ask("postgres", "SELECT pg_promote(wait_seconds => 100)")
        if not done[0]:
            raise BenchError("the standby isn't promoted")

    @staticmethod
    def command(program: str, *arguments: str | Path) -> list[str | Path]:
        folder = programs()
        if folder is None:
            raise BenchError("PostgreSQL is not installed: apt-get install postgresql")
        if os.geteuid() != 0:
            return [folder / program, *arguments]
        # A change of user clears the signal that bench.process asked for.
        user = ["setpriv", f"--reuid={_user()}", "--clear-groups", "--pdeathsig", "INT", "--"]
        return [*user, folder / program, *arguments]

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            self.command(program, *arguments),
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"{program}: {done.stderr}")

    def start(self, *options: str) -> None:
        """Start it, and wait until it answers."""
        settings = dict(_SETTINGS, unix_socket_directories=f"'{self.folder}'")
        arguments = [f"-c{name}={value.strip(chr(39))}" for name, value in settings.items()]
        with (self.folder / "log").open("ab") as log:
            # Without the mark of what a test has started: it is there for many of them.
            self._process = start(
                [*self.command("postgres", "-D", self.data), *arguments, *options],
                stdout=log,
                stderr=log,
                env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
            )
        until = time.monotonic() + _START
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise BenchError((self.folder / "log").read_text())
            time.sleep(0.05)

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), self.connect("postgres"):
            return True
        return False

    @property
    def runs(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise BenchError("it doesn't run")
        return self._process.pid

    @property
    def processes(self) -> list[int]:
        """The server and its backends."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT ends all connections first, SIGQUIT is a crash."""
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """SIGKILL all its processes, as a machine dies."""
        if self._process:
            for pid in self.processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(60)
            self._process = None
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It answers nothing, and closes nothing."""
        frozen = self.processes
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    # -- Databases ----------------------------------------------------------------------

    def address(self, database: str, user: str = "zipfs", standby: Server | None = None) -> str:
        """What to tell zipfs; with a *standby*, the one of both that may be written to."""
        hosts = ",".join(quote(str(one.folder)) for one in (self, standby) if one)
        either = "&target_session_attrs=read-write" if standby else ""
        return f"postgresql://{user}@/{database}?host={hosts}&port={PORT}{either}"

    def connect(self, database: str = "postgres", user: str = "zipfs") -> psycopg.Connection[Any]:
        return psycopg.connect(self.address(database, user), autocommit=True, connect_timeout=5)

    def make(self, database: str) -> str:
        """Make an empty *database*; its address."""
        with self.connect() as db:
            db.execute(f'CREATE DATABASE "{database}"'.encode())
        return self.address(database)

    def drop(self, database: str) -> None:
        with self.connect() as db:
            db.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)'.encode())

    def ask(
        self, database: str, query: str, values: Sequence[object] = ()
    ) -> list[tuple[Any, ...]]:
        """The rows that answer *query*."""
        with self.connect(database) as db:
            cursor = db.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A server that runs."""
    found = Server(folder)
    found.initialise()
    found.start()
    try:
        yield found
    finally:
        found.stop(signal.SIGQUIT)
