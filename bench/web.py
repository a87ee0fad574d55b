"""Web servers as child processes, with the configurations that the manual recommends.

    with nginx(mountpoint, workdir=tmp_path) as server:
        urllib.request.urlopen(server.url_of("roms/doom/Freedoom.zip"))

nginx, Caddy, Apache httpd and lighttpd all serve *root* on 127.0.0.1, and write only below
*workdir*. They run as whoever starts them, so a mount without ``--allow-other`` is readable for
them; only Apache refuses to be root, and becomes "nobody" then.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final
from urllib.parse import quote

from bench import BenchError
from bench.process import find_program, start, stop

ADDRESS: Final = "127.0.0.1"
TEMPLATES: Final = Path(__file__).parent
# nginx tries to bind for 2.5 s before it gives up; a loaded machine needs a while to start Caddy.
START_SECONDS: Final = 20.0
# Between finding a free port and binding it somebody else may take it.
ATTEMPTS: Final = 5
LOG: Final = "log"
# Where Debian keeps what Apache is put together of.
APACHE_MODULES: Final = Path("/usr/lib/apache2/modules")


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A running web server."""

    url: str
    """Without a slash at its end."""
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    """What it wrote to its standard error, its error log included."""

    def url_of(self, path: str | bytes | Path) -> str:
        """The URL of a file, given its path relative to the root."""
        return f"{self.url}/{quote(os.fsencode(path))}"


@contextlib.contextmanager
def nginx(
    root: Path, *, port: int | None = None, workdir: Path, within: Sequence[str] = ()
) -> Iterator[Server]:
    """Run nginx with bench/nginx.conf until the block ends; *port* None: any that is free.

    *within* is what to put before the command.
    """
    program = find_program("nginx", package="nginx")

    def command(prefix: Path, number: int) -> list[str | Path]:
        configuration = render(
            "nginx.conf",
            prefix,
            root=nginx_string(root),
            prefix=nginx_string(prefix),
            port=str(number),
            user=nginx_user(),
        )
        # -e: until it has read its configuration, nginx logs where its packager chose.
        return [*within, program, "-p", prefix, "-c", configuration, "-e", "stderr"]

    with serving("nginx", command, port, workdir) as server:
        yield server


@contextlib.contextmanager
def caddy(root: Path, *, port: int | None = None, workdir: Path) -> Iterator[Server]:
    """Run Caddy with bench/Caddyfile until the block ends; *port* None: any that is free."""
    program = find_program("caddy", package="caddy")

    def command(prefix: Path, number: int) -> list[str | Path]:
        configuration = render(
            "Caddyfile",
            prefix,
            root=_caddy_string(root),
            port=str(number),
        )
        return [program, "run", "--adapter", "caddyfile", "--config", configuration]

    with serving("caddy", command, port, workdir) as server:
        yield server


@contextlib.contextmanager
def apache(root: Path, *, port: int | None = None, workdir: Path) -> Iterator[Server]:
    """Run Apache httpd with bench/httpd.conf until the block ends; *port* None: any that is free.

    Started by root it serves as "nobody", who has to be let into *root*.
    """
    program = find_program("apache2", package="apache2")

    def command(prefix: Path, number: int) -> list[str | Path]:
        configuration = render(
            "httpd.conf",
            prefix,
            root=_apache_string(root),
            prefix=_apache_string(prefix),
            log=_apache_string(prefix / LOG),
            modules=str(APACHE_MODULES),
            port=str(number),
            # It is built to refuse serving as root.
            user='User "#65534"\nGroup "#65534"' if os.geteuid() == 0 else "",
        )
        return [program, "-f", configuration, "-D", "FOREGROUND"]

    with serving("apache2", command, port, workdir) as server:
        yield server


@contextlib.contextmanager
def lighttpd(root: Path, *, port: int | None = None, workdir: Path) -> Iterator[Server]:
    """Run lighttpd with bench/lighttpd.conf until the block ends; *port* None: any that is free."""
    program = find_program("lighttpd", package="lighttpd")

    def command(prefix: Path, number: int) -> list[str | Path]:
        configuration = render(
            "lighttpd.conf",
            prefix,
            root=_lighttpd_string(root),
            prefix=_lighttpd_string(prefix),
            port=str(number),
        )
        return [program, "-D", "-f", configuration]

    with serving("lighttpd", command, port, workdir) as server:
        yield server


def check_port(port: int) -> None:
    """Raise :exc:`BenchError` if nothing can listen on *port*.

    Also what keeps us from taking somebody else's server for ours: nginx goes on trying for a
    while, and Caddy would even share the port with another Caddy (``SO_REUSEPORT``).
    """
    if not 0 < port < 65536:
        raise BenchError(f"{port} is no port")
    with socket.socket() as probe:
        # As the servers do: without it, a port is taken for a minute after its last connection.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
            probe.listen()
        except OSError as error:
            raise BenchError(f"port {port} on {ADDRESS}: {error.strerror}") from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(
    name: str,
    command: Callable[[Path, int], list[str | Path]],
    port: int | None,
    workdir: Path,
) -> Iterator[Server]:
    """Run a server until the block ends.

    *command* says how, given a folder for its files and a port of 127.0.0.1 to listen on.
    """
    server = _start(name, command, port, workdir)
    try:
        yield server
    finally:
        stop(server.process)


