"""Everything that is measured, running: games, a mount, web servers, and the peers."""

from __future__ import annotations

import contextlib
import platform
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.mount import Mount, mounted, wait_ready
from bench.peers import bindfs, built, fusefs, hfs, nullfs, streamed
from bench.process import find_program
from bench.session import Progress, Stop
from bench.speed import first_byte, hang
from bench.speed.cases import Game
from bench.speed.results import (
    BINDFS,
    BUILT,
    HFS,
    NULLFS,
    PROVING,
    STORED,
    STREAMED,
    STREAMED_BARE,
    ZIPFS,
    About,
)
from bench.speed.target import Target
from bench.synthetic import MEMBERS, SMALL_MEMBERS, Archive, build, copy_out
from bench.usage import peak_memory
from bench.web import Server, caddy, nginx

SEAL_SECONDS: Final = 300.0
HANG: Final = "hang"
"""The folder of what bench/speed/hang.py needs."""


@dataclass(kw_only=True)
class Stand:
    """All of it."""

    folder: Path
    library: Path
    mount: Mount
    big: Game
    small: Game
    eight: dict[str, Target]
    about: dict[str, About]
    left_out: list[str]
    """Peers that aren't installed, and why."""
    own: dict[str, int]
    """The process of each."""

    def memory(self) -> dict[str, int]:
        """The most that each has had so far."""
        return {who: peak_memory(pid) for who, pid in self.own.items()}


@dataclass(kw_only=True)
class _Peers:
    """What runs apart from nginx: the URL of the big game's archive, and the process."""

    about: dict[str, About]
    left_out: list[str]
    servers: dict[str, Server]


@contextlib.contextmanager
def stand(folder: Path, size: int, progress: Progress, stop: Stop) -> Iterator[Stand]:
    """Everything in *folder*, with a big game of *size* bytes."""
    library, root = folder / "library", folder / "www"
    for name in ("mount", "proving", "plain", "bindfs", "nullfs", "nullfs-eight", "built"):
        (root / name).mkdir(parents=True)
    progress.begin("Making the games")
    paths = [*build(library, size, stop), first_byte.build(library)]
    hang.prepare((library / paths[0]).with_suffix(""), folder / HANG)
    options = ["--index", str(folder / "index.sqlite"), "--log-level", "warning"]
    with contextlib.ExitStack() as stack:
        mountpoint = root / "mount"
        mount = stack.enter_context(mounted(library, mountpoint, workdir=folder, options=options))
        with _blaming(mount):
            progress.begin("Waiting for the checksums")
            wait_until_sealed(mount, [mountpoint / path for path in paths], stop)
            progress.begin("Copying the archives out of the mount, and comparing")
            big, small = (copy_out(library, path, mountpoint, stop) for path in paths[:2])
            eight = root / "plain" / Path(paths[2]).name
            first_byte.copy_sparse(mountpoint / paths[2], eight)
            copy_index(folder / "index.sqlite", folder / "proving.sqlite")
            proving = stack.enter_context(
                mounted(
                    *(library, root / "proving"),
                    workdir=folder,
                    options=[
                        *("--index", str(folder / "proving.sqlite"), "--log-level", "warning"),
                        *("--prove", "always"),
                    ],
                )
            )
            wait_until_sealed(proving, [root / "proving" / path for path in paths], stop)
            read_ahead = fusefs.read_ahead(mountpoint)
            passed = stack.enter_context(bindfs.bindfs(root / "plain", root / "bindfs", read_ahead))
            program, about_null = nullfs.build(folder, stop)
            zeros = root / "nullfs" / big.plain.name
            null = stack.enter_context(nullfs.nullfs(program, zeros, big.size, read_ahead))
            eight_zeros = root / "nullfs-eight" / eight.name
            stack.enter_context(
                nullfs.nullfs(program, eight_zeros, eight.stat().st_size, read_ahead)
            )
            # They end before the mounts, as they hold files of them open.
            front = stack.enter_context(nginx(root, workdir=folder))
            second = stack.enter_context(caddy(root, workdir=folder))
            peers = _start_peers(big, folder, stack, stop)

            def game(archive: Archive, members: int) -> Game:
                def target(path: Path, server: Server, own: int | None) -> Target:
                    return Target(
                        url=server.url_of(path.relative_to(root)),
                        size=archive.size,
                        sources=archive.sources if path in zipfs else archive.plain,
                        mounted=None if path is archive.plain else path,
                        own=own,
                        server=server.process.pid,
                        checked=own is not None and own not in (passed.pid, null.pid),
                    )

                proven = root / "proving" / archive.mounted.relative_to(mountpoint)
                zipfs = (archive.mounted, proven)
                bound = root / "bindfs" / archive.plain.name
                file = root / "built" / archive.plain.name
                targets = {
                    STORED: target(archive.plain, front, None),
                    ZIPFS: target(archive.mounted, front, mount.process.pid),
                    PROVING: target(proven, front, proving.process.pid),
                    BINDFS: target(bound, front, passed.pid),
                    BUILT: Target(
                        url=front.url_of(file.relative_to(root)),
                        size=None,
                        sources=archive.sources,
                        server=front.process.pid,
                    ),
                }
                if archive is big:
                    targets |= _peer_targets(archive, peers)
                    targets[NULLFS] = target(zeros, front, null.pid)
                return Game(
                    targets=targets,
                    built_file=file,
                    caddy={
                        STORED: target(archive.plain, second, None),
                        ZIPFS: target(archive.mounted, second, mount.process.pid),
                    },
                    members=members,
                )

            yield Stand(
                folder=folder,
                library=library,
                mount=mount,
                big=game(big, MEMBERS),
                small=game(small, SMALL_MEMBERS),
                eight={
                    STORED: Target(
                        url=front.url_of(eight.relative_to(root)), size=None, sources=eight
                    ),
                    ZIPFS: Target(
                        url=front.url_of(Path("mount") / paths[2]),
                        size=None,
                        sources=(library / paths[2]).with_suffix(""),
                        mounted=mountpoint / paths[2],
                    ),
                    NULLFS: Target(
                        url=front.url_of(eight_zeros.relative_to(root)),
                        size=None,
                        sources=eight,
                        mounted=eight_zeros,
                    ),
                },
                about={
                    **_about(mount, read_ahead, stop),
                    NULLFS: about_null,
                    **peers.about,
                },
                left_out=peers.left_out,
                own={
                    ZIPFS: mount.process.pid,
                    PROVING: proving.process.pid,
                    BINDFS: passed.pid,
                    NULLFS: null.pid,
                    STORED: front.process.pid,
                    **{who: server.process.pid for who, server in peers.servers.items()},
                },
            )


