"""Podman, as root and as a user: the same image, and the Compose file for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.containers.conftest import GAME
from tests.containers.engine import SOURCE, USER, Engine
from tests.containers.machine import MINUTE
from tests.containers.site import Site, mounted
from tests.e2e.expected import Expected
from tests.support import documents
from tests.support.waiting import poll

HOME = f"/home/{USER}"
FILE = "download"
LEAST = "--cap-drop=ALL --cap-add=SYS_ADMIN,SETUID,SETGID --device=/dev/fuse --read-only"
GAMES_CONF = f"{SOURCE}/systemd/container/games.conf:/etc/nginx/conf.d/games.conf:ro"


@pytest.fixture(scope="module")
def images(machine: Engine, image: str, games: Expected) -> Iterator[str]:
    """Docker's images, for root's Podman and for the user's; the user's own library."""
    archive = "/var/tmp/images.tar"  # noqa: S108 - in a machine of its own
    names = "zipfs nginx python:3.13-slim"
    machine.shell(f"docker save -o {archive} {names}; chmod 644 {archive}")
    # Under the names that short ones stand for.
    tag = "for n in nginx python:3.13-slim; do podman tag localhost/$n docker.io/library/$n; done"
    machine.run("sh", "-ec", f"podman load -q -i {archive}; {tag}", seconds=600)
    machine.shell(
        f"loginctl enable-linger {USER} || true; rm -rf {HOME}/games {HOME}/www {HOME}/zipfs;"
        f" cp -a /srv/games {HOME}/; cp -a {SOURCE} {HOME}/; mkdir -p {HOME}/www/games;"
        f" chown -R {USER}:{USER} {HOME}; systemctl start user@1000"
    )
    machine.gamer(f"podman load -q -i {archive}; {tag}")
    machine.shell(f"rm {archive}")
    yield image
    machine.gamer("podman rm -af; podman volume prune -f; podman system migrate; true")
    machine.shell("podman rm -af; podman volume prune -f")


def test_as_root(machine: Engine, images: str, games: Expected) -> None:
    site = Site(machine.shell, games)
    zipfs = (
        f"podman run -d --name=zipfs {LEAST} --network=none --tmpfs=/run --tmpfs=/tmp"
        " -v /srv/games:/library:ro,rslave -v state:/state -v /srv/www:/srv/www:rshared zipfs"
    )
    nginx = (
        f"podman run -d --name=nginx --network=host -v {GAMES_CONF}"
        " -v /srv/www:/srv/www:ro,rslave nginx"
    )
    try:
        machine.shell(nginx)
        machine.shell(zipfs)
        site.check()
        assert mounted(machine) == ["/srv/www/games"]
        status = machine.run("podman", "exec", "zipfs", "zipfs", "status", "/srv/www/games")
        assert "sealed" in status.stdout
        machine.shell("podman restart zipfs")
        site.check()
        site.begin(FILE)
        machine.shell("podman kill --signal=KILL zipfs; podman start zipfs")
        site.check()
        site.resume(FILE)
        machine.shell("podman stop zipfs")
        assert mounted(machine) == []
    finally:
        machine.shell("podman rm -af")


def test_as_a_user(machine: Engine, images: str, games: Expected) -> None:
    site = Site(machine.gamer, games)

    up = documents.block("containers#rootless-podman", "podman-compose")
    compose = up.strip().replace("\n", "; ").removesuffix(" up -d --build")
    machine.gamer(documents.block("containers#rootless-podman", "mkdir -p"))
    try:
        said = machine.gamer(f"cd zipfs; exec 2>&1\n{up}", seconds=20 * MINUTE)
        # podman-compose ends with 0 also if a container doesn't start.
        states = machine.gamer("podman ps -a --format '{{.Names}}: {{.State}}'")
        assert states.count(": running") == 2, f"{states}{said}"
        site.check()
        assert mounted(machine, HOME) == []  # the host doesn't see it
        name = machine.gamer("podman ps --format '{{.Names}}' --filter ancestor=localhost/zipfs")
        status = machine.gamer(f"podman exec {name.strip()} zipfs status /srv/www/games")
        assert "sealed" in status
        doctor = machine.gamer(
            f"podman exec {name.strip()} zipfs doctor /library /srv/www/games || true"
        )
        assert "note    propagation: this engine has a user namespace of its own" in doctor
        machine.gamer(f"podman restart {name.strip()}")
        site.check()
        site.begin(FILE)
        machine.gamer(f"podman kill --signal=KILL {name.strip()}; podman start {name.strip()}")
        site.check()
        site.resume(FILE)
        machine.gamer(f"cd zipfs; {compose} down 2>&1")
        poll("nginx to end", lambda: site.status() in ("", "000"))
        inside = machine.gamer("podman unshare cat /proc/mounts")
        assert "fuse.zipfs" not in inside
        machine.gamer(f"cd zipfs; {compose} up -d 2>&1")
        site.check()
        assert GAME in site.url
    finally:
        machine.gamer(f"cd zipfs; {compose} down --volumes 2>&1")
