"""zipfs on a source, and nginx on its mount, with the configuration that the manual recommends."""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from multiprocessing.context import ForkProcess
from pathlib import Path
from string import Template
from typing import Any, Final
from urllib.parse import quote

from tests.vm.guest.processes import LIMIT, ProgramError, run, start, stop, wait
from tests.vm.guest.sources import WORK
from zipfs.cli.cli import main
from zipfs.errors import MountpointError
from zipfs.mount.status.client import ask

MOUNT: Final = Path("/srv/games")
PORT: Final = 8080
READ_TIMEOUT: Final = 10
"""Seconds until a read fails if the source doesn't answer; three times less than by default."""
SEALED: Final = 300.0
"""Most seconds until a library is sealed."""
FORK: Final = multiprocessing.get_context("fork")
"""A new interpreter takes half a minute until it has read its modules; a fork has them."""
_CONFIGURATION: Final = Path(__file__).parents[3] / "bench/nginx.conf"


class Daemon:
    """zipfs with the index of the source *name*, which stays for the next."""

    def __init__(self, library: Path, name: str, log: Path) -> None:
        self._library = library
        self._index = WORK / f"{name}.index"
        self._log = log
        self._process: ForkProcess | None = None

    def forget(self) -> None:
        """Begin without an index."""
        for file in WORK.glob(f"{self._index.name}*"):
            file.unlink()

    def start(self) -> None:
        MOUNT.mkdir(exist_ok=True)
        command = (
            "zipfs", "mount", "--allow-other", "--index", self._index,
            "--read-timeout", READ_TIMEOUT, self._library, MOUNT,
        )  # fmt: skip
        self._process = FORK.Process(target=_run, args=(self._log, [str(c) for c in command]))
        self._process.start()

    def status(self) -> dict[str, Any] | None:
        try:
            return ask(str(MOUNT))
        except MountpointError:
            return None

    def wait_sealed(self, games: int) -> None:
        """Raises :exc:`ProgramError` if that takes too long."""

        def sealed() -> bool:
            if self._process is not None and not self._process.is_alive():
                raise ProgramError(f"zipfs ended with {self._process.exitcode}")
            found = self.status()
            return found is not None and (
                found["pending"]["surveyed"]
                and not found["pending"]["games"]
                and found["archives"]["sealed"] >= games
            )

        if wait(sealed, SEALED, 1) is None:
            raise ProgramError(f"not sealed after {SEALED:.0f} s: {self.status()}")

    def stop(self) -> int | None:
        """Its exit status; None if it had to be killed."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.terminate()
        process.join(LIMIT)
        if process.is_alive():
            process.kill()
            process.join(LIMIT)
            with contextlib.suppress(ProgramError):
                run("umount", "-l", MOUNT)
            return None
        return process.exitcode


def _run(log: Path, command: list[str]) -> None:
    """Be the program *command*."""
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.argv = command
    Path("/proc/self/comm").write_text("zipfs")
    main()


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What nginx says of an archive: its status, and its validator."""

    status: int
    etag: str | None


class Server:
    """nginx on the mount."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        prefix = WORK / "nginx"
        shutil.rmtree(prefix, ignore_errors=True)
        prefix.mkdir()
        text = Template(_CONFIGURATION.read_text()).substitute(
            user="user root;", prefix=prefix, root=MOUNT, port=PORT
        )
        (prefix / "nginx.conf").write_text(text)
        command = ("nginx", "-p", prefix, "-c", prefix / "nginx.conf", "-e", "stderr")
        self._process = start(*command, log=self._log)
        if wait(lambda: self.offered("").status > 0, 60) is None:
            raise ProgramError("nginx doesn't answer")

    def offered(self, path: str, limit: float = 60) -> Offer:
        """What a HEAD of *path* brings; the status 0 if there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=limit)
        try:
            connection.request("HEAD", f"/{quote(path)}")
            answer = connection.getresponse()
            return Offer(status=answer.status, etag=answer.headers.get("ETag"))
        except (OSError, http.client.HTTPException):
            return Offer(status=0, etag=None)
        finally:
            connection.close()

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process)
            self._process = None


def download(path: str, limit: float) -> tuple[bytes, bool]:
    """The bytes of *path* that curl gets, and whether it takes them for all."""
    file = WORK / "download"
    file.unlink(missing_ok=True)
    url = f"http://127.0.0.1:{PORT}/{quote(path)}"
    try:
        run("curl", "--silent", "--fail", "--output", file, url, limit=limit)
        complete = True
    except ProgramError:
        complete = False
    return file.read_bytes() if file.exists() else b"", complete


class Download:
    """A client that takes the first bytes of *path* and then waits; the server waits for it."""

    def __init__(self, path: str, first: int, limit: float) -> None:
        """Raises :exc:`ProgramError` unless they come."""
        self._connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=limit)
        try:
            self._connection.request("GET", f"/{quote(path)}")
            self._answer = self._connection.getresponse()
            self._first = self._answer.read(first)
        except (OSError, http.client.HTTPException) as error:
            raise ProgramError(f"{path}: {error}") from None
        if self._answer.status != HTTPStatus.OK or len(self._first) < first:
            raise ProgramError(f"{path}: status {self._answer.status}, {len(self._first)} bytes")

    def finish(self) -> tuple[bytes, bool]:
        """All bytes, the rest as fast as they come, and whether they are as many as announced."""
        try:
            return self._first + self._answer.read(), True
        except http.client.IncompleteRead as error:
            return self._first + error.partial, False
        except OSError:
            return self._first, False
        finally:
            self._connection.close()


@contextlib.contextmanager
def running(daemon: Daemon, server: Server, games: int) -> Iterator[None]:
    """All sealed and served; ended after the block, come what may."""
    daemon.start()
    try:
        daemon.wait_sealed(games)
        server.start()
        yield
    finally:
        server.stop()
        daemon.stop()
