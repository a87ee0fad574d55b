"""The manual for people who have no front end, followed as it stands there."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urljoin

import pytest

from bench.mount import zipfs_program
from bench.web import Server
from tests.e2e import readers
from tests.e2e.curl import QUIET, get, get_range, head
from tests.e2e.expected import Expected
from tests.e2e.front.servers import caddy, nginx
from tests.e2e.games import MIXED, make_mixed
from tests.e2e.programs import environment, run, running
from tests.support import documents
from tests.support.libraries import content, make_file, make_game
from tests.support.mounting import Mounted, Mounts
from tests.support.waiting import SECONDS, poll

ROOT: Final = Path(__file__).parents[2]
NGINX: Final = "serving#a-page-to-click-through-with-nothing-but-nginx"
ES_DE: Final = "front-ends#es-de"
BATOCERA: Final = "front-ends#batocera"


# ---------------------------------------------------------------- With nothing but nginx


class _Links(HTMLParser):
    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if (tag, name) == ("a", "href") and value]


@pytest.fixture
def mounted(library: Path, mount: Mounts) -> Mounted:
    make_mixed(library)
    make_game(library, "roms/nes/50% off?", {"a": b"a", "b": b"b"})
    make_file(library / "roms/nes/single #1.nes", content(40_000))
    mounted = mount(library, *documents.mount_options(NGINX, "/srv/games"))
    mounted.wait_sealed(2)
    return mounted


@pytest.fixture(params=["serving#nginx", "README#serve-it"])
def site(request: pytest.FixtureRequest, mounted: Mounted, place: Path) -> Iterator[Server]:
    paths = {"/srv/www/games": str(mounted.path)}
    text = documents.replaced(documents.block(request.param, "sendfile on;"), paths)
    with nginx(text, "listen 8080;", workdir=place) as server:
        yield server


def _walk(url: str) -> Iterator[str]:
    """The URLs of all files that links lead to."""
    response = get(url)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    for link in _Links(response.body).found:
        there = urljoin(url, link)
        if not there.startswith(url) or there == url:
            continue  # upwards
        if there.endswith("/"):
            yield from _walk(there)
        else:
            yield there


def test_all_that_is_there_can_be_clicked(mounted: Mounted, site: Server) -> None:
    root = f"{site.url}/"
    urls = list(_walk(root))
    assert len(urls) == 3
    for url in urls:
        response = get(url)
        path = mounted.path / unquote(url.removeprefix(root))
        assert (response.status, response.body) == (200, path.read_bytes())


def test_a_download_resumes(mounted: Mounted, site: Server, place: Path) -> None:
    url = site.url_of(f"{MIXED}.zip")
    expected = Expected(mounted.library / MIXED)
    file = place / "game.zip"
    expected.write(file, 10_000_000)
    done = run(*QUIET, "-C", "-", "-o", file, "-w", "%{http_code}", url)
    assert done.stdout == b"206"
    assert file.read_bytes() == expected[:]
    assert get_range(url, "5-9").headers["etag"] == head(url).headers["etag"]


def test_caddy(mounted: Mounted, place: Path) -> None:
    paths = {"/srv/www/games": str(mounted.path)}
    text = documents.replaced(documents.block("serving#caddy"), paths)
    with caddy(text, "games.example.org", workdir=place) as server:
        body = get(server.url_of(f"{MIXED}.zip")).body
        assert body == Expected(mounted.library / MIXED)[:]


# ---------------------------------------------------------------- With ES-DE or Batocera


def test_es_de(fuse: None, no_process_left: None, place: Path) -> None:
    """What the manual says to type, by a shell, in a home folder."""
    home = place / "home"
    roms = home / "ROMs"
    files = {"1.chd": content(9), "2.chd": b"2", "Final Fantasy VII.m3u": b"1.chd\n2.chd\n"}
    game = make_game(roms, "psx/Final Fantasy VII.m3u", files)
    make_game(roms, "psx/Single", {"a.chd": b"a"})
    # A folder `roms` in a system's: elsewhere that would be where games are.
    for path in ("psx/systeminfo.txt", "psx/Wipeout.chd", "systems.txt", "mame/roms/x.bin"):
        make_file(roms / path, path.encode())
    path = os.pathsep.join((str(Path(zipfs_program()).parent), os.environ["PATH"]))
    env = environment(HOME=str(home), PATH=path, PYTHONPATH=str(ROOT), PYTHONWARNINGS="default")
    said = place / "said"
    begin = documents.block(ES_DE, "~/ROMs ~/ROMs-as-zip")
    with (
        said.open("wb") as output,
        running("sh", "-c", begin, stdout=output, stderr=output, env=env) as shell,
    ):

        def is_there() -> bool:
            assert shell.poll() is None, said.read_text()
            return (home / "ROMs-as-zip/psx/Final Fantasy VII.m3u.zip").exists()

        poll("the archive", is_there)
        shown = {
            path.relative_to(home / "ROMs-as-zip").as_posix()
            for path in (home / "ROMs-as-zip").rglob("*")
        }
        assert shown == {
            "psx", "psx/Final Fantasy VII.m3u.zip", "psx/Single", "psx/Single/a.chd",
            "psx/Wipeout.chd", "psx/systeminfo.txt", "systems.txt", "mame", "mame/roms",
            "mame/roms/x.bin",
        }  # fmt: skip
        stick = place / "stick"
        run("cp", "-r", "--no-preserve=mode", home / "ROMs-as-zip/psx", stick)
        run(*shlex.split(documents.block(ES_DE, "unzip -d")), cwd=stick)
        assert readers.files_of(stick / game.name) == readers.files_of(game)
        end = documents.block(ES_DE, "zipfs unmount")
        # 11: a test beside this one has a copy of the mount, in a namespace of its own.
        run("sh", "-c", end, env=env, status=(0, 11))
        assert shell.wait(SECONDS) == 0
    for word in ("Traceback", "Warning", "ERROR"):
        assert word not in said.read_text()


def test_batocera(library: Path, mount: Mounts) -> None:
    make_game(library, "psx/Game", {"1.chd": b"1", "2.chd": b"2", "Game.m3u": b"1.chd\n"})
    make_game(library, "scummvm/Sky.scummvm", {"sky.dsk": b"1", "images/a.png": b"2"})
    for folder, name in (("images", "a.png"), ("videos", "a.mp4"), ("manuals", "a.pdf")):
        make_game(library, f"psx/{folder}", {name: b"1", f"b{name}": b"2"})
    make_file(library / "psx/gamelist.xml", b"<gameList/>")
    make_file(library / "psx/_info.txt", b"info")
    make_file(library / "mame/roms/x.bin", b"x")
    mounted = mount(library, *documents.mount_options(BATOCERA, "/mnt/batocera/roms"))
    mounted.wait_sealed(2)
    assert sorted(os.listdir(mounted.path / "psx")) == [
        "Game.zip", "_info.txt", "gamelist.xml", "images", "manuals", "videos",
    ]  # fmt: skip
    assert (mounted.path / "psx/Game.zip").read_bytes() == Expected(library / "psx/Game")[:]
    # A folder of a game that is called so is a part of the game.
    sky = library / "scummvm/Sky.scummvm"
    assert mounted.archive("scummvm/Sky.scummvm").read_bytes() == Expected(sky)[:]
