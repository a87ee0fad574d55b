"""While there is no archive, the application builds one; and what nobody may have stays so."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.curl import QUIET, Response, get, get_if_whole, get_range, head
from tests.e2e.expected import Expected
from tests.e2e.front.application import Front, serving
from tests.e2e.front.servers import caddy_version, nginx_in_front
from tests.e2e.front.stand import Stand, paths_of, stand_before
from tests.e2e.programs import run
from tests.support import documents
from tests.support.libraries import content, make_game
from tests.support.mounting import Mounts
from tests.support.users import needs_root
from tests.support.waiting import poll

GAME: Final = "roms/x/Game"
OTHER: Final = "roms/x/Other"


@pytest.fixture
def game(library: Path) -> Path:
    make_game(library, OTHER, {"a": b"a", "b": b"b"})
    return make_game(library, GAME, {"a": content(3_000_000), "b/c": b"c", "d.m3u": b"d"})


def _check_built(response: Response, folder: Path, prefix: str = "") -> None:
    """All files of *folder*, in an archive that can't be resumed and says so."""
    assert response.status == 200
    assert response.headers["accept-ranges"] == "none"
    assert response.headers["content-type"] == "application/zip"
    assert response.headers["content-disposition"] == 'attachment; filename="Game.zip"'
    for name in ("content-length", "etag", "last-modified"):
        assert name not in response.headers
    with zipfile.ZipFile(BytesIO(response.body)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            prefix + path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }


def test_until_it_is_sealed(
    library: Path, game: Path, place: Path, mount: Mounts, server: str
) -> None:
    # With an hour of settle time it stays unsealed for as long as we look.
    mounted = mount(library, "--allow-other", settle=3600)
    with stand_before(mounted, place) as stand:
        url = stand.game(server, GAME)
        _check_built(get(url), game)
        first = head(url)
        assert (first.status, first.headers["accept-ranges"]) == (200, "none")
        # A program that resumes doesn't get what doesn't fit.
        _check_built(get_range(url, "1000-"), game)
        file = place / "file"
        file.write_bytes(get(url).body[:1000])
        no_ranges = 33
        run(*QUIET, "-C", "-", "-o", file, url, status=(no_ranges,))
        assert file.stat().st_size == 1000
        assert mounted.stop() == 0

        mount(library, "--allow-other", mountpoint=mounted.path)
        poll("the archive", lambda: "etag" in head(url).headers)
        built = stand.front.built
        whole = get(url)
        assert whole.body == Expected(game)[:]
        assert get_range(url, "1000-1999").body == whole.body[1000:2000]
        assert stand.front.built == built


def test_not_the_old_way_either(library: Path, game: Path, place: Path, mount: Mounts) -> None:
    """The manual's other advice: no bytes but those of archives, and a word when to come back."""
    text = documents.block("redirects#nginx-in-front")
    old = text[text.index("location @old-way {") :]
    said = documents.quoted("redirects#what-clients-get")
    lines = [line for line in said if line in ("return 503;", "add_header Retry-After 5 always;")]
    assert len(lines) == 2
    new = "\n".join(["location @old-way {", *lines, "} }"])
    mounted = mount(library, "--allow-other", settle=3600)
    with (
        serving(Front(library)) as front,
        nginx_in_front({old: new, **paths_of(front, mounted)}, workdir=place) as server,
    ):
        stand = Stand(mounted=mounted, front=front, servers={"nginx": server})
        for response in (get(stand.game("nginx", GAME)), head(stand.game("nginx", GAME))):
            assert (response.status, response.headers["retry-after"]) == (503, "5")
        assert front.built == 0


@pytest.mark.parametrize("what", ["subset", "hidden folder", "bulk"])
def test_without_lists(
    library: Path, game: Path, place: Path, mount: Mounts, server: str, what: str
) -> None:
    """What no archive of the library is, is built as well."""
    mounted = mount(library, "--allow-other")
    mounted.wait_sealed(2)
    with stand_before(mounted, place) as stand:
        if what == "bulk":
            with zipfile.ZipFile(BytesIO(get(stand.bulk(server, [GAME, OTHER])).body)) as archive:
                assert archive.namelist() == [
                    f"{GAME}/a", f"{GAME}/b/c", f"{GAME}/d.m3u", f"{OTHER}/a", f"{OTHER}/b",
                ]  # fmt: skip
                assert archive.testzip() is None
            return
        if what == "hidden folder":
            _check_built(get(stand.game(server, GAME, "hidden_folder=true")), game, ".hidden/")
            return
        response = get(stand.game(server, GAME, stand.files(GAME, "b/c", "d.m3u")))
        (game / "a").unlink()
        _check_built(response, game)


def test_one_that_breaks_off_does_not_pass_for_whole(
    library: Path, game: Path, place: Path, mount: Mounts, server: str
) -> None:
    mounted = mount(library, "--allow-other", settle=3600)
    with stand_before(mounted, place) as stand:
        (game / "b/c").unlink()  # the application finds out when half is sent
        response = get_if_whole(stand.game(server, GAME))
        if server == "caddy" and response is not None:
            # Up to 2.6 it ends such an answer as if it were whole: only the ZIP itself tells.
            assert caddy_version() < (2, 7)
            assert not zipfile.is_zipfile(BytesIO(response.body))
            return
        assert response is None


def test_no_client_gets_there_by_itself(
    library: Path, game: Path, place: Path, mount: Mounts, server: str
) -> None:
    mounted = mount(library, "--allow-other")
    mounted.wait_sealed(2)
    with stand_before(mounted, place) as stand:
        url = stand.game(server, GAME)
        assert get(url, "-H", "X-Zipfs: missing").body == Expected(game)[:]
        assert stand.front.built == 0
        base = stand.servers[server].url
        for path in (f"zipfs/{GAME}.zip", f"library/{GAME}/b/c", "library/", "zipfs/"):
            assert get(f"{base}/{path}").status == 404
        assert get(url, "-H", f"X-Accel-Redirect: /library/{GAME}/b/c").body == Expected(game)[:]
        assert get(f"{base}/api/roms/99/content/x").status == 404
        assert get(f"{url}?file_ids=1").status == 404
        assert get(f"{base}/api/roms/x/content/x").status == 400
        assert get(f"{base}/api/roms/download").status == 400


@needs_root
def test_what_its_user_may_not_read(library: Path, game: Path, place: Path, mount: Mounts) -> None:
    """nginx runs as "nobody": the old way, if the application may, and a line in nginx's log."""
    (game / "b/c").chmod(0o600)
    mounted = mount(library, "--allow-other")
    mounted.wait_sealed(2)
    with stand_before(mounted, place) as stand:
        _check_built(get(stand.game("nginx", GAME)), game)
        assert 'Game.zip" failed (13: Permission denied)' in stand.servers["nginx"].log.read_text()
        assert stand.front.built == 1
        assert get(stand.game("nginx", GAME, stand.files(GAME, "b/c"))).status == 403
        assert get(stand.game("nginx", GAME, stand.files(GAME, "a"))).status == 200
        assert "etag" in get(stand.game("nginx", OTHER)).headers
        assert stand.front.built == 1


@needs_root
def test_a_mount_for_its_owner_alone(library: Path, game: Path, place: Path, mount: Mounts) -> None:
    """Without --allow-other the same, for all archives."""
    mounted = mount(library)
    mounted.wait_sealed(2)
    with stand_before(mounted, place) as stand:
        _check_built(get(stand.game("nginx", GAME)), game)
        assert "Permission denied" in stand.servers["nginx"].log.read_text()
