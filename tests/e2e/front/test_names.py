"""Names that headers, URLs and configurations stumble on, on their way through all three."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pytest

from tests.e2e import downloads
from tests.e2e.curl import QUIET, get, head
from tests.e2e.expected import Expected
from tests.e2e.front.stand import Stand, stand_before
from tests.e2e.programs import ARIA2C, WGET, run
from tests.support.libraries import content, make_game
from tests.support.mounting import Mounts, temporary_folder

# What the download is called, if not as the game.
NAMES: Final[dict[bytes, str | None]] = {
    b"plain": None,
    b"two  blanks": None,
    b"at the end ": None,
    b"50% off": None,
    b"%41%2F%": None,
    b"what?a=b": None,
    b"#1": None,
    b"it's": None,
    b'say "hi"': None,
    b"back\\slash": None,
    b"a+b&c;d=e,f": None,
    b"[!] (Disc 1-2) *": None,
    b"..dots...": None,
    b"{path} {rp.header.X} $uri ${x}": None,
    b"<b>|~^`@": None,
    "Pokémon - Édition ポケモン 🎮".encode(): None,
    "Poke\u0301mon".encode(): None,
    b"new\nline": "new_line",
    b"return\r\nX-Evil: 1": "return__X-Evil: 1",
    b"tab\tand\x7f": "tab_and_",
    "bidi \u202egpj".encode(): "bidi _gpj",
    b"not UTF-8 \xff\xe9": "not UTF-8 __",
    b"x" * 200: None,
}


@pytest.fixture(scope="module")
def stand(fuse: None) -> Iterator[Stand]:
    with temporary_folder() as place:
        library = place / "library"
        for name in NAMES:
            files = {b"1": content(1000, repr(name)), b"of " + name: b"2", b"sub/3": b"3"}
            make_game(library, b"roms/x/" + name, files)
        lists = place / "lists"
        lists.mkdir()
        mounts = Mounts(place)
        try:
            mounted = mounts(library, "--allow-other", "--lists", lists)
            mounted.expect_log("WARNING: in .* is called ")  # entries with unsafe names
            mounted.wait_sealed(len(NAMES))
            with stand_before(mounted, place, lists=lists) as stand:
                yield stand
        finally:
            mounts.end()


@pytest.mark.parametrize("name", NAMES)
def test_archive(stand: Stand, server: str, name: bytes) -> None:
    built = stand.front.built
    url = stand.game(server, b"roms/x/" + name)
    response = get(url)
    assert response.status == 200
    archive = Path(os.fsdecode(os.fsencode(stand.mounted.path) + b"/roms/x/" + name + b".zip"))
    assert response.body == archive.read_bytes()
    assert head(url).headers["etag"] == response.headers["etag"]
    assert stand.front.built == built
    called = NAMES[name] or name.decode()
    assert _filename(response.headers["content-disposition"]) == f"{called}.zip"
    assert "x-evil" not in response.headers


@pytest.mark.parametrize("name", NAMES)
def test_one_file(stand: Stand, server: str, name: bytes) -> None:
    game = stand.front.game(b"roms/x/" + name)
    (file,) = [file for file in game.files if file.name == b"of " + name]
    response = get(stand.game(server, game.path, f"file_ids={file.number}"))
    assert (response.status, response.body) == (200, b"2")
    called = NAMES[name] or name.decode()
    assert _filename(response.headers["content-disposition"]) == f"of {called}"


@pytest.mark.parametrize("name", NAMES)
def test_a_part(stand: Stand, server: str, name: bytes) -> None:
    """Through a list; a name that none can have is sent the old way."""
    game = stand.front.game(b"roms/x/" + name)
    in_a_list = not re.search(rb"[\r\n]", name)
    built = stand.front.built
    wanted = ",".join(str(file.number) for file in game.files if file.name != b"sub/3")
    response = get(stand.game(server, game.path, f"file_ids={wanted}"))
    assert response.status == 200
    assert stand.front.built == built + (not in_a_list)
    assert ("etag" in response.headers) == in_a_list
    if in_a_list:
        downloads.check(response.body, len(response.body), name)
    for data in (content(1000, repr(name)), b"2"):
        assert data in response.body


def _filename(disposition: str) -> str:
    """As RFC 6266 says, what is in filename* before what is in filename."""
    match = re.fullmatch(
        r"""attachment; filename="([^"\\]*)"(?:; filename\*=UTF-8''(\S+))?""", disposition
    )
    assert match, disposition
    return unquote(match[2], errors="strict") if match[2] else match[1]


@pytest.mark.parametrize(
    ("game", "of_wget", "of_curl"),
    [
        ("plain", "plain.zip", "plain.zip"),
        ("50% off", "50% off.zip", "50_ off.zip"),
        ("it's", "it's.zip", "it's.zip"),
        ("Pokémon - Édition ポケモン 🎮",) * 2 + ("Pok_mon - _dition ____ _.zip",),
    ],
)
def test_programs_save_it_under_its_name(
    stand: Stand, server: str, place: Path, game: str, of_wget: str, of_curl: str
) -> None:
    """curl knows the plain form only."""
    url = stand.game(server, f"roms/x/{game}")
    run(*WGET, "--content-disposition", "--restrict-file-names=nocontrol", url, cwd=place)
    run(*ARIA2C, "-d", place / "aria2c", url)
    (place / "curl").mkdir()
    run(*QUIET, "-OJ", url, cwd=place / "curl")
    expected = Expected(stand.mounted.library / f"roms/x/{game}")[:]
    of_wget = of_wget.removesuffix(".zip") + ".zip"
    for file in (place / of_wget, place / "aria2c" / of_wget, place / "curl" / of_curl):
        assert [p.name for p in file.parent.iterdir() if p.is_file()] == [file.name]
        assert file.read_bytes() == expected
