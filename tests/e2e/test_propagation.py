"""Containers, as far as they are mount namespaces: the manual's "docker" without an engine."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from bench.mount import unmount_lazily, zipfs_program
from bench.web import Server
from tests.e2e.curl import get, head
from tests.e2e.expected import Expected
from tests.e2e.front.servers import nginx
from tests.e2e.site import reload
from tests.support import documents
from tests.support.libraries import content, make_game
from tests.support.mounting import Mounted, Mounts
from tests.support.users import needs_root
from tests.support.waiting import poll

GAME: Final = "roms/x/Game"
# What an engine does with a volume: it is bound into a new namespace with that propagation.
PROPAGATION: Final = {"rshared": "unchanged", "rslave": "slave", "rprivate": "private"}

pytestmark = needs_root


def _compose() -> dict[str, Any]:
    found = yaml.safe_load(documents.block("docker", "services:"))
    assert isinstance(found, dict)
    return found


def _propagation(service: str) -> str:
    """Of the folder that *service* has the mount in, or is to see it in."""
    (volume,) = [
        volume for volume in _compose()["services"][service]["volumes"] if isinstance(volume, dict)
    ]
    assert (volume["type"], volume["source"], volume["target"]) == ("bind", "/srv/www", "/srv/www")
    propagation: str = volume["bind"]["propagation"]
    return propagation


def _within(propagation: str) -> list[str]:
    """The start of a command that is to run in a namespace of its own."""
    return ["unshare", "--mount", "--propagation", PROPAGATION[propagation], "--"]


def test_the_file() -> None:
    """Keys and values are those of the Compose Specification."""
    services = _compose()["services"]
    zipfs = services["zipfs"]
    assert set(zipfs) == {
        *("build", "command", "restart", "devices", "cap_add", "security_opt", "volumes"),
    }
    assert set(zipfs["build"]) == {"context", "dockerfile_inline"}
    assert "\\\n" in zipfs["build"]["dockerfile_inline"]
    assert (zipfs["devices"], zipfs["cap_add"]) == (["/dev/fuse"], ["SYS_ADMIN"])
    assert set(services["nginx"]) == {"image", "ports", "volumes"}
    assert (_propagation("zipfs"), _propagation("nginx")) == ("rshared", "rslave")
    assert _compose()["volumes"] == {"state": None}


@pytest.fixture
def www(place: Path) -> Iterator[Path]:
    """A folder of the "host" that mounts propagate from and to."""
    folder = place / "www"
    (folder / "games").mkdir(parents=True)
    script = documents.block("docker", "mount --bind").replace("/srv/www", str(folder))
    try:
        subprocess.run(["sh", "-eu", "-c", script], check=True)
        yield folder
    finally:
        unmount_lazily(folder)


def _mount(mount: Mounts, library: Path, www: Path) -> Mounted:
    """What the service does, with other paths."""
    words = shlex.split(_compose()["services"]["zipfs"]["command"])
    assert words[:2] == ["zipfs", "mount"]
    *options, index, _, library_there, mountpoint = words[2:]
    assert (index, library_there, mountpoint) == ("--index", "/library", "/srv/www/games")
    program = [*_within(_propagation("zipfs")), zipfs_program()]
    return mount(library, *options, mountpoint=www / "games", program=program)


def _namespace(process: subprocess.Popen[bytes]) -> str:
    return os.readlink(f"/proc/{process.pid}/ns/mnt")


def _nginx(www: Path, place: Path, propagation: str) -> Any:
    site = documents.replaced(documents.block("serving#nginx"), {"/srv/www/games": f"{www}/games"})
    return nginx(site, "listen 8080;", workdir=place, within=_within(propagation))


def _is_served(server: Server) -> bool:
    return head(server.url_of(f"{GAME}.zip")).status == 200


def test_a_mount_gets_from_one_to_the_other(
    www: Path, library: Path, place: Path, mount: Mounts
) -> None:
    folder = make_game(library, GAME, {"a": content(3_000_000), "b": b"b"})
    with (
        _nginx(www, place, _propagation("nginx")) as server,
        _nginx(www, place, "rprivate") as apart,
    ):
        assert not _is_served(server)  # it was there before the mount
        first = _mount(mount, library, www)
        namespaces = {_namespace(process) for process in (first.process, server.process)}
        assert len(namespaces | {os.readlink("/proc/self/ns/mnt")}) == 3
        poll("the archive behind nginx", partial(_is_served, server))
        response = get(server.url_of(f"{GAME}.zip"))
        assert response.body == Expected(folder)[:]
        assert not _is_served(apart)

        # Killed, as by `docker kill`. What it leaves is dead for all, until the next one comes.
        first.kill()
        poll("nginx to notice it", lambda: not _is_served(server))
        _mount(mount, library, www)
        reload(server)
        poll("the archive behind nginx once more", partial(_is_served, server))
        again = get(server.url_of(f"{GAME}.zip"))
        assert (again.body, again.headers["etag"]) == (response.body, response.headers["etag"])
