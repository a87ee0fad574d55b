"""Many heads behind a balancer, as the manual sets it up (DESIGN K1 to K3, R1).

Each head and its web server have a mount namespace of their own, as machines have: no head's mount
is there for another one, nor for the balancer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from bench.mount import zipfs_program
from bench.web import Server, nginx
from tests.e2e.curl import get, get_range, head
from tests.e2e.front import servers
from tests.e2e.programs import ARIA2C, run
from tests.support import documents
from tests.support.libraries import content, expected, make_game, sha256
from tests.support.mounting import Mounted, Mounts, is_mounted
from tests.support.postgresql import PORT, Shared
from tests.support.waiting import poll
from zipfs.index.shared.postgresql.schema import VERSION

GAME: Final = "roms/psx/Game"
SIZE: Final = 48 << 20
SETUP: Final = "scaling#set-it-up"
BALANCER: Final = "scaling#a-balancer-in-front"
CACHE: Final = "scaling#a-cache-or-a-cdn"

NGINX: Final = "nginx"
HAPROXY: Final = "haproxy"

Front = Callable[[str], Server]


# Ordinary users may not have namespaces of their own everywhere: they have one for all.
_APART: Final = os.geteuid() == 0


@pytest.fixture
def three(shared: Shared, mount: Mounts, place: Path, library: Path) -> list[Mounted]:
    """Heads of a library with one game."""
    files = {"a.bin": content(SIZE // 2, 1), "b.bin": content(SIZE // 2, 2)}
    make_game(library, GAME, files)
    options = documents.mount_options(SETUP, "/srv/games")
    address = options.index("--shared-index") + 1
    options[address] = shared.address
    found = []
    for number in range(3):
        index = place / f"head-{number}"
        index.mkdir()
        found.append(mount(library, *options, index=index / "index", apart=_APART))
    for one in found:
        assert is_mounted(one.path) is not _APART
        one.wait_sealed(1)
        poll("it to share", lambda o=one: o.status()["shared_index"]["mode"] == "sharing")  # type: ignore[misc]
        one.recount_descriptors()
    return found


@pytest.fixture
def backends(three: list[Mounted], place: Path) -> Iterator[list[Server]]:
    """nginx in front of each."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(nginx(one.path, workdir=place, within=one.within)) for one in three
        ]


@pytest.fixture
def front(backends: list[Server], place: Path) -> Iterator[Front]:
    """``front(WHAT)``: a server before all, as the manual has it: a balancer, or the CACHE."""
    here = {
        f"10.0.0.{number}:8080": f"127.0.0.1:{backend.port}"
        for number, backend in enumerate(backends, 1)
    }
    upstream, _, balancer = documents.block(BALANCER, "upstream").partition("server {\n    listen")
    upstream = documents.replaced(upstream, here)
    with contextlib.ExitStack() as stack:

        def begin(what: str) -> Server:
            if what == HAPROXY:
                sections = documents.replaced(documents.block(BALANCER, "backend"), here)
                return stack.enter_context(servers.haproxy(sections, "bind :80", workdir=place))
            if what == NGINX:
                site = "server {\n    listen" + balancer
            else:
                cache = place / "cache"
                cache.mkdir()
                cache.chmod(0o777)
                site = documents.replaced(
                    documents.block(what), {"/var/cache/nginx/games": str(cache)}
                )
            return stack.enter_context(servers.nginx(upstream + site, "listen 80;", workdir=place))

        yield begin


@pytest.fixture(params=[NGINX, HAPROXY])
def balancer(front: Front, request: pytest.FixtureRequest) -> Server:
    return front(request.param)


