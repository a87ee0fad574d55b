"""Web servers as the manual sets them up in front of an application, or of others."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.process import find_program
from bench.web import Server, serving
from tests.e2e.programs import run
from tests.support import documents
from tests.support.users import NOBODY

# What Debian's nginx.conf has around a site: a user of its own above all.
_MAIN: Final = """
daemon off;
{user}
pid {prefix}/nginx.pid;
error_log stderr warn;
worker_processes 2;
events {{ }}
http {{
    client_body_temp_path {prefix}/client_body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    types {{ application/zip zip; text/html html; }}
    default_type application/octet-stream;
    access_log off;
    gzip on;
{site}
}}
"""
_CADDY: Final = """
{
    admin off
    auto_https off
    grace_period 1s
    log {
        level ERROR
    }
}
"""


@contextlib.contextmanager
def nginx(site: str, listen: str, *, workdir: Path, within: Sequence[str] = ()) -> Iterator[Server]:
    """Run nginx with the ``server`` block *site* until the block ends, as "nobody" if we may.

    *listen* is the line of it that says where, instead of which it gets a free port. *within* is
    what to put before the command.
    """
    program = find_program("nginx", package="nginx")

    def command(prefix: Path, port: int) -> list[str | Path]:
        prefix.chmod(0o711)  # its workers have their temporary files there
        user = ""
        if os.geteuid() == 0:
            entry = pwd.getpwuid(NOBODY)
            user = f"user {entry.pw_name} {grp.getgrgid(entry.pw_gid).gr_name};"
        own = documents.replaced(site, {listen: f"listen 127.0.0.1:{port};"})
        path = prefix / "nginx.conf"
        path.write_text(_MAIN.format(user=user, prefix=prefix, site=own))
        return [*within, program, "-p", prefix, "-c", path, "-e", "stderr"]

    with serving("nginx", command, None, workdir) as server:
        yield server


@contextlib.contextmanager
def caddy(site: str, address: str, *, workdir: Path) -> Iterator[Server]:
    """Run Caddy with the Caddyfile *site*, whose *address* becomes a free port."""
    program = find_program("caddy", package="caddy")

    def command(prefix: Path, port: int) -> list[str | Path]:
        head = f"http://127.0.0.1:{port} {{\n    bind 127.0.0.1\n"
        own = documents.replaced(site, {f"{address} {{\n": head})
        path = prefix / "Caddyfile"
        path.write_text(_CADDY + own)
        return [program, "run", "--adapter", "caddyfile", "--config", path]

    with serving("caddy", command, None, workdir) as server:
        yield server


@contextlib.contextmanager
def haproxy(sections: str, bind: str, *, workdir: Path) -> Iterator[Server]:
    """Run HAProxy with *sections* until the block ends, as "nobody" if we may.

    *bind* is the line that says where, instead of which it gets a free port.
    """
    program = find_program("haproxy", package="haproxy")

    def command(prefix: Path, port: int) -> list[str | Path]:
        user = ""
        if os.geteuid() == 0:
            entry = pwd.getpwuid(NOBODY)
            user = f"    user {entry.pw_name}\n    group {grp.getgrgid(entry.pw_gid).gr_name}\n"
        own = documents.replaced(sections, {f"{bind}\n": f"bind 127.0.0.1:{port}\n"})
        path = prefix / "haproxy.cfg"
        path.write_text(f"global\n    maxconn 200\n{user}\n{own}")
        return [program, "-db", "-f", path]

    with serving("haproxy", command, None, workdir) as server:
        yield server


def _shared_settings() -> str:
    """The lines of "serving" that the manual names for all other uses of nginx."""
    text = documents.block("serving#nginx", "sendfile on;")
    last = "open_file_cache_errors off;"
    return text[text.index("sendfile on;") : text.index(last)] + last + "\n"


@contextlib.contextmanager
def nginx_in_front(paths: Mapping[str, str], *, workdir: Path) -> Iterator[Server]:
    """nginx between clients and an application, set up as "romm" says.

    *paths* tells where things are that are elsewhere in the manual.
    """
    site = documents.replaced(documents.block("redirects#nginx-in-front"), paths)
    site = documents.replaced(site, {"listen 80;": f"listen 80;\n{_shared_settings()}"})
    with nginx(site, "listen 80;", workdir=workdir) as server:
        yield server


@contextlib.contextmanager
def caddy_in_front(paths: Mapping[str, str], *, workdir: Path) -> Iterator[Server]:
    """The same with Caddy."""
    site = documents.replaced(documents.block("redirects#caddy-in-front"), paths)
    if caddy_version() >= (2, 7):
        (line,) = [line for line in site.splitlines() if "uri replace" in line]
        site = site.replace(f"{line}\n", "")
    with caddy(site, "games.example.org", workdir=workdir) as server:
        yield server


def caddy_version() -> tuple[int, ...]:
    words = run("caddy", "version").stdout.decode().split()
    return tuple(map(int, words[0].removeprefix("v").split(".")))


IN_FRONT: Final[dict[str, Callable[..., contextlib.AbstractContextManager[Server]]]] = {
    "nginx": nginx_in_front,
    "caddy": caddy_in_front,
}
