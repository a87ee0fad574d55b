"""The stand-in as a whole: the backend on gunicorn with the real hook, behind Debian's nginx.

    with standing(library, place) as stand:
        get(stand.romm.game("roms/psx/Game"), *LOGIN)

:func:`romm` is the same without a mount.

The folders are those of RomM's image, below *place*: ``backend`` is what gunicorn is started in,
``cache`` is ``/romm/cache``, in which zipfs is mounted at ``cache/zipfs``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import os
import pwd
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final
from urllib.parse import quote

from bench.process import find_program
from bench.web import Server, serving
from tests.support import documents
from tests.support.mounting import Mounted, Mounts
from tests.support.users import NOBODY

HERE: Final = Path(__file__).parent
FILES: Final = HERE.parents[2] / "zipfs/front/files"
HOOK: Final = FILES / "gunicorn.conf.py"
MODULES: Final = Path("/usr/lib/nginx/modules")
LOGIN: Final = ("-H", "Authorization: Bearer a-token")
"""What curl needs to be let in."""
# Debian's nginx.conf has this around a site, and its module for JavaScript.
_MAIN: Final = """
load_module {modules}/ngx_http_js_module.so;
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
    sendfile on;
    tcp_nopush on;
{site}
}}
"""
_CACHE: Final = """
        location /cache/ {{
            internal;
            alias {cache}/;
        }}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Romm:
    library: Path
    backend: Server
    """gunicorn; its log has what the hook says."""
    nginx: Server
    requests: Path
    go: Path
    """The file for which ``/api/events`` waits."""

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return self.nginx.url

    def game(self, path: str, arguments: str = "", *, name: str | None = None) -> str:
        """The URL for the game at *path* in the library; *name* is its last part."""
        number = self.numbers()[path]
        last = quote(os.path.basename(path) if name is None else name)
        url = f"{self.url}/api/roms/{number}/content/{last}"
        return f"{url}?{arguments}" if arguments else url

    def bulk(self, *paths: str) -> str:
        """The URL for the games at *paths* in one archive."""
        wanted = ",".join(str(self.numbers()[path]) for path in paths)
        return f"{self.url}/api/roms/download?rom_ids={wanted}"

    def numbers(self) -> dict[str, int]:
        """The backend's number of each game, by path."""
        roms = self.library / "roms"
        paths = [
            f"roms/{platform}/{name}"
            for platform in sorted(os.listdir(roms))
            for name in sorted(os.listdir(roms / platform))
        ]
        return {path: number for number, path in enumerate(paths, 1)}

    def files(self, path: str, *names: str) -> str:
        """The argument for these files of a game."""
        folder = self.library / path
        found = [file for file in folder.rglob("*") if file.is_file()]
        found.sort(key=lambda file: (file.name, os.fspath(file)))
        number = self.numbers()[path]
        wanted = [
            str(10_000 * number + index)
            for index, file in enumerate(found)
            if os.fspath(file.relative_to(folder)) in names
        ]
        assert len(wanted) == len(names)
        return "file_ids=" + ",".join(wanted)

    def asked(self) -> list[str]:
        """The requests that have come to the backend, as ``METHOD PATH?QUERY``."""
        return self.requests.read_text().splitlines()


def nginx_with(site: str, prefix: Path) -> list[str | Path]:
    """The command that runs nginx with *site* in its ``http`` block, as "nobody" if we may."""
    prefix.chmod(0o711)  # its workers have their temporary files there
    user = ""
    if os.geteuid() == 0:
        entry = pwd.getpwuid(NOBODY)
        user = f"user {entry.pw_name} {grp.getgrgid(entry.pw_gid).gr_name};"
    path = prefix / "nginx.conf"
    path.write_text(_MAIN.format(modules=MODULES, user=user, prefix=prefix, site=site))
    return [find_program("nginx", package="nginx"), "-p", prefix, "-c", path, "-e", "stderr"]


@contextlib.contextmanager
def before(
    asks: int,
    passes: int,
    place: Path,
    *,
    lists: Path,
    largest: str = "16 * 1024 * 1024",
    **settings: str,
) -> Iterator[Server]:
    """A server of nginx that has the JavaScript of zipfs.

    *asks* is the port of the application, *passes* that of the web server before it.
    *settings* are other values for the variables of its configuration, without ``zipfs_``;
    *largest* is how many bytes a list may have.
    """
    text = (FILES / "nginx.conf").read_text()
    values = {"lists": str(lists), "shown": str(place / "cache/zipfs/.lists"), **settings}
    for name, value in values.items():
        text, count = re.subn(rf"set \$zipfs_{name} [^;]*;", f"set $zipfs_{name} {value};", text)
        assert count == 1, name

    def command(prefix: Path, port: int) -> list[str | Path]:
        script = prefix / "zipfs.js"
        limit = {"LARGEST = 16 * 1024 * 1024;": f"LARGEST = {largest};"}
        script.write_text(documents.replaced((FILES / "nginx.js").read_text(), limit))
        places = {
            "/etc/nginx/conf.d/zipfs.js;": f"{script};",
            "http://127.0.0.1:5000;": f"http://127.0.0.1:{asks};",
            "server 127.0.0.1:8080;": f"server 127.0.0.1:{passes};",
            "listen 8081;": f"listen 127.0.0.1:{port};",
        }
        return nginx_with(documents.replaced(text, places), prefix)

    with serving("nginx", command, None, place) as server:
        yield server


