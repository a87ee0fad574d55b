"""The stand-in is as strict as RomM 5.2.0: without zipfs, what is known of RomM holds for it."""

from __future__ import annotations

import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

from tests.e2e.curl import get, get_range, head
from tests.e2e.romm.stand import LOGIN, romm
from tests.support.libraries import make_file, make_game

GAME = 'roms/psx/Pokémon + 100% "Émeraude" [x]'
OWN = "roms/psx/With its own"
ONE = "roms/psx/one.bin"


def test_as_romm_is(library: Path, place: Path) -> None:
    make_game(library, GAME, {"b.cue": b"cue", "sub/a b.bin": b"bin"})
    make_game(library, OWN, {"a.bin": b"a", "b.M3U": b"a.bin"})
    make_file(library / ONE, b"one")
    with romm(library, place, hook=None, arguments=("--workers", "1")) as running:
        itself = running.url, running.backend.url
        url = running.game(GAME, name="Other")
        answer = get(url.replace(*itself), *LOGIN)
        assert answer.status == 200
        assert answer.headers["x-archive-files"] == "zip"
        assert "content-type" not in answer.headers
        called = "attachment; filename*=UTF-8''Other.zip; filename=\"Other.zip\""
        assert answer.headers["content-disposition"] == called
        playlist = b"b.cue"
        below = quote(f"/library/{GAME}")
        assert answer.body.decode().split("\n") == [
            f"- 3 {below}/sub/a%20b.bin sub/a b.bin",
            f"- 3 {below}/b.cue b.cue",
            f"{zlib.crc32(playlist):08x} 5 /decode?value=Yi5jdWU= Other.m3u",
        ]
        hidden = get(running.game(GAME, "hidden_folder=true").replace(*itself), *LOGIN).body
        names = [line.split(" ", 3)[3] for line in hidden.decode().split("\n")]
        assert names == [".hidden/sub/a b.bin", ".hidden/b.cue", f"{Path(GAME).name}.m3u"]
        assert b".m3u" not in get(running.game(OWN).replace(*itself), *LOGIN).body
        bulk = get(running.bulk(GAME, ONE).replace(*itself), *LOGIN).body.decode()
        assert [line.split(" ", 3)[3] for line in bulk.split("\n")] == [
            f"{GAME}/sub/a b.bin",
            f"{GAME}/b.cue",
            ONE,
        ]

        # What goes wrong in it.
        assert get_range(url, "0-1", *LOGIN).status == 500
        assert head(url, *LOGIN).headers["content-length"] == "0"
        assert head(running.bulk(GAME, OWN), *LOGIN).status == 405
        assert get(url).status == 401
        assert get(running.url + "/api/roms/9/content/x", *LOGIN).status == 404
        one = get(running.game(ONE).replace(*itself), *LOGIN)
        assert (one.headers["x-accel-redirect"], one.body) == (f"/library/{ONE}", b"")
        assert get(running.game(ONE), *LOGIN).body == b"one"
        whole = get(url, *LOGIN)
        assert not {"etag", "content-length", "accept-ranges"} & whole.headers.keys()
        with zipfile.ZipFile(BytesIO(whole.body)) as archive:
            assert archive.namelist() == ["sub/a b.bin", "b.cue", "Other.m3u"]
            assert archive.testzip() is None
