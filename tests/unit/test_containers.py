"""What is said in a container, and of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from zipfs.ops.doctor.checks_container import bound, check_daemon, check_reach, possible
from zipfs.ops.doctor.findings import Finding
from zipfs.system.containers import apparmor, in_user_namespace, may_mount, reach
from zipfs.system.mounts import Mount, mounts

_TABLE = """\
600 500 0:50 / / rw - overlay overlay rw
601 600 8:1 {root} {point} rw,relatime {tags}- ext4 /dev/sda1 rw
"""


@pytest.mark.parametrize(
    ("point", "tags", "expected"),
    [
        ("/srv/www", "shared:5 ", "shared"),
        ("/srv/www", "shared:5 master:2 ", "shared"),
        ("/srv/www", "master:5 ", "kept in"),
        ("/srv/www", "", "kept in"),
        ("/srv/www/games", "shared:5 ", "own root"),  # the mount covers it
        ("/elsewhere", "shared:5 ", "own root"),
    ],
)
def test_where_a_mount_is_seen(tmp_path: Path, point: str, tags: str, expected: str) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(_TABLE.format(root="/srv/www", point=point, tags=tags))
    assert reach("/srv/www/games", list(mounts(str(file)))) == expected


@pytest.mark.parametrize(
    ("text", "apart"),
    [("0 0 4294967295\n", False), ("         0       1000          1\n", True)],
)
def test_user_namespaces(tmp_path: Path, text: str, apart: bool) -> None:
    file = tmp_path / "uid_map"
    file.write_text(text)
    assert in_user_namespace(str(file)) is apart
    assert not in_user_namespace(str(tmp_path / "none"))


def test_rights() -> None:
    assert may_mount({"CapEff": "000001ffffffffff"})
    assert not may_mount({"CapEff": "00000000a80425fb"})  # Docker's own
    assert not may_mount({})


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        ("docker-default (enforce)\n", "docker-default"),
        ("unconfined\n", ""),
        ("x (complain)\n", ""),
    ],
)
def test_apparmor(tmp_path: Path, text: str, profile: str) -> None:
    file = tmp_path / "current"
    file.write_text(text)
    assert apparmor(str(file)) == profile
    assert apparmor(str(tmp_path / "none")) == ""


ROOT = Mount("0:50", "/", "overlay")


def test_what_is_said_of_propagation() -> None:
    shared = Mount("8:1", "/srv/www", "ext4", shared=True, bound=True)
    private = shared._replace(shared=False)

    def found(*mounted: Mount, alone: bool = False) -> tuple[str, str]:
        (finding,) = check_reach("/srv/www/games", mounted, alone=alone)
        return finding.level, finding.remedy

    assert found(ROOT, shared) == ("ok", "")
    assert found(ROOT, private)[0] == "warning"
    assert "-v /srv/www:/srv/www:rshared" in found(ROOT, private)[1]
    assert found(ROOT)[0] == "note"
    assert found(ROOT, shared, alone=True)[0] == "note"


def test_a_mount_point_that_is_a_volume() -> None:
    volume = Mount("8:1", "/srv/www/games", "ext4", shared=True, bound=True)
    finding = bound("/srv/www/games", [ROOT, volume])
    assert finding is not None
    assert finding.remedy == "bind the folder above instead: -v /srv/www:/srv/www:rshared"
    assert bound("/srv/www/games", [ROOT, volume._replace(bound=False)]) is None
    assert bound("/srv/www/games", [ROOT, volume._replace(kind="fuse.zipfs")]) is None
    assert bound("/srv/www/games", [ROOT]) is None


def test_what_the_daemon_uses() -> None:
    document = {
        "library": "/library",
        "mountpoint": "/srv/www/games",
        "index": {"file": "/state/x.sqlite3", "size": 4096, "saving": True},
    }
    (index,) = check_daemon(document, "/library")
    assert (index.level, "/state/x.sqlite3" in index.what) == ("ok", True)
    library, _ = check_daemon(document, "/other")
    assert (library.name, library.level) == ("library", "note")
    assert library.remedy == "zipfs doctor /library /srv/www/games"
    (index,) = check_daemon(document | {"index": {"file": "/x", "size": 1, "saving": False}}, None)
    assert index.level == "warning"
    (index,) = check_daemon(document | {"index": None}, None)
    assert index.level == "note"


@pytest.mark.parametrize(
    ("name", "remedy", "expected"),
    [
        ("inotify", "echo 1 > /etc/sysctl.d/x", "on the host: echo 1 > /etc/sysctl.d/x"),
        ("read-ahead", "on the host: echo 1 > /sys/x", "on the host: echo 1 > /sys/x"),
        ("/dev/fuse", "modprobe fuse", "on the host: modprobe fuse"),
        ("open files", "LimitNOFILE=65536", "start the container with --ulimit nofile=65536"),
        ("user_allow_other", "echo user_allow_other >> /etc/fuse.conf", "--setuid"),
        ("fusermount3", "apt-get install fuse3", "--setuid"),
        ("mount point", "start it again, which removes the dead mount; or x", "the container"),
        ("user www-data", "chmod a+x /srv", "chmod a+x /srv"),
    ],
)
def test_remedies_are_possible_there(name: str, remedy: str, expected: str) -> None:
    found = possible(Finding(name, "warning", "what", remedy))
    assert expected in found.remedy
    assert (found.name, found.level, found.what) == (name, "warning", "what")


def test_what_a_container_needs_not() -> None:
    assert possible(Finding("mount.zipfs", "note", "isn't in /sbin")).level == "ok"
    fine = Finding("inotify", "ok", "what")
    assert possible(fine) is fine
