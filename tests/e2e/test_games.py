"""Real games, as people get them from their distribution."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import games
from bench.web import Server, nginx
from tests.e2e import curl, readers
from tests.e2e.expected import Expected, sha256_of
from tests.e2e.programs import environment, run
from tests.support.mounting import Mounted, Mounts, temporary_folder

ARCHIVES = [source.game for source in games.FOLDERS if "Amazon Queen" not in source.game]
QUEEN = "roms/scummvm/Flight of the Amazon Queen"


@pytest.fixture(scope="module")
def mounted(fuse: None) -> Iterator[Mounted]:
    with temporary_folder() as place:
        library = place / "library"
        library.mkdir()
        games.build(library)
        mounts = Mounts(place)
        try:
            mounted = mounts(library)
            mounted.wait_sealed(len(ARCHIVES))
            yield mounted
        finally:
            mounts.end()


@pytest.fixture(scope="module")
def server(mounted: Mounted) -> Iterator[Server]:
    with nginx(mounted.path, workdir=mounted.path.parent) as server:
        yield server


@pytest.mark.parametrize("game", ARCHIVES)
def test_downloads_and_extracts(mounted: Mounted, server: Server, place: Path, game: str) -> None:
    source = mounted.library / game
    expected = Expected(source)
    file = place / "game.zip"
    run(*curl.QUIET, "-o", file, server.url_of(f"{game}.zip"))
    assert file.stat().st_size == expected.size
    assert sha256_of(file) == expected.sha256()
    readers.check_all_on_disk(file, expected)
    run("unzip", "-q", "-d", place / "extracted", file)
    assert readers.files_of(place / "extracted") == readers.files_of(source)


def test_listing(mounted: Mounted, server: Server) -> None:
    names = {path.name for path in (mounted.path / "roms/scummvm").iterdir()}
    assert names == {f"{Path(game).name}.zip" for game in ARCHIVES if "scummvm" in game} | {
        Path(QUEEN).name
    }
    page = curl.get(server.url_of("roms/doom/")).body
    assert b">Freedoom.zip<" in page
    assert b">freedoom1.wad<" in page


def test_a_game_of_one_file_stays_a_folder(mounted: Mounted, server: Server) -> None:
    source = mounted.library / QUEEN
    assert readers.files_of(mounted.path / QUEEN) == readers.files_of(source)
    (file,) = source.iterdir()
    url = server.url_of(f"{QUEEN}/{file.name}")
    assert curl.sha256(url) == sha256_of(file)


def test_a_single_file_is_passed_through(mounted: Mounted, server: Server) -> None:
    _, name = games.SINGLE_FILE
    data = (mounted.library / name).read_bytes()
    url = server.url_of(name)
    assert curl.get(url).body == data
    response = curl.get_range(url, "1000000-1999999")
    assert (response.status, response.body) == (206, data[1_000_000:2_000_000])


@pytest.mark.parametrize(
    ("game", "engine"),
    [
        ("roms/scummvm/Beneath a Steel Sky (CD)", "sky:sky"),
        ("roms/scummvm/Drascula - The Vampire Strikes Back", "drascula:drascula"),
        ("roms/scummvm/Lure of the Temptress", "lure:lure"),
    ],
)
def test_scummvm_recognises_an_extracted_game(
    server: Server, place: Path, game: str, engine: str
) -> None:
    target = place / "extracted"
    target.mkdir()
    readers.read_from_pipe(server.url_of(f"{game}.zip"), "bsdtar", "-xf", "-", cwd=target)
    assert engine in _detect(target, place)


def test_scummvm_recognises_a_game_in_the_mount(mounted: Mounted, place: Path) -> None:
    assert "queen:queen" in _detect(mounted.path / QUEEN, place)


def _detect(folder: Path, home: Path) -> str:
    # It wants neither screen nor sound, but a home for its settings.
    env = environment(HOME=str(home), SDL_VIDEODRIVER="dummy", SDL_AUDIODRIVER="dummy")
    return run("scummvm", "--detect", f"--path={folder}", env=env).stdout.decode()
