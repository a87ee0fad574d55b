"""Chromium without a window, by the protocol of its developer tools."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from websockets.sync.client import ClientConnection, connect

from bench.process import start, stop
from tests.support.mounting import environment
from tests.support.waiting import SECONDS, poll

PROGRAM: Final = "chromium"
_OPTIONS: Final = (
    "--headless=new", "--remote-debugging-port=0", "--no-first-run", "--no-default-browser-check",
    "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--no-proxy-server",
)  # fmt: skip
_BUTTON: Final = """
(() => {
    const item = document.querySelector('downloads-manager')?.shadowRoot
        .querySelector('downloads-item')?.shadowRoot;
    const button = item?.querySelector('#pause-or-resume, #pauseOrResume');
    if (!button) return '';
    if (%s) button.click();
    return button.hidden ? '' : button.textContent.trim();
})()
"""


def browser_missing() -> str | None:
    return None if shutil.which(PROGRAM) else PROGRAM


class Browser:
    """A running Chromium; its downloads go to *folder*."""

    def __init__(self, socket: ClientConnection, folder: Path) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._progress: dict[str, Any] = {}
        self._downloads = ""
        behaviour = {"behavior": "allow", "downloadPath": str(folder), "eventsEnabled": True}
        self.call("Browser.setDownloadBehavior", **behaviour)

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._socket.send(json.dumps(message))
        while True:
            answer = self._take(SECONDS)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def _take(self, seconds: float) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(seconds))
        if message.get("method") == "Browser.downloadProgress":
            self._progress = message["params"]
        return message

    def page(self, url: str) -> str:
        """Open a tab; what to call it."""
        target = self.call("Target.createTarget", url=url)["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        session: str = attached["sessionId"]
        return session

    def download(self, url: str, **cookies: str) -> None:
        page = self.page("about:blank")
        for name, value in cookies.items():
            self.call("Network.setCookie", page, name=name, value=value, url=url)
        self.call("Page.navigate", page, url=url)
        self._downloads = self.page("chrome://downloads")

    def progress(self) -> dict[str, Any]:
        """``state`` (inProgress, completed, canceled), ``receivedBytes`` and ``totalBytes``."""
        with contextlib.suppress(TimeoutError):
            while True:
                self._take(0)
        return self._progress

    def button(self, *, click: bool = False) -> str:
        """What can be done with the download, on the page of downloads: Pause, or Resume.

        *click*: do it; what is told is what the button said before.
        """
        expression = _BUTTON % ("true" if click else "false")
        told = self.call("Runtime.evaluate", self._downloads, expression=expression)
        label: str = told["result"].get("value", "")
        return label


@contextlib.contextmanager
def browser(place: Path) -> Iterator[Browser]:
    """Run Chromium until the block ends, with its files in *place*."""
    profile, folder = place / "profile", place / "downloads"
    profile.mkdir()
    folder.mkdir()
    options = [*_OPTIONS, f"--user-data-dir={profile}"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")
    with (place / "chromium.log").open("wb") as log:
        env = environment({"HOME": str(profile), "XDG_CONFIG_HOME": str(profile)})
        process = start([PROGRAM, *options, "about:blank"], stderr=log, env=env)
    try:
        told = profile / "DevToolsActivePort"
        poll("Chromium", lambda: told.exists() and len(told.read_text().split("\n")) > 1)
        port, path = told.read_text().split("\n")[:2]
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None) as socket:
            yield Browser(socket, folder)
    finally:
        stop(process)
