"""What README.md tells people to type first."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from bench import games
from tests.e2e import curl
from tests.e2e.expected import Expected, sha256_of
from tests.e2e.programs import environment, run, running
from tests.support.waiting import SECONDS, poll

GAME: Final = games.FOLDERS[0].game
ROOT: Final = Path(__file__).parents[2]


def test_demo(fuse: None, no_process_left: None, place: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = place / "home"
    home.mkdir()
    env = environment(PORT=str(port), TMPDIR=str(home), HOME=str(home), PYTHONWARNINGS="default")
    said = place / "said"
    with (
        said.open("wb") as output,
        running(
            *(sys.executable, "-m", "bench.demo"), stdout=output, stderr=output, cwd=ROOT, env=env
        ) as demo,
    ):

        def invites() -> bool:
            assert demo.poll() is None, said.read_text()
            return "Ctrl-C ends it all" in said.read_text()

        poll("the demo to be ready", invites)
        url = f"http://127.0.0.1:{port}/{_quoted(GAME)}.zip"
        file = place / "game.zip"
        run(*curl.QUIET, "-o", file, url)
        (library,) = home.glob("zipfs-demo-*/library")
        expected = Expected(library / GAME)
        assert sha256_of(file) == expected.sha256()
        run("unzip", "-tqq", file)

        # Interrupted, and resumed.
        os.truncate(file, expected.size // 3)
        run(*curl.QUIET, "-C", "-", "-o", file, url)
        assert sha256_of(file) == expected.sha256()

        demo.send_signal(signal.SIGINT)
        assert demo.wait(SECONDS) == 0, said.read_text()
    assert list(home.iterdir()) == []
    assert str(home) not in Path("/proc/self/mountinfo").read_text()
    for word in ("Traceback", "Warning", "by force"):
        assert word not in said.read_text()


def _quoted(path: str) -> str:
    # As a shell would get it from the demo's own suggestion.
    return path.replace(" ", "%20")