def _start(
    name: str,
    command: Callable[[Path, int], list[str | Path]],
    port: int | None,
    workdir: Path,
) -> Server:
    if port is not None:
        return _start_at(name, command, port, workdir)
    for _ in range(ATTEMPTS - 1):
        free = _free_port()
        try:
            return _start_at(name, command, free, workdir)
        except BenchError:
            if _is_free(free):  # then that was not the reason
                raise
    return _start_at(name, command, _free_port(), workdir)


def _is_free(port: int) -> bool:
    try:
        check_port(port)
    except BenchError:
        return False
    return True


def _start_at(
    name: str,
    command: Callable[[Path, int], list[str | Path]],
    port: int,
    workdir: Path,
) -> Server:
    check_port(port)
    # A folder for each run: several servers may share a workdir.
    prefix = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=workdir))
    log = prefix / LOG
    # Where Caddy keeps certificates and a copy of its configuration.
    env = {**os.environ, "HOME": str(prefix)}
    env.update({key: str(prefix) for key in ("XDG_CONFIG_HOME", "XDG_DATA_HOME")})
    # A file and no pipe: nobody reads while the server runs, and a full pipe would block it.
    # For appending: Apache opens it once more by itself.
    with log.open("ab") as stderr:
        process = start(command(prefix, port), stdout=stderr, stderr=stderr, env=env)
    try:
        _wait_until_listening(name, process, port, log)
    except BaseException:
        stop(process)
        raise
    return Server(url=f"http://{ADDRESS}:{port}", port=port, process=process, log=log)


def _wait_until_listening(
    name: str, process: subprocess.Popen[bytes], port: int, log: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"{name} ended with status {process.returncode}: {_said(log)}")
        if _listens(process.pid, port):
            return
        time.sleep(0.02)
    raise BenchError(f"{name} does not answer on port {port}: {_said(log)}")


def _listens(pid: int, port: int) -> bool:
    """Whether this very process has a socket that listens on *port* and takes connections."""
    listening = {
        fields[9]
        for table in map(Path, ("/proc/net/tcp", "/proc/net/tcp6"))
        if table.exists()  # not without IPv6; with it, some servers bind to ::ffff:127.0.0.1
        for fields in map(str.split, table.read_text().splitlines()[1:])
        if fields[3] == "0A" and int(fields[1].partition(":")[2], 16) == port
    }
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return False
    for descriptor in descriptors:
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.removeprefix("socket:[").removesuffix("]") in listening:
            break
    else:
        return False
    try:
        socket.create_connection((ADDRESS, port), timeout=START_SECONDS).close()
    except OSError:
        return False
    return True


def _said(log: Path) -> str:
    """The last thing that a server wrote, on one line."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def render(name: str, folder: Path, **values: str) -> Path:
    template = Template((TEMPLATES / name).read_text())
    path = folder / name
    path.write_text(template.substitute(values), errors="surrogateescape")
    return path


def nginx_user() -> str:
    """What nginx's configuration says of its user."""
    # Started by root, the workers would change to a user who can't read root's mount.
    # An ordinary user may not even name one.
    return "user root;" if os.geteuid() == 0 else ""


def nginx_string(path: Path) -> str:
    """What stands between double quotes in nginx's configuration."""
    text = str(path.absolute())
    # nginx knows variables in such a place, and no way to write a dollar sign.
    if "$" in text or "\n" in text:
        raise BenchError(f"nginx can't serve from a path with a dollar sign or a newline: {text!r}")
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _caddy_string(path: Path) -> str:
    """What stands between double quotes in a Caddyfile."""
    text = str(path.absolute())
    # Braces are Caddy's placeholders.
    if "{" in text or "\n" in text:
        raise BenchError(f"Caddy can't serve from a path with a brace or a newline: {text!r}")
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _apache_string(path: Path) -> str:
    """What stands between double quotes in Apache's configuration."""
    text = str(path.absolute())
    # ${NAME} is replaced even there, and a line that ends in a backslash goes on.
    if "${" in text or "\n" in text:
        raise BenchError(f"Apache can't serve from a path with ${{ or a newline: {text!r}")
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _lighttpd_string(path: Path) -> str:
    """What stands between double quotes in lighttpd's configuration."""
    text = str(path.absolute())
    if "\n" in text:
        raise BenchError(f"lighttpd can't serve from a path with a newline: {text!r}")
    return text.replace("\\", "\\\\").replace('"', '\\"')
