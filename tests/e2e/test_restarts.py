"""Daemons die and are replaced while somebody downloads: the mount outlives them (DESIGN F2).

Each server has a game of its own, since what the kernel has of an archive no daemon is asked for.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Final

import pytest

from bench.web import Server
from tests.e2e import curl
from tests.e2e.conftest import Seen
from tests.e2e.expected import Expected
from tests.e2e.matrix.stand import SERVERS
from tests.e2e.programs import ARIA2C, running
from tests.support.libraries import content, make_game, sha256
from tests.support.mounting import Mounted, Mounts, run_zipfs
from tests.support.waiting import SECONDS, poll

MIB: Final = 1 << 20
# Much more than what lies in the buffers between a daemon and a client, some MiB for each
# connection, and than the clients get while something happens.
SIZE: Final = 48 * MIB
# Who was stopped for less than three seconds may then get three seconds' worth at once (curl).
RATE: Final = "3M"
RATE_OF_ALL: Final = "6M"
STEP: Final = 3 * MIB
"""Bytes that each client has to get before something happens."""
MEANWHILE: Final = 2 * STEP
"""Bytes that it gets at most while something happens."""

_VERSIONED: Final = """
import sys, zipfs
with open({version!r}) as file:
    zipfs.__version__ = file.read()
from zipfs.cli import cli
cli.main()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A server that serves *game*."""

    name: str
    server: Server
    game: str
    expected: Expected

    @property
    def url(self) -> str:
        return self.server.url_of(f"{self.game}.zip")

    def processes(self) -> set[str]:
        pid = self.server.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {str(pid), *children}

    def etag(self) -> str:
        answer = curl.head(self.url)
        assert answer.status == 200, self.name
        return answer.headers["etag"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """A program that downloads to *file*, rate-limited."""

    file: Path
    command: tuple[str | Path, ...]

    @property
    def size(self) -> int:
        """Bytes on the disk: some programs write them in any order."""
        return self.file.stat().st_blocks * 512 if self.file.exists() else 0


def _curl(line: Line, place: Path) -> Client:
    file = place / f"{line.name}.zip"
    wanted = ("--limit-rate", RATE, "-w", "%{num_connects} %{http_code}")
    return Client(file=file, command=(*curl.QUIET, *wanted, "-o", file, line.url))


def _make(library: Path, name: str, size: int = SIZE) -> None:
    half = size // 2
    make_game(
        library, f"roms/x/{name}", {"a": content(half, name), "b": content(half, f"{name} b")}
    )


@contextlib.contextmanager
def _lines(mounted: Mounted, place: Path) -> Iterator[list[Line]]:
    with ExitStack() as servers:
        yield [
            Line(
                name=name,
                server=servers.enter_context(serve(mounted.path, workdir=place)),
                game=f"roms/x/{name}",
                expected=Expected(mounted.library / f"roms/x/{name}"),
            )
            for name, serve in SERVERS.items()
        ]


def _meanwhile(clients: list[Client], *events: Callable[[], None]) -> list[str]:
    """Run *clients*, and let *events* happen while they download; what each client has said."""
    with ExitStack() as stack:
        processes = [stack.enter_context(running(*client.command)) for client in clients]
        pairs = list(zip(clients, processes, strict=True))
        for event in events:
            sizes = [client.size + STEP for client in clients]

            def have_more(sizes: list[int] = sizes) -> bool:
                ended = [client.command for client, process in pairs if process.poll() is not None]
                assert not ended, "too early"
                there = [client.size >= size for client, size in zip(clients, sizes, strict=True)]
                # One that is quick waits for the others.
                for (_, process), is_there in zip(pairs, there, strict=True):
                    process.send_signal(signal.SIGSTOP if is_there else signal.SIGCONT)
                return all(there)

            poll("the clients to have more", have_more)
            with _slowly(pairs):
                event()
        said = []
        for client, process in pairs:
            out, _ = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, client.command
            said.append(out.decode())
    return said


@contextlib.contextmanager
def _slowly(pairs: list[tuple[Client, Popen[bytes]]]) -> Iterator[None]:
    """While this lasts the clients get more and more, but never more than :data:`MEANWHILE`.

    However long it lasts: a busy machine mustn't let them have all of it before the end.
    """
    began, over = time.monotonic(), threading.Event()
    sizes = [client.size for client, _ in pairs]

    def run() -> None:
        while not over.wait(0.02):
            seconds = time.monotonic() - began
            allowed = MEANWHILE * seconds / (seconds + 2)
            for (client, process), size in zip(pairs, sizes, strict=True):
                fast = client.size - size > allowed
                process.send_signal(signal.SIGSTOP if fast else signal.SIGCONT)
        for _, process in pairs:
            process.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Restarts:
    """Events: a daemon of *mounted* goes, and another one serves."""

    def __init__(self, mounted: Mounted, version: Path) -> None:
        self._mounted = mounted
        self._version = version
        self._count = 0

    def killed(self) -> None:
        self._mounted.kill_daemon()
        self._seen()

    def handed_over(self) -> None:
        env = {"RUNTIME_DIRECTORY": str(self._mounted.runtime)}
        done = run_zipfs("restart", self._mounted.path, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        self._seen()

    def upgraded(self) -> None:
        new = f"2.{self._count}"
        self._version.write_text(new)
        self.handed_over()
        assert self._mounted.status()["version"] == new

    def _seen(self) -> None:
        self._count += 1
        self._mounted.wait_restarts(self._count)


@pytest.mark.parametrize("how", ["killed", "handed_over", "upgraded"])
def test_downloads_go_on(library: Path, mount: Mounts, place: Path, how: str, seen: Seen) -> None:
    for name in SERVERS:
        seen(f"a download, its daemon {how.replace('_', ' ')} twice", name)
        _make(library, name)
    version = place / "version"
    version.write_text("1.0")
    program = [sys.executable, "-c", _VERSIONED.format(version=str(version))]
    # Apache, started by root, serves as somebody else.
    mounted = mount(library, "--allow-other", supervised=True, program=program)
    mounted.wait_sealed(len(SERVERS))
    mounted.expect_log("the daemon has died")
    restart = getattr(Restarts(mounted, version), how)
    with _lines(mounted, place) as lines:
        before = [(line.etag(), line.processes()) for line in lines]
        clients = [_curl(line, place) for line in lines]
        said = _meanwhile(clients, restart, restart)
        assert said == ["1 200"] * len(lines)  # over one connection each
        status = mounted.status()
        assert status["reads"]["bytes"] > len(lines) * STEP  # by the last daemon
        assert status["restarts"]["count"] == 2
        assert status["restarts"]["lost"] == 0
        for line, client, (etag, processes) in zip(lines, clients, before, strict=True):
            assert sha256(client.file) == line.expected.sha256(), line.name
            # Nobody has reloaded the server, nor has it begun anew by itself.
            assert processes <= line.processes(), line.name
            again = curl.get(line.url)
            assert (again.status, again.headers["etag"]) == (200, etag), line.name
            assert again.body == line.expected[:], line.name


def test_eight_connections_at_once(library: Path, mount: Mounts, place: Path) -> None:
    """aria2c, which tries nothing twice, through nginx."""
    _make(library, "nginx", 2 * SIZE)  # in eight parts
    mounted = mount(library, supervised=True)
    mounted.wait_sealed(1)
    mounted.expect_log("the daemon has died")
    restart = Restarts(mounted, place / "version").killed
    with SERVERS["nginx"](mounted.path, workdir=place) as server:
        file = place / "game.zip"
        url = server.url_of("roms/x/nginx.zip")
        aria2c = (*ARIA2C, "-x8", "-s8", f"--max-overall-download-limit={RATE_OF_ALL}")
        client = Client(file=file, command=(*aria2c, "-d", place, "-o", file.name, url))
        _meanwhile([client], restart, restart)
        assert mounted.status()["reads"]["bytes"] > STEP  # by the last daemon
    assert sha256(file) == Expected(library / "roms/x/nginx").sha256()
