"""``zipfs doctor --romm``: each link of the chain broken in turn, and what is said of it."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.curl import get_range
from tests.e2e.romm.shelf import CUE, DISCS, SINGLE, make_shelf
from tests.e2e.romm.stand import LOGIN, Stand, romm, standing
from tests.support.mounting import Mounts, run_zipfs
from tests.support.users import needs_root
from tests.support.waiting import poll

TOKEN: Final = {"ZIPFS_ROMM_TOKEN": LOGIN[1].rpartition(" ")[2]}
SOON: Final = {"ZIPFS_WAIT": "1", "ZIPFS_REUSE": "0"}
LINKS: Final = ["RomM: hook", "RomM: list", "RomM: archive", "RomM: nginx", "RomM: range"]


class Seen:
    """What it says of RomM."""

    def __init__(
        self,
        url: str,
        *arguments: str | Path,
        env: dict[str, str | None] | None = None,
    ) -> None:
        environment: dict[str, str | None] = {**TOKEN, "NETRC": "/dev/null", **(env or {})}
        done = run_zipfs("doctor", *arguments, "--romm", url, "--json", env=environment)
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)["findings"]
        self.status = done.returncode
        self.findings = [one for one in found if one["name"].startswith("RomM")]
        for one in self.findings:
            assert one["remedy"] or one["level"] in ("ok", "note")

    @property
    def good(self) -> list[str]:
        return [one["name"] for one in self.findings if one["level"] == "ok"]

    def problem(self, name: str) -> str:
        """What is wrong with the link *name*, the last that is looked at, and its remedy."""
        assert [one["name"] for one in self.findings if one["level"] != "ok"] == [name], (
            self.findings
        )
        last = self.findings[-1]
        assert last["level"] == "problem"
        assert self.status == 9
        return f"{last['what']} | {last['remedy']}"


def of(stand: Stand, url: str | None = None, **env: str | None) -> Seen:
    """As somebody does on the machine of both."""
    arguments = (stand.mounted.library, stand.mounted.path, "--lists", stand.lists)
    return Seen(url or stand.romm.game(CUE), *arguments, env=dict(env))


@pytest.fixture
def shelf(library: Path) -> Path:
    make_shelf(library)
    return library


# -- All of it works -----------------------------------------------------------------------


def test_a_chain_that_holds(stand: Stand) -> None:
    for url in (stand.romm.game(CUE), stand.romm.game(DISCS)):
        for _ in range(2):  # the second is answered without asking RomM
            seen = of(stand, url)
            assert seen.good == LINKS, seen.findings
    # Without lists and mount it is told by what comes.
    seen = Seen(stand.romm.game(CUE))
    assert seen.good == ["RomM: hook", "RomM: nginx", "RomM: range"]
    done = run_zipfs("doctor", "--romm", stand.romm.game(CUE), env={**TOKEN})
    assert "RomM: range: 206, with the right bytes: downloads can be resumed" in done.stdout


def test_a_login(stand: Stand, place: Path) -> None:
    url = stand.romm.game(CUE)
    said = of(stand, ZIPFS_ROMM_TOKEN=None).problem("RomM")
    assert said.startswith("RomM answers 401 without a login | set ZIPFS_ROMM_TOKEN")
    wrong = of(stand, ZIPFS_ROMM_TOKEN=place.name)
    assert "401 with the login that is set" in wrong.problem("RomM")
    netrc = place / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password wrong\n")
    netrc.chmod(0o600)
    seen = of(stand, ZIPFS_ROMM_TOKEN=None, NETRC=str(netrc))
    assert "401 with the login that is set" in seen.problem("RomM")
    netrc.write_text("nonsense\n")
    done = run_zipfs("doctor", "--romm", url, env={"NETRC": str(netrc)})
    assert f"can't use {netrc}" in done.stderr
    done = run_zipfs("doctor", "--romm", url.replace("//", "//me:secret@"))
    assert "a login in the address can be read by all" in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_other_addresses(stand: Stand) -> None:
    assert "RomM answers 404" in of(stand, f"{stand.romm.url}/api/roms/77/content/x").problem(
        "RomM"
    )
    said = of(stand, stand.romm.game(SINGLE)).problem("RomM: hook")
    assert "the download is one file" in said
    said = of(stand, "http://127.0.0.1:1/api/roms/1/content/x").problem("RomM")
    assert "127.0.0.1 doesn't answer: Connection refused" in said
    for url in ("ftp://host/x", "romm/x", "http://[::1/x"):
        done = run_zipfs("doctor", "--romm", url)
        assert "isn't the address of a download" in done.stderr


# -- One link broken -------------------------------------------------------------------------


def test_no_hook(shelf: Path, place: Path, mount: Mounts) -> None:
    (place / "lists").mkdir()
    mounted = mount(shelf, "--lists", place / "lists")
    with romm(shelf, place, hook=None) as running:
        arguments = (shelf, mounted.path, "--lists", place / "lists")
        said = Seen(running.game(CUE), *arguments).problem("RomM: hook")
        assert re.search(r"its hook isn't loaded \| (on the host: )?mount gunicorn.conf.py", said)
        # It hasn't been asked for a range, for which RomM copies the game.
        assert get_range(running.game(CUE), "0-9", *LOGIN).status == 500
        assert len(running.asked()) == 2


@pytest.mark.parametrize("kind", ["missing", "file", "another"])
def test_lists_elsewhere(shelf: Path, place: Path, mount: Mounts, kind: str) -> None:
    other = place / "other"
    if kind == "file":
        other.write_bytes(b"")
    elif kind == "another":
        other.mkdir()
    settings = {**SOON, "ZIPFS_LISTS": str(other)}
    with standing(shelf, place, settings=settings, mounts=mount) as stand:
        said = of(stand).problem("RomM: list")
        if kind == "missing":
            assert f"there is no folder {other} | give RomM's container" in said
        elif kind == "file":
            assert "the list can't be written" in said
        else:
            assert f"none has come to {stand.lists}" in said


def test_no_mount(shelf: Path, place: Path, mount: Mounts) -> None:
    with standing(shelf, place, settings=SOON, mounts=mount) as stand:
        stand.mounted.unmount()
        assert "there is no folder" in of(stand).problem("RomM: archive")
        (stand.mounted.path / ".lists").mkdir()
        said = of(stand).problem("RomM: archive")
        assert "no archive yet; there is no " in said
        assert "`zipfs status` whether its files are still being hashed" in said
        (stand.mounted.path / ".lists").rmdir()


def test_a_mount_that_romm_does_not_see(shelf: Path, place: Path, mount: Mounts) -> None:
    (place / "shown").mkdir()
    settings = {**SOON, "ZIPFS_SHOWN": str(place / "shown")}
    with standing(shelf, place, settings=settings, mounts=mount) as stand:
        of(stand)  # the list is there
        poll("an archive", lambda: list((stand.mounted.path / ".lists").iterdir()))
        said = of(stand).problem("RomM: archive")
        assert "the archive is there, and RomM's container doesn't see it" in said
        said = Seen(stand.romm.game(CUE)).problem("RomM: archive")
        assert "give --lists and the mount point" in said


def test_no_location_for_it(shelf: Path, place: Path, mount: Mounts) -> None:
    lists, shown = place / "lists", place / "cache/zipfs"
    lists.mkdir()
    shown.mkdir(parents=True)
    mounted = mount(shelf, "--allow-other", "--lists", lists, mountpoint=shown)
    settings = {"ZIPFS_LISTS": str(lists), "ZIPFS_WAIT": "200"}
    with romm(shelf, place, settings=settings, cache=False) as running:
        seen = Seen(running.game(CUE), shelf, mounted.path, "--lists", lists)
        said = seen.problem("RomM: nginx")
        assert "it answers 404 | RomM before 5.1.0 has no `location /cache/`" in said


@needs_root
def test_nginx_may_not_read_it(shelf: Path, place: Path, mount: Mounts) -> None:
    for file in (shelf / CUE).iterdir():
        file.chmod(0o600)
    with standing(shelf, place, mounts=mount) as stand:
        assert "it answers 403 | let the user of RomM's nginx in" in of(stand).problem(
            "RomM: nginx"
        )


# -- What stands before RomM -------------------------------------------------------------------


@contextlib.contextmanager
def proxy(stand: Stand, kind: str) -> Iterator[str]:
    """A proxy that isn't as it should be; the URL of a download through it."""
    front = stand.romm.nginx.port

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if kind == "leads on":
                self.send_response(302)
                self.send_header("Location", "https://elsewhere.example/login")
                self.end_headers()
                return
            headers = dict(self.headers)
            if kind == "no ranges":
                headers.pop("Range", None)
            connection = http.client.HTTPConnection("127.0.0.1", front)
            with contextlib.closing(connection):
                connection.request("GET", self.path, headers=headers)
                answer = connection.getresponse()
                body = answer.read()
            if kind == "other bytes" and answer.status == 206:
                body = body[:-1] + b"x"
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name == "Content-Length" and kind == "no length":
                    continue
                told = '"1-1"' if name == "ETag" and kind == "other ETag" else value
                if name != "Connection":
                    self.send_header(name, told)
            self.end_headers()
            with contextlib.suppress(OSError):  # it reads the beginning only
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            path = stand.romm.game(CUE).removeprefix(stand.romm.url)
            yield f"http://127.0.0.1:{server.server_address[1]}{path}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("kind", "name", "what"),
    [
        ("no ranges", "RomM: range", "a range is answered with 200 instead of 206"),
        ("no length", "RomM: range", "the answer has no Content-Length"),
        ("other bytes", "RomM: range", "a range has other bytes than the archive"),
        ("leads on", "RomM", "the address leads on to https://elsewhere.example/login"),
    ],
)
def test_a_proxy(stand: Stand, kind: str, name: str, what: str) -> None:
    with proxy(stand, kind) as url:
        assert what in of(stand, url).problem(name)


def test_another_file_than_is_shown(shelf: Path, place: Path, mount: Mounts) -> None:
    with (
        standing(shelf, place, settings={"ZIPFS_REUSE": "0"}, mounts=mount) as stand,
        proxy(stand, "other ETag") as url,
    ):
        said = of(stand, url).problem("RomM: nginx")
        assert "sends another file than zipfs shows" in said