@contextlib.contextmanager
def _blaming(mount: Mount) -> Iterator[None]:
    """If the mount has ended, that is the reason for whatever fails."""
    try:
        yield
    except (BenchError, OSError):
        mount.check()
        raise


def wait_until_sealed(mount: Mount, archives: Sequence[Path], stop: Stop) -> None:
    """Wait until these are there; raises :exc:`BenchError` if they don't come."""
    wait_ready(mount, check=stop.check)
    deadline = time.monotonic() + SEAL_SECONDS
    while missing := [path for path in archives if not path.exists()]:
        stop.check()
        mount.check()
        if time.monotonic() > deadline:
            names = ", ".join(path.name for path in missing)
            raise BenchError(f"not sealed after {SEAL_SECONDS:.0f} s: {names}")
        mount.wait(0.1)


def copy_index(index: Path, copy: Path) -> None:
    """What one mount has hashed another needn't."""
    with (
        contextlib.closing(sqlite3.connect(index)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)


def _start_peers(game: Archive, folder: Path, stack: contextlib.ExitStack, stop: Stop) -> _Peers:
    peers = _Peers(about={}, left_out=[], servers={})
    todo: list[
        tuple[str, Callable[[], About], Callable[[], contextlib.AbstractContextManager[Server]]]
    ] = [
        (
            STREAMED,
            lambda: streamed.about(bare=False),
            lambda: streamed.streamed(game.sources, bare=False, workdir=folder),
        ),
        (
            STREAMED_BARE,
            lambda: streamed.about(bare=True),
            lambda: streamed.streamed(game.sources, bare=True, workdir=folder),
        ),
        (HFS, lambda: hfs.about(stop), lambda: hfs.hfs(game.sources, workdir=folder)),
    ]
    for who, about, run in todo:
        try:
            known = about()
        except BenchError as error:
            peers.left_out.append(f"{who}: {error}")
            continue
        peers.about[who] = known
        peers.servers[who] = stack.enter_context(run())
    return peers


def _peer_targets(game: Archive, peers: _Peers) -> dict[str, Target]:
    def url(who: str, server: Server) -> str:
        if who == HFS:
            return f"{server.url_of(game.sources.name)}/?get=zip"
        return server.url_of(f"{game.sources.name}.zip")

    return {
        who: Target(
            url=url(who, server),
            size=None,  # their archives aren't ours, byte for byte
            sources=game.sources,
            own=server.process.pid,
        )
        for who, server in peers.servers.items()
    }


def _about(mount: Mount, read_ahead: int, stop: Stop) -> dict[str, About]:
    # nginx tells its version on standard error only.
    nginx_version = stop.run(
        "sh", "-c", 'exec "$0" -v 2>&1', find_program("nginx", package="nginx")
    )
    nginx_name = f"nginx {nginx_version.strip().rpartition('/')[2]}"
    caddy_name = stop.run(find_program("caddy", package="caddy"), "version").split()[0]
    return {
        ZIPFS: About(
            name="zipfs",
            version=f"{version('zipfs')}, Python {platform.python_version()},"
            f" pyfuse3 {version('pyfuse3')}",
            settings=f"defaults; read-ahead {read_ahead} KiB",
        ),
        STORED: About(
            name="the same archive stored as a file",
            version=f"{nginx_name}, Caddy {caddy_name.removeprefix('v')}",
            settings="bench/nginx.conf and bench/Caddyfile, one server for all",
        ),
        BINDFS: bindfs.about(read_ahead, stop),
        BUILT: built.about(),
    }