def test_the_tables_are_made_as_the_manual_says(shared: Shared) -> None:
    """Its first two lines; the third is how the other tests mount."""
    create, migrate, mount = documents.block(SETUP).splitlines()
    assert mount.startswith("zipfs mount ")
    name = "games"
    client = f"-h {shared.server.folder} -p {PORT} -U zipfs"
    address = shared.server.address(name)
    script = "\n".join(
        [
            documents.replaced(create, {"createdb": f"createdb {client}"}),
            documents.replaced(migrate, {"postgresql://db.example.org/games": f"'{address}'"}),
        ]
    )
    env = dict(os.environ, PATH=f"{Path(zipfs_program()).parent}:{os.environ['PATH']}")
    try:
        done = subprocess.run(
            ["sh", "-eu", "-c", script], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert f"made, version {VERSION}" in done.stdout
    finally:
        shared.server.drop(name)


def test_all_heads_answer_alike(backends: list[Server]) -> None:
    first, *others = [head(backend.url_of(f"{GAME}.zip")) for backend in backends]
    for other in others:
        for name in ("etag", "last-modified", "content-length"):
            assert other.headers[name] == first.headers[name]


def test_one_etag_whichever_head_answers(
    balancer: Server, backends: list[Server], three: list[Mounted], library: Path
) -> None:
    """Ranges of one download, each by whatever head it is the turn of."""
    url = balancer.url_of(f"{GAME}.zip")
    first = head(url)
    tag = first.headers["etag"]
    assert tag == head(backends[0].url_of(f"{GAME}.zip")).headers["etag"]
    wanted = expected(library / GAME)
    assert int(first.headers["content-length"]) == wanted.size
    before = [one.status()["reads"]["bytes"] for one in three]
    digest = hashlib.sha256()
    step = wanted.size // 11
    for start in range(0, wanted.size, step):
        end = min(start + step, wanted.size)
        response = get_range(url, f"{start}-{end - 1}", "-H", f"If-Range: {tag}")
        assert (response.status, response.headers["etag"]) == (206, tag)
        assert response.content_range == (start, end, wanted.size)
        digest.update(response.body)
    assert digest.hexdigest() == wanted.sha256()
    after = [one.status()["reads"]["bytes"] for one in three]
    assert sum(now > then for now, then in zip(after, before, strict=True)) > 1


def test_one_download_comes_from_all_heads(
    balancer: Server, three: list[Mounted], library: Path, place: Path
) -> None:
    url = balancer.url_of(f"{GAME}.zip")
    before = [one.status()["reads"]["bytes"] for one in three]
    run(*ARIA2C, "-d", place, "-o", "game.zip", url)
    assert sha256(place / "game.zip") == expected(library / GAME).sha256()
    after = [one.status()["reads"]["bytes"] for one in three]
    assert all(now > then for now, then in zip(after, before, strict=True))


def test_a_head_that_dies_in_mid_download_costs_nothing(
    balancer: Server, three: list[Mounted], library: Path, place: Path
) -> None:
    """Its connections are cut; the client goes on where it was, at another one."""
    url = balancer.url_of(f"{GAME}.zip")
    file = place / "game.zip"
    patient = ("--max-tries=50", "--retry-wait=1", "--max-overall-download-limit=12M")
    client = subprocess.Popen(
        [*ARIA2C, *patient, "-d", place, "-o", file.name, url], stdout=subprocess.DEVNULL
    )
    try:
        poll("it to have some", lambda: _blocks(file) > SIZE // 4)
        victim = three[1]
        victim.kill()
        assert client.poll() is None, "it was over before"
        assert client.wait(300) == 0
    finally:
        client.kill()
        client.wait()
    assert sha256(file) == expected(library / GAME).sha256()
    # Who asks now, for whatever head it is the turn of, gets an answer.
    wanted = expected(library / GAME).sha256()
    for _ in range(6):
        response = get(url)
        assert response.status == 200
        assert hashlib.sha256(response.body).hexdigest() == wanted


def _blocks(file: Path) -> int:
    """Bytes of *file* that are on the disk."""
    return file.stat().st_blocks * 512 if file.exists() else 0


def test_ranges_are_cached_and_never_mixed(
    front: Front, three: list[Mounted], library: Path, place: Path
) -> None:
    url = front(CACHE).url_of(f"{GAME}.zip")
    old = expected(library / GAME).sha256()
    assert hashlib.sha256(get(url).body).hexdigest() == old
    before = sum(one.status()["reads"]["bytes"] for one in three)
    assert hashlib.sha256(get(url).body).hexdigest() == old
    assert sum(one.status()["reads"]["bytes"] for one in three) - before < SIZE // 2
    make_game(library, GAME, {"b.bin": content(SIZE // 2 + 5, 3)})
    new = expected(library / GAME).sha256()

    def is_new() -> bool:
        response = _whole(url)
        if response is None:  # cut, as slices of two versions are never put together
            return False
        assert response in (old, new)
        return response == new

    poll("the new version", is_new)


def _whole(url: str) -> str | None:
    """SHA-256 of what is at *url*; None if the answer was cut, or there was none."""
    done = subprocess.run(
        ["curl", "-q", "-sS", "-f", "--noproxy", "*", url],
        capture_output=True,
        check=False,
        timeout=100,
    )
    return hashlib.sha256(done.stdout).hexdigest() if done.returncode == 0 else None