@contextlib.contextmanager
def seen_through(romm: Romm, place: Path, **given: Any) -> Iterator[Romm]:
    """*romm*, and :func:`before` it."""
    with before(romm.backend.port, romm.nginx.port, place, **given) as server:
        yield dataclasses.replace(romm, nginx=server)


@contextlib.contextmanager
def romm(
    library: Path,
    place: Path,
    *,
    settings: Mapping[str, str] | None = None,
    hook: Path | None = HOOK,
    arguments: tuple[str, ...] = ("--workers", "2"),
    cache: bool = True,
) -> Iterator[Romm]:
    """Run the stand-in until the block ends.

    *settings* are added to the environment of gunicorn; ``ZIPFS_SHOWN`` is that of *place* if
    they don't say otherwise. *arguments* are gunicorn's. *hook* None: RomM as it is
    without zipfs. *cache*: whether its nginx has ``/cache/``, as since 5.1.0.
    """
    folder = place / "backend"
    folder.mkdir()
    shutil.copy(HERE / "backend.py", folder / "main.py")
    if hook is not None:
        shutil.copy(hook, folder / "gunicorn.conf.py")
    requests = place / "requests"
    requests.touch()
    go = place / "go"
    variables = {
        "ROMM_LIBRARY": str(library),
        "ROMM_REQUESTS": str(requests),
        "ROMM_GO": str(go),
        "ZIPFS_SHOWN": str(place / "cache/zipfs/.lists"),
        **(settings or {}),
    }

    def gunicorn(_: Path, port: int) -> list[str | Path]:
        return [
            *("env", "-C", folder),
            *(f"{name}={value}" for name, value in variables.items()),
            *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}"),
            *("--worker-class", "uvicorn_worker.UvicornWorker", "--graceful-timeout", "5"),
            *arguments,
            "main:app",
        ]

    with serving("gunicorn", gunicorn, None, place) as backend:

        def nginx(prefix: Path, port: int) -> list[str | Path]:
            site = Template((HERE / "site.conf").read_text()).substitute(
                here=HERE,
                port=port,
                backend=backend.port,
                library=library,
                cache=_CACHE.format(cache=place / "cache") if cache else "",
            )
            return nginx_with(site, prefix)

        with serving("nginx", nginx, None, place) as front:
            yield Romm(library=library, backend=backend, nginx=front, requests=requests, go=go)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stand:
    """RomM, and zipfs for it."""

    romm: Romm
    mounted: Mounted
    lists: Path


@contextlib.contextmanager
def standing(
    library: Path,
    place: Path,
    *,
    options: tuple[str, ...] = (),
    settings: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = ("--workers", "2"),
    front: str = "hook",
    mounts: Mounts | None = None,
) -> Iterator[Stand]:
    """RomM with zipfs until the block ends.

    *front* is "hook", or "nginx": a RomM as before 5.1.0, and a server before it.

    If *settings* don't say otherwise, RomM waits for an archive for as long as a loaded machine
    may take. *options* are those of ``zipfs mount``; *mounts* are the test's own.
    """
    lists = place / "lists"
    lists.mkdir()
    mountpoint = place / "cache/zipfs"
    mountpoint.mkdir(parents=True)
    making = Mounts(place) if mounts is None else mounts
    try:
        mounted = making(
            library, "--allow-other", "--lists", lists, *options, mountpoint=mountpoint
        )
        with contextlib.ExitStack() as running:
            if front == "nginx":
                lists.chmod(0o777)  # its nginx writes them
                behind = running.enter_context(romm(library, place, hook=None, cache=False))
                seen = seen_through(
                    behind, place, lists=lists, **{"wait": "200", **(settings or {})}
                )
            else:
                own = {"ZIPFS_LISTS": str(lists), "ZIPFS_WAIT": "200", **(settings or {})}
                seen = romm(library, place, settings=own, arguments=arguments)
            yield Stand(romm=running.enter_context(seen), mounted=mounted, lists=lists)
    finally:
        if mounts is None:
            making.end()
