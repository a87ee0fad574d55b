"""Two copies of a library, each with its own index, mount and server (DESIGN.md B1, V2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from bench.web import Server
from tests.e2e.conftest import Seen
from tests.e2e.downloads import declare_partial
from tests.e2e.matrix.changes import CHANGES, make
from tests.e2e.matrix.relay import Relay, relay
from tests.e2e.matrix.stand import line_to, wait_announced, wait_answer
from tests.e2e.matrix.versions import Line, Version
from tests.e2e.programs import ARIA2C, run, running
from tests.support.libraries import sha256
from tests.support.mounting import Mounts
from tests.support.waiting import SECONDS, poll

GAME: Final = "roms/x/Game"
PART: Final = 2 << 20
ALL: Final = 1 << 40
# One connection to each address, and each begins with a part of its own.
TWO: Final = (*ARIA2C, "-x1", "-s2", "--auto-file-renaming=false", "--allow-overwrite=true")


@dataclass(frozen=True, slots=True)
class Replica:
    game: Path
    line: Line
    version: Version
    relay: Relay

    @property
    def url(self) -> str:
        return self.relay.url_of(self.line.url)


@pytest.fixture
def replicas(
    library: Path,
    mount: Mounts,
    place: Path,
    start_server: Callable[[str], Server],
    server_name: str,
) -> Iterator[tuple[Replica, Replica]]:
    make(library, GAME)
    copy = place / "elsewhere" / "the same"
    copy.parent.mkdir()
    run("rsync", "-a", f"{library}/", copy)
    with ExitStack() as relays:
        found = []
        # To aria2c two ports of one address are one server.
        for root, host in ((library, "127.0.0.1"), (copy, "127.0.0.2")):
            mounted = mount(root, "--allow-other")
            mounted.expect_log("reading .* ended in an error: a file of it has changed")
            server = start_server(server_name)
            line = line_to(server, place, mounted, GAME)
            version = line.versions.add(root / GAME)
            wait_announced(line, version)
            passing = relays.enter_context(relay(server.port, PART, host))
            found.append(Replica(root / GAME, line, version, passing))
        first, second = found
        assert first.game.stat().st_ino != second.game.stat().st_ino
        yield first, second


def test_equal(replicas: tuple[Replica, Replica], server_name: str, seen: Seen) -> None:
    seen("two replicas: equal ETags and bytes", server_name)
    first, second = (replica.line.get() for replica in replicas)
    assert first.whole
    assert second.whole
    for name in ("etag", "last-modified", "content-length"):
        assert first.response.headers[name] == second.response.headers[name]
    assert first.response.body == second.response.body


def test_one_download_from_both(
    replicas: tuple[Replica, Replica], place: Path, server_name: str, seen: Seen
) -> None:
    seen("`aria2c` from two replicas at once", server_name)
    first, second = replicas
    file = place / "game.zip"
    with running(*TWO, "-d", place, "-o", file.name, first.url, second.url) as client:
        _wait_for_both(replicas)
        for replica in replicas:
            replica.relay.allow(ALL)
        assert client.wait(SECONDS) == 0
    assert all(replica.relay.passed > PART for replica in replicas)
    assert file.read_bytes() == first.version.data


@pytest.mark.parametrize("change", ["appended", "rewritten", "replaced"])
def test_one_changes_midway(
    replicas: tuple[Replica, Replica], place: Path, server_name: str, change: str, seen: Seen
) -> None:
    seen(f"`aria2c` from two replicas, in one of them: {CHANGES[change].text}", server_name)
    first, second = replicas
    file = place / "game.zip"
    spare = place / "spare"
    spare.mkdir()
    # aria2c compares no ETags, only sizes: a part of another version with the same size it
    # could tell by nothing but a checksum of the whole.
    options = []
    if change in ("rewritten", "replaced"):
        wanted = place / "wanted.zip"
        wanted.write_bytes(first.version.data)
        options = [f"--checksum=sha-256={sha256(wanted)}"]
    with running(*TWO, *options, "-d", place, "-o", file.name, first.url, second.url) as client:
        _wait_for_both(replicas)
        CHANGES[change].apply(second.game, spare)
        new = second.line.versions.add(second.game)
        wait_announced(second.line, new)
        for replica in replicas:
            replica.relay.allow(ALL)
        status = client.wait(SECONDS)
    if status == 0:
        assert file.read_bytes() == first.version.data
    else:
        declare_partial(file)
    # A client with ETags takes no part of the other version.
    wanted_part = (f"Range: bytes={PART}-", f"If-Range: {first.version.etag}")
    wait_answer(second.line, new, 200, *wanted_part)
    wait_answer(first.line, first.version, 206, *wanted_part)


def _wait_for_both(replicas: tuple[Replica, Replica]) -> None:
    poll("both to be held", lambda: all(replica.relay.passed == PART for replica in replicas))
