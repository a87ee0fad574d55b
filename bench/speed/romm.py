"""RomM's downloads of one game: as it builds them while sending, as it copies them first, and from
zipfs by the hook.

The same backend on gunicorn and the same nginx, once without the hook and once with it; each
request asks the backend (``ZIPFS_REUSE=0``). RomM builds while sending by nginx's ZIP module,
which isn't packaged: ``MOD_ZIP`` names it, as built from its source for the nginx that is here.
Without it that way is left out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.mount import Mount, mounted, wait_ready
from bench.peers.romm import COPY, list_of
from bench.process import find_program
from bench.speed.case import Case, Sample
from bench.speed.cases import RATE, SLOW_ROUNDS, TRIES, Bench
from bench.speed.load import download, first_byte
from bench.speed.results import COPIED, ROMM_STREAMED, ZIPFS
from bench.speed.target import State, Target
from bench.usage import Usage
from bench.web import ADDRESS, Server, nginx_string, nginx_user, render, serving
from zipfs.front.archives import name_of

KEY: Final = "romm"
WHAT: Final = "RomM"
HOOK: Final = Path(__file__).parents[2] / "zipfs/front/files/gunicorn.conf.py"
ROOT: Final = Path(__file__).parents[2]
URL: Final = "api/roms/1/content/Game"
LEFT_OUT: Final = (
    "RomM, built while sending: nginx's ZIP module isn't here; MOD_ZIP=/path/of/the/module.so"
)


def module() -> Path | None:
    """nginx's ZIP module, if there is one."""
    file = Path(os.environ.get("MOD_ZIP") or "/usr/lib/nginx/modules/ngx_http_zip_module.so")
    return file if file.exists() else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A backend and its nginx."""

    backend: Server
    front: Server

    @property
    def url(self) -> str:
        return self.front.url_of(URL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Romm:
    """All three ways to the files in *game*."""

    bench: Bench
    mount: Mount
    plain: Way
    hooked: Way
    game: Path
    archive: Path
    """In the mount."""
    copy: Path
    """Where RomM copies to."""
    can_stream: bool

    def cases(self) -> list[Case]:
        streamed: dict[str, int | None] = {ROMM_STREAMED: None} if self.can_stream else {}
        copied: dict[str, int | None] = {COPIED: SLOW_ROUNDS}
        return [
            Case(
                key="romm-first-byte",
                what="RomM, first byte",
                unit="ms",
                higher_is_better=False,
                contenders={ZIPFS: None, **streamed, **copied},
                measure=self._first_byte,
            ),
            Case(
                key="romm-download",
                what="RomM, download",
                unit=RATE,
                contenders={ZIPFS: None, **streamed, **copied},
                measure=self._download,
            ),
        ]

    def _first_byte(self, who: str) -> Sample:
        """By a range of nearly all where RomM copies; it does that for ranges."""
        way = self.hooked if who == ZIPFS else self.plain
        tries = 1 if who == COPIED else TRIES

        def work() -> tuple[float, float]:
            seconds = []
            for _ in range(tries):
                self._forget()
                seconds.append(first_byte(self.bench.stop, way.url, int(who == COPIED)))
            return 1000 * sorted(seconds)[len(seconds) // 2], 0

        return self._metered(way, who, work)

    def _download(self, who: str) -> Sample:
        way = self.hooked if who == ZIPFS else self.plain

        def work() -> tuple[float, float]:
            ranges = ("-r", "0-") if who == COPIED else ()
            size = self.archive.stat().st_size if who == ZIPFS else None
            done = download(self.bench.clients, self.bench.stop, way.url, size, *ranges)
            if done.size < sum(file.stat().st_size for file in self.game.iterdir()):
                raise BenchError(f"{way.url} gave {done.size} bytes, less than the game has")
            return done.size / 1e6 / done.seconds, done.size

        return self._metered(way, who, work)

    def _forget(self) -> None:
        self.copy.unlink(missing_ok=True)

    def _metered(self, way: Way, who: str, work: Callable[[], tuple[float, float]]) -> Sample:
        self._forget()
        target = Target(
            url=way.url,
            size=self.archive.stat().st_size,
            sources=self.game,
            mounted=self.archive if who == ZIPFS else None,
        )
        target.prepare(State.FIRST_TOUCH, self.bench.stop)

        def used() -> tuple[Usage, Usage]:
            own = Usage.of(way.backend.process.pid)
            if who == ZIPFS:
                own += Usage.of(self.mount.process.pid)
            return own, Usage.of(way.front.process.pid)

        own, server = used()
        value, sent = work()
        own_after, server_after = used()
        self._forget()
        return Sample(value=value, sent=sent, own=own_after - own, server=server_after - server)


@contextlib.contextmanager
def romm(bench: Bench, folder: Path, game: Path) -> Iterator[Romm]:
    """RomM and zipfs for the files of *game*, in *folder*, until the block ends."""
    cache, mountpoint, lists = folder / "cache", folder / "cache/zipfs", folder / "lists"
    for path in (mountpoint, lists):
        path.mkdir(parents=True)
    options = ["--index", str(folder / "index.sqlite"), "--log-level", "error", "--games", "none/*"]
    options += ["--lists", str(lists)]
    zip_module = module()
    with mounted(game, mountpoint, workdir=folder, options=options) as mount:
        wait_ready(mount, check=bench.stop.check)
        text = list_of(game)
        name = name_of(text)
        (lists / f"{name}.list").write_bytes(text)
        archive = mountpoint / f".lists/{name}.zip"
        while not archive.exists():
            bench.stop.check()
            mount.check()
            mount.wait(0.1)
        with (
            _way(folder, game, cache, zip_module, hooked=False) as plain,
            _way(folder, game, cache, zip_module, hooked=True) as hooked,
        ):
            yield Romm(
                bench=bench,
                mount=mount,
                plain=plain,
                hooked=hooked,
                game=game,
                archive=archive,
                copy=cache / COPY,
                can_stream=zip_module is not None,
            )


@contextlib.contextmanager
def _way(
    folder: Path, game: Path, cache: Path, zip_module: Path | None, *, hooked: bool
) -> Iterator[Way]:
    variables = {
        "BENCH_GAME": str(game),
        "BENCH_CACHE": str(cache),
        "PYTHONPATH": str(ROOT),
        "ZIPFS_LISTS": str(folder / "lists"),
        "ZIPFS_SHOWN": str(cache / "zipfs/.lists"),
        "ZIPFS_REUSE": "0",
    }

    def gunicorn(prefix: Path, port: int) -> list[str | Path]:
        if hooked:
            shutil.copy(HOOK, prefix / "gunicorn.conf.py")
        return [
            *("env", "-C", str(prefix)),
            *(f"{name}={value}" for name, value in variables.items()),
            *(sys.executable, "-m", "gunicorn", "--bind", f"{ADDRESS}:{port}", "--workers", "2"),
            *("--worker-class", "uvicorn_worker.UvicornWorker", "bench.peers.romm:app"),
        ]

    with serving("gunicorn", gunicorn, None, folder) as backend:

        def nginx(prefix: Path, port: int) -> list[str | Path]:
            path = render(
                "romm.conf",
                prefix,
                module=f'load_module "{nginx_string(zip_module)}";' if zip_module else "",
                user=nginx_user(),
                prefix=nginx_string(prefix),
                port=str(port),
                backend=str(backend.port),
                library=nginx_string(game),
                cache=nginx_string(cache),
            )
            return [
                find_program("nginx", package="nginx"),
                "-p",
                prefix,
                "-c",
                path,
                "-e",
                "stderr",
            ]

        with serving("nginx", nginx, None, folder) as front:
            yield Way(backend=backend, front=front)
