"""The stand-in as a whole: the backend on gunicorn with the real hook, behind Debian's nginx.

    with standing(library, place) as stand:
        get(stand.romm.game("roms/psx/Game"), *LOGIN)

:func:`romm` is the same without a mount.

The folders are those of RomM's image, below *place*: ``backend`` is what gunicorn is started in,
``cache`` is ``/romm/cache``, in which zipfs is mounted at ``cache/zipfs``.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final
from urllib.parse import quote

from bench.process import find_program
from bench.web import Server, serving
from tests.support.mounting import Mounted, Mounts
from tests.support.users import NOBODY

HERE: Final = Path(__file__).parent
HOOK: Final = HERE.parents[2] / "zipfs/front/files/gunicorn.conf.py"
MODULES: Final = Path("/usr/lib/nginx/modules")
LOGIN: Final = ("-H", "Authorization: Bearer a token")
"""What curl needs to be let in."""
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


@contextlib.contextmanager
def romm(
    library: Path,
    place: Path,
    *,
    settings: Mapping[str, str] | None = None,
    hook: Path | None = HOOK,
    workers: int = 2,
    cache: bool = True,
    more: str = "",
) -> Iterator[Romm]:
    """Run the stand-in until the block ends.

    *settings* are added to the environment of gunicorn; ``ZIPFS_SHOWN`` is that of *place* if
    they don't say otherwise. *hook* None: RomM as it is without zipfs. *cache*: whether its nginx
    has ``/cache/``, as since 5.1.0. *more* stands in its ``http`` block, like a file in
    ``conf.d``; ``{backend}`` and ``{romm}`` in it are the ports of gunicorn and of RomM's nginx.
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
            *("--workers", str(workers), "--worker-class", "uvicorn_worker.UvicornWorker"),
            *("--graceful-timeout", "5", "main:app"),
        ]

    with serving("gunicorn", gunicorn, None, place) as backend:

        def nginx(prefix: Path, port: int) -> list[str | Path]:
            prefix.chmod(0o711)  # its workers have their temporary files there
            user = ""
            if os.geteuid() == 0:
                entry = pwd.getpwuid(NOBODY)
                user = f"user {entry.pw_name} {grp.getgrgid(entry.pw_gid).gr_name};"
            path = prefix / "nginx.conf"
            path.write_text(
                Template((HERE / "nginx.conf").read_text()).substitute(
                    modules=MODULES,
                    user=user,
                    prefix=prefix,
                    here=HERE,
                    port=port,
                    backend=backend.port,
                    library=library,
                    cache=_CACHE.format(cache=place / "cache") if cache else "",
                    more=more.replace("{backend}", str(backend.port)).replace("{romm}", str(port)),
                )
            )
            program = find_program("nginx", package="nginx")
            return [program, "-p", prefix, "-c", path, "-e", "stderr"]

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
    workers: int = 2,
    cache: bool = True,
    more: str = "",
    mounts: Mounts | None = None,
) -> Iterator[Stand]:
    """RomM with zipfs until the block ends.

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
        with romm(
            library,
            place,
            settings={"ZIPFS_LISTS": str(lists), "ZIPFS_WAIT": "200", **(settings or {})},
            workers=workers,
            cache=cache,
            more=more,
        ) as running:
            yield Stand(romm=running, mounted=mounted, lists=lists)
    finally:
        if mounts is None:
            making.end()
