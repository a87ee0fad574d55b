"""Docker: the image, each Compose file, and what happens when something is killed.

The image itself is built by what the manual says at "containers#the-image".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.containers.engine import SOURCE, Engine
from tests.containers.machine import MINUTE
from tests.containers.site import Site, mounted
from tests.e2e.expected import Expected
from tests.support.waiting import poll

MOST = 40_000_000
"""Bytes of the image above its base."""
FILE = "/root/download"
TWO, HOST, ALONE = "docker-compose.yml", "host.yml", "alone.yml"


@pytest.fixture
def site(machine: Engine, games: Expected, image: str) -> Iterator[Site]:
    yield Site(machine.shell, games)
    machine.clear()
    assert mounted(machine) == []


def inspect(machine: Engine, what: str) -> dict[str, Any]:
    (found,) = json.loads(machine.run("docker", "inspect", what).stdout)
    assert isinstance(found, dict)
    return found


def pid_of(machine: Engine, container: str) -> int:
    pid: int = inspect(machine, container)["State"]["Pid"]
    return pid


def daemon_of(machine: Engine, container: str) -> int:
    """The process that serves, in the machine's numbers."""
    children = machine.shell(f"cat /proc/{pid_of(machine, container)}/task/*/children").split()
    return int(children[0])


def health(machine: Engine, container: str) -> str:
    return str(inspect(machine, container)["State"]["Health"]["Status"])


# -- The image -------------------------------------------------------------------------


def test_the_image_is_small(machine: Engine, image: str) -> None:
    above = inspect(machine, image)["Size"] - inspect(machine, "python:3.13-slim")["Size"]
    assert above < MOST


def test_the_image_says_what_it_is(machine: Engine, image: str) -> None:
    config = inspect(machine, image)["Config"]
    assert config["Labels"]["org.opencontainers.image.title"] == "zipfs"
    assert config["Healthcheck"]["Test"] == ["CMD", "zipfs", "status", "/srv/www/games"]
    said = machine.run("docker", "run", "--rm", image, "--version").stdout
    version = config["Labels"]["org.opencontainers.image.version"]
    assert said == f"zipfs, version {version}\n"


def test_the_image_is_ready(machine: Engine, image: str) -> None:
    """Bytecode is there; compilers, pip and what packages test themselves with aren't."""
    run = ["docker", "run", "--rm", "--entrypoint", "sh", image, "-ec"]
    script = "find /opt/zipfs -path '*/catalog/*/tree.*.pyc'; command -v gcc || echo none"
    found = machine.run(*run, f"{script}; stat -c %u /state").stdout.split()
    assert len(found) == 3, found
    assert found[1:] == ["none", "1000"]


# -- zipfs and nginx -------------------------------------------------------------------


def test_two_services(machine: Engine, site: Site) -> None:
    machine.type("containers#two-containers", "mkdir -p")
    site.check()
    assert mounted(machine) == ["/srv/www/games"]  # the host sees it as well
    poll("it to be healthy", lambda: health(machine, "container-zipfs-1") == "healthy", 300)
    status = machine.shell(f"cat /proc/{daemon_of(machine, 'container-zipfs-1')}/status")
    fields = {name: value.split() for name, _, value in
              (line.partition(":") for line in status.splitlines())}  # fmt: skip
    assert fields["Uid"] == fields["Gid"] == ["1000"] * 4
    assert {fields[name][0] for name in ("CapEff", "CapPrm")} == {"0" * 16}
    logs = machine.compose(TWO, "logs", "zipfs")
    assert "mounted /library on /srv/www/games" in logs
    assert "WARNING" not in logs
    assert "ERROR" not in logs
    before = site.headers()

    # It ends, by signal: nothing is left.
    machine.compose(TWO, "stop", "zipfs")
    assert mounted(machine) == []
    assert inspect(machine, "container-zipfs-1")["State"]["ExitCode"] == 0
    assert site.status() == "404"
    machine.compose(TWO, "start", "zipfs")
    site.check()
    assert {n: v for n, v in site.headers().items() if n != "date"} == {
        n: v for n, v in before.items() if n != "date"
    }
    machine.compose(TWO, "restart", "zipfs")
    site.check()

    machine.compose(TWO, "down")
    assert mounted(machine) == []
    machine.compose(TWO, "up", "-d")
    site.check()
    machine.compose(TWO, "down", "--volumes")
    assert mounted(machine) == []


@pytest.mark.parametrize("which", ["daemon", "container"])
def test_killed_in_a_download(machine: Engine, site: Site, which: str) -> None:
    """It comes back by itself, nginx isn't reloaded, and the download goes on.

    A daemon is started again by process 1 of its container, and that by the engine.
    """
    machine.compose(TWO, "up", "-d")
    site.check()
    site.begin(FILE)
    pid = (pid_of if which == "container" else daemon_of)(machine, "container-zipfs-1")
    machine.shell(f"kill -9 {pid}")
    if which == "container":
        poll(
            "another one",
            lambda: (
                inspect(machine, "container-zipfs-1")["RestartCount"] > 0
                and inspect(machine, "container-zipfs-1")["State"]["Running"]
            ),
            120,
        )
    site.check()
    if which == "daemon":
        assert daemon_of(machine, "container-zipfs-1") != pid
        assert inspect(machine, "container-zipfs-1")["RestartCount"] == 0

    site.resume(FILE)
    assert inspect(machine, "container-nginx-1")["RestartCount"] == 0
    assert mounted(machine) == ["/srv/www/games"]
    machine.compose(TWO, "down", "--volumes")
    assert mounted(machine) == []


def test_nginx_starts_first(machine: Engine, site: Site) -> None:
    machine.compose(TWO, "up", "-d", "nginx")
    poll("nginx", lambda: site.status() == "404")
    machine.compose(TWO, "up", "-d", "zipfs")
    site.check()


# -- zipfs on the host, nginx in Docker ------------------------------------------------


def test_zipfs_on_the_host(machine: Engine, site: Site) -> None:
    # Not the image's files: the machine's Python need not be that of the image.
    machine.run("sh", "-ec", f"cd {SOURCE}; systemd/install", seconds=9 * MINUTE)
    start = (
        "systemd-run --collect --unit=zipfs-host --property=StateDirectory=zipfs-host"
        " --property=Restart=on-failure"
        " /usr/local/bin/zipfs mount --allow-other /srv/games /srv/www/games"
    )
    try:
        machine.type("containers#zipfs-on-the-host")
        machine.shell(start)
        site.check()
        machine.shell("systemctl kill --signal=KILL zipfs-host")
        site.check()
        machine.compose(HOST, "restart")
        site.check()
    finally:
        machine.run("systemctl", "stop", "zipfs-host", check=False)
        machine.compose(HOST, "down")


# -- One container with both -----------------------------------------------------------


def test_one_container(machine: Engine, site: Site) -> None:
    machine.type("containers#one-container")
    site.check()
    assert mounted(machine) == []  # nobody else sees it
    poll("it to be healthy", lambda: health(machine, "container-games-1") == "healthy", 300)
    assert "WARNING" not in machine.compose(ALONE, "logs")
    site.begin(FILE)
    machine.shell(f"kill -9 {daemon_of(machine, 'container-games-1')}")
    site.check()
    site.resume(FILE)
    machine.compose(ALONE, "down", "--volumes")
