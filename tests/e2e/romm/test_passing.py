"""What isn't a download goes its way, as it comes: nothing is held back, and nothing changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from websockets.sync.client import connect

from tests.e2e import curl
from tests.e2e.curl import QUIET, get
from tests.e2e.programs import run, running
from tests.e2e.romm.stand import LOGIN, Stand
from tests.support.libraries import content


def test_events_come_one_by_one(stand: Stand) -> None:
    stand.romm.go.unlink(missing_ok=True)
    url = f"{stand.romm.url}/api/events"
    with running(*QUIET, "-N", *LOGIN, url) as listener:
        assert listener.stdout
        # The second isn't sent before the first is here: read() of more would wait for ever.
        assert listener.stdout.readline() == b"data: first\n"
        stand.romm.go.touch()
        assert listener.stdout.read() == b"\ndata: second\n\n"
        assert listener.wait() == 0


def test_a_large_answer(stand: Stand) -> None:
    wanted = hashlib.sha256(bytes(range(256)) * (64 << 12)).hexdigest()
    assert curl.sha256(f"{stand.romm.url}/api/large", *LOGIN) == wanted


def test_an_upload(stand: Stand, place: Path) -> None:
    file = place / "upload"
    file.write_bytes(content(20_000_000))
    url = f"{stand.romm.url}/api/upload"
    told = run(*QUIET, *LOGIN, "-H", "Expect:", "--data-binary", f"@{file}", url).stdout
    assert json.loads(told)["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_websocket(stand: Stand) -> None:
    url = f"{stand.romm.url.replace('http:', 'ws:')}/ws/echo"
    with connect(url, proxy=None) as socket:
        for word in ("one", "two"):
            socket.send(word)
            assert socket.recv() == f"{word} to you, too"


def test_the_rest_of_the_api(stand: Stand) -> None:
    assert get(f"{stand.romm.url}/api/heartbeat").headers["content-type"] == "application/json"
    assert get(f"{stand.romm.url}/api/roms", *LOGIN).status == 404
    for method in ("POST", "DELETE"):
        url = f"{stand.romm.url}/api/roms/1/content/x"
        answer = get(url, *LOGIN, "-X", method)
        assert (answer.status, "x-zipfs" in answer.headers) == (405, False)
