"""The Debian package that `make deb` has made: installed, upgraded, removed and purged.

In a container with a systemd of its own, in which nothing of zipfs is installed otherwise.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.service.container import Container, container, missing
from tests.support.documents import ROOT
from tests.support.mounting import temporary_folder
from tests.support.waiting import SECONDS, poll

UNIT: Final = "zipfs@games.service"
ARCHIVE: Final = "/srv/www/games/psx/Game.zip"
CONFIG: Final = """
library = "/srv/games"
mountpoint = "/srv/www/games"
index = "/var/lib/zipfs/games/index.sqlite3"
allow-other = true
settle = 0.2
"""
NGINX: Final = """
server {
    listen 8080;
    root /srv/www/games;
    sendfile on;
    send_timeout 600s;  # for as long as the client below doesn't go on
    access_log /var/log/nginx/games.log;
}
"""
# A client that doesn't go on until it is told to: however long something takes, it is in the
# middle of its download. What stands in the status's file is that of curl.
CLIENT: Final = """
cd /root
(
    curl -sSf -w '%{stderr}connections: %{num_connects}' 2>said http://127.0.0.1:8080/psx/Game.zip
    echo $? >status
) | { head -c 1000000; until [ -e on ]; do sleep 0.1; done; cat; } >download
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The package, and the same as a later version, which says so when it runs."""
    found = sorted((ROOT / "dist").glob("zipfs_*.deb"))
    if not found:
        pytest.fail("there is no package; `make deb` makes it")
    place = tmp_path_factory.mktemp("deb")
    tree, later = place / "tree", place / "later.deb"
    subprocess.run(["dpkg-deb", "-R", found[-1], tree], check=True)
    control = tree / "DEBIAN/control"
    (metadata,) = tree.glob("usr/lib/zipfs/lib/python*/site-packages/zipfs-*.dist-info/METADATA")
    for file in (control, metadata):
        file.write_text(re.sub(r"(?m)^(Version: .*)", r"\1+later", file.read_text(), count=1))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, later], check=True)
    return found[-1], later


@pytest.fixture
def system(fuse: None, packages: tuple[Path, Path]) -> Iterator[Container]:
    if why := missing():
        pytest.fail(why)
    with temporary_folder(in_memory=True) as place, container(place, bare=True) as made:
        for name, package in zip(("first", "later"), packages, strict=True):
            target = made.stage / f"root/{name}.deb"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(package.read_bytes())
        made.write("/etc/nginx/conf.d/games.conf", NGINX)
        made.boot()
        yield made


def dpkg(system: Container, *words: str) -> str:
    done = system.run("dpkg", "--no-triggers", *words, seconds=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def there(system: Container, path: str) -> bool:
    return system.run("test", "-e", path, check=False).returncode == 0


def serve(system: Container, size: int) -> None:
    """A game of two discs of *size* bytes, as a service."""
    system.shell(
        "mkdir -p /srv/games/psx/Game /srv/www/games; cd /srv/games/psx/Game\n"
        f"for disc in 1 2; do head -c {size} /dev/urandom > $disc.bin; done\n"
        f"cat > /etc/zipfs/games.toml <<'END'\n{CONFIG}\nEND\n"
        f"systemctl enable --now {UNIT}"
    )
    poll("the archive", lambda: there(system, ARCHIVE))


def test_its_life(system: Container) -> None:
    dpkg(system, "--install", "/root/first.deb")
    assert system.shell("zipfs --version").startswith("zipfs, version ")
    assert system.shell("readlink -f $(command -v zipfs)") == "/usr/lib/zipfs/bin/zipfs\n"
    assert system.shell("id -un zipfs") == "zipfs\n"
    assert there(system, "/usr/share/man/man1/zipfs.1.gz")
    assert "/usr/lib/zipfs" in system.shell("find /usr/lib/zipfs -name 'cli.*.pyc'")

    serve(system, 100_000)
    digest = system.shell(f"sha256sum {ARCHIVE}")
    first = system.show(UNIT, "MainPID")

    dpkg(system, "--install", "/root/later.deb")
    assert system.shell("dpkg-query -W -f '${Version}' zipfs").endswith("+later")
    poll("the archive again", lambda: there(system, ARCHIVE))
    assert system.show(UNIT, "MainPID") not in ("0", first)
    assert system.shell(f"sha256sum {ARCHIVE}") == digest

    system.shell("mkdir /srv/other; mount -t zipfs /srv/games /srv/other")
    poll("the other mount", lambda: there(system, "/srv/other/psx/Game.zip"))
    system.run("umount", "/srv/other")

    dpkg(system, "--remove", "zipfs")
    assert system.show(UNIT, "ActiveState") == "inactive"
    assert "fuse.zipfs" not in system.shell("cat /proc/mounts")
    for gone in ("/usr/lib/zipfs", "/usr/bin/zipfs", "/usr/sbin/mount.zipfs"):
        assert not there(system, gone)
    assert there(system, "/etc/zipfs/games.toml")
    assert there(system, "/var/lib/zipfs/games/index.sqlite3")

    dpkg(system, "--purge", "zipfs")
    assert not there(system, "/var/lib/zipfs")
    assert there(system, "/etc/zipfs/games.toml")  # nothing that the package has made
    assert not there(system, f"/etc/systemd/system/multi-user.target.wants/{UNIT}")


def test_an_upgrade_cuts_no_download(system: Container) -> None:
    """One connection, which nginx serves from the old daemon and then from the new one."""
    dpkg(system, "--install", "/root/first.deb")
    serve(system, 30_000_000)
    system.run("systemctl", "start", "nginx")
    digest = system.shell(f"sha256sum {ARCHIVE}").split()[0]
    before = json.loads(system.shell("zipfs status --json /srv/www/games"))

    client = system.start("sh", "-c", CLIENT)
    try:
        poll("some of it", lambda: there(system, "/root/download"))
        poll("a MB", lambda: int(system.shell("stat -c %s /root/download")) >= 1_000_000)
        dpkg(system, "--install", "/root/later.deb")
        poll("the new daemon", lambda: system.show(UNIT, "ActiveState") == "active")
        after = json.loads(system.shell("zipfs status --json /srv/www/games"))
        assert after["version"] == f"{before['version']}+later"
        assert after["pid"] != before["pid"]
        assert not there(system, "/root/status")  # the download is under way
        system.shell("touch /root/on")
        client.wait(SECONDS)
    finally:
        client.kill()
        client.wait()
    assert system.shell("cat /root/status") == "0\n"
    assert system.shell("cat /root/said") == "connections: 1"
    assert system.shell("sha256sum /root/download").split()[0] == digest
    assert system.shell("cut -d'\"' -f2- /var/log/nginx/games.log").startswith(
        'GET /psx/Game.zip HTTP/1.1" 200 '
    )
    assert len(system.shell("cat /var/log/nginx/games.log").splitlines()) == 1
