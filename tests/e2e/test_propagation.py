"""Containers, as far as they are mount namespaces; tests/containers has real engines."""

from __future__ import annotations

import os
import re
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
from tests.support import documents
from tests.support.libraries import content, make_game
from tests.support.mounting import Mounted, Mounts
from tests.support.users import needs_root
from tests.support.waiting import poll

GAME: Final = "roms/x/Game"
# What an engine does with a volume: it is bound into a new namespace with that propagation.
PROPAGATION: Final = {"rshared": "unchanged", "rslave": "slave", "rprivate": "private"}
FILES: Final = documents.ROOT / "systemd/container"
COMPOSE: Final = sorted(FILES.glob("*.yml"))

pytestmark = needs_root


def _services(file: Path = FILES / "docker-compose.yml") -> dict[str, Any]:
    found = yaml.safe_load(file.read_text())
    services: dict[str, Any] = found["services"]
    return services


def _propagation(service: str) -> str:
    """Of the folder that *service* has the mount in, or is to see it in."""
    (volume,) = [v for v in _services()[service]["volumes"] if v.startswith("/srv/www:")]
    source, target, mode = volume.split(":")
    assert source == target == "/srv/www"
    propagation: str = mode.rpartition(",")[2]
    return propagation


def _within(propagation: str) -> list[str]:
    """The start of a command that is to run in a namespace of its own."""
    return ["unshare", "--mount", "--propagation", PROPAGATION[propagation], "--"]


@pytest.mark.parametrize("file", COMPOSE, ids=[file.name for file in COMPOSE])
def test_the_least_rights(file: Path) -> None:
    """And all that a service needs to come back: with keys that docker-compose 1.29 knows."""
    for name, service in _services(file).items():
        assert service["restart"] == "unless-stopped"
        assert "privileged" not in service
        assert "user" not in service
        assert set(service.get("build", {})) <= {"context", "dockerfile", "target"}
        if name == "nginx":
            assert "devices" not in service
            assert service["volumes"][-1].endswith(":ro,rslave")
            continue
        assert service["cap_drop"] == ["ALL"]
        assert set(service["cap_add"]) <= {"SYS_ADMIN", "SETUID", "SETGID"}
        assert service["devices"] == ["/dev/fuse"]
        assert service["read_only"] is True
        assert service["volumes"][0].endswith(":/library:ro,rslave")
        if name == "zipfs":
            assert service["network_mode"] == "none"


def test_nginx_keeps_no_file_open() -> None:
    site = re.sub("#.*", "", (FILES / "games.conf").read_text())
    assert "open_file_cache" not in site


def test_the_folders_are_shared() -> None:
    assert (_propagation("zipfs"), _propagation("nginx")) == ("rshared", "rslave")


@pytest.fixture
def www(place: Path) -> Iterator[Path]:
    """A folder of the "host" that mounts propagate from and to."""
    folder = place / "www"
    (folder / "games").mkdir(parents=True)
    script = documents.block("containers#two-containers", "mount --bind")
    script = script.replace("/srv/www", str(folder))
    try:
        subprocess.run(["sh", "-eu", "-c", script], check=True)
        yield folder
    finally:
        unmount_lazily(folder)


def _mount(mount: Mounts, library: Path, www: Path) -> Mounted:
    """What the service does, with other paths."""
    words = shlex.split(_services()["zipfs"]["command"])
    assert words[0] == "mount"
    *options, setuid, user, library_there, mountpoint = words[1:]
    assert (setuid, user) == ("--setuid", "1000:1000")  # our Python need not be everybody's
    assert (library_there, mountpoint) == ("/library", "/srv/www/games")
    program = [*_within(_propagation("zipfs")), zipfs_program()]
    return mount(library, *options, mountpoint=www / "games", program=program)


def _namespace(process: subprocess.Popen[bytes]) -> str:
    return os.readlink(f"/proc/{process.pid}/ns/mnt")


def _nginx(www: Path, place: Path, propagation: str) -> Any:
    text = (FILES / "games.conf").read_text()
    site = documents.replaced(text, {"/srv/www/games": f"{www}/games"})
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
        poll("the archive behind nginx once more", partial(_is_served, server))
        again = get(server.url_of(f"{GAME}.zip"))
        assert (again.body, again.headers["etag"]) == (response.body, response.headers["etag"])
