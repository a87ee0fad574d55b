"""A browser's own Pause and Resume, over a connection that breaks (DESIGN V2)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.desktop.browser import browser, browser_missing
from tests.e2e.curl import get
from tests.e2e.matrix.relay import relay
from tests.e2e.romm.stand import LOGIN, standing
from tests.support.libraries import content, make_game
from tests.support.mounting import Mounts
from tests.support.waiting import poll

GAME = "roms/psx/Game"
SESSION = {"romm_session": "a-token"}
SIZE = 8_000_000


@pytest.fixture(scope="session")
def chromium() -> None:
    """Skips the test where there is no Chromium; but never where that is the point."""
    if missing := browser_missing():
        if os.environ.get("CI") and "ID=ubuntu" not in Path("/etc/os-release").read_text():
            pytest.fail(f"not installed: {missing}")
        pytest.skip(f"not installed: {missing}")  # Ubuntu's is a snap, which needs a whole system


@pytest.mark.parametrize("front", ["hook", "nginx"])
def test_pause_and_resume(
    chromium: None, library: Path, place: Path, mount: Mounts, front: str
) -> None:
    """A download from RomM goes on where it was, although its connection is gone."""
    make_game(library, GAME, {"a.bin": content(SIZE), "b.bin": b"b"})
    with standing(library, place, mounts=mount, front=front) as stand:
        stand.mounted.wait_sealed()
        url = stand.romm.game(GAME)
        whole = get(url, *LOGIN).body
        with relay(stand.romm.nginx.port, 2_000_000) as line, browser(place) as chrome:
            chrome.download(line.url_of(url), **SESSION)
            poll("some of it", lambda: chrome.progress().get("receivedBytes", 0) > 1_500_000)
            poll("the button", lambda: chrome.button() == "Pause")
            chrome.button(click=True)
            poll("the pause", lambda: chrome.button() == "Resume")
            line.cut()
            line.allow(100 * SIZE)
            chrome.button(click=True)

            def done() -> bool:
                progress = chrome.progress()
                if progress["state"] == "inProgress" and chrome.button() == "Resume":
                    chrome.button(click=True)  # it has told the user that the network failed
                return bool(progress["state"] == "completed")

            poll("the rest", done)
            (file,) = (place / "downloads").iterdir()
            assert (file.name, file.read_bytes()) == ("Game.zip", whole)
            # Of the beginning nothing was sent twice.
            assert line.passed < len(whole) + 500_000
