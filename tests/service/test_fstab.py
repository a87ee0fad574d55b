"""``mount -t zipfs`` and lines of fstab(5), with mount(8) and systemd themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.service.container import Container
from tests.support.waiting import poll


class Place:
    """A library with one game, and a mount point."""

    def __init__(self, system: Container, name: str) -> None:
        self.system = system
        self.library = f"/srv/lib {name}"  # a blank is \040 in fstab
        self.path = f"/srv/mnt-{name}"
        self.archive = f"{self.path}/psx/Game.zip"
        self.unit = system.shell(f"systemd-escape -p --suffix=mount {self.path}").strip()
        self.automount = self.unit.removesuffix("mount") + "automount"
        system.shell(
            f"mkdir -p '{self.library}/psx/Game' {self.path}; cd '{self.library}/psx/Game'\n"
            "echo one > 1.bin; echo two > 2.bin"
        )

    def fstab(self, options: str) -> None:
        """Have a line in fstab, and systemd read it."""
        library = self.library.replace(" ", "\\040")
        line = f"{library} {self.path} zipfs {options},settle=0.2 0 0"
        self.system.shell(f"printf '%s\\n' '{line}' >> /etc/fstab")
        self.system.run("systemctl", "daemon-reload")

    def mount(self, *arguments: str, check: bool = True) -> str:
        done = self.system.run("mount", *arguments, check=check)
        return done.stdout + done.stderr

    def wait(self) -> None:
        poll(
            "the archive",
            lambda: self.system.run("test", "-e", self.archive, check=False).returncode == 0,
        )

    def mounted(self) -> list[str]:
        """The lines of mountinfo about it."""
        lines = self.system.shell("cat /proc/self/mountinfo").splitlines()
        return [line for line in lines if f" {self.path} " in line and " - fuse.zipfs " in line]

    def end(self) -> None:
        self.system.run("systemctl", "stop", self.automount, check=False)
        self.system.run("umount", self.path, check=False)
        self.system.shell(f"sed -i '\\|{self.path}|d' /etc/fstab; systemctl daemon-reload")
        poll("the mount to be gone", lambda: not self.mounted())


@pytest.fixture
def place(system: Container, request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(system, "-".join(re.findall("[a-z]+", request.node.name))[-40:].strip("-"))
    yield made
    made.end()


def test_mount_t_zipfs_returns_once_it_is_mounted(place: Place) -> None:
    said = place.mount("-t", "zipfs", place.library, place.path, "-o", "allow_other,settle=0.2")
    assert said == ""
    assert len(place.mounted()) == 1
    place.wait()
    assert (
        place.system.run("head", "-c", "4", place.archive, user="www-data").stdout == "PK\x03\x04"
    )
    # findmnt and df name the library.
    found = place.system.shell(f"findmnt -n -o SOURCE,FSTYPE,OPTIONS {place.path}")
    assert found.startswith(place.library)
    assert "fuse.zipfs" in found
    assert {"ro", "nosuid", "nodev"} <= set(re.split("[, ]+", found))
    place.system.run("umount", place.path)
    assert not place.mounted()
    poll(
        "the daemon to end",
        lambda: place.path not in place.system.shell("ps -eo args | grep '[m]ount.zipfs' || true"),
    )


def test_uid_gid_and_umask(place: Place) -> None:
    options = "allow_other,uid=www-data,gid=33,umask=027,settle=0.2"
    place.mount("-t", "zipfs", place.library, place.path, "-o", options)
    place.wait()
    assert place.system.shell(f"stat -c '%u %g %a' {place.archive}") == "33 33 640\n"
    assert place.system.shell(f"stat -c '%u %g %a' {place.path}/psx") == "33 33 750\n"
    assert place.system.run("cat", place.archive, user="nobody", check=False).returncode == 1


def test_setuid_is_who_the_daemon_is(place: Place) -> None:
    options = "allow_other,setuid=zipfs,settle=0.2"
    place.mount("-t", "zipfs", place.library, place.path, "-o", options)
    place.wait()
    users = place.system.shell(f"ps -eo user,args | grep '[m]ount.zipfs.*{place.path}'")
    assert set(re.findall("^[a-z]+", users, re.MULTILINE)) == {"zipfs"}
    assert (
        json.loads(place.system.shell(f"zipfs status --json {place.path}"))["mountpoint"]
        == place.path
    )
    place.system.run("umount", place.path)
    assert not place.mounted()


def test_setuid_that_can_t_leaves_no_mount(place: Place) -> None:
    """The mount is there before the daemon finds that its user can't write the index."""
    options = "allow_other,setuid=nobody,index=/root/index.sqlite3"
    said = place.mount("-t", "zipfs", place.library, place.path, "-o", options, check=False)
    assert "can't write the index /root/index.sqlite3" in said
    assert not place.mounted()


def test_fstab_and_mount_a(place: Place) -> None:
    place.fstab("allow_other,nofail")
    place.mount("-a")
    place.wait()
    assert place.mount("-a") == ""  # is mounted already, as mount(8) sees it
    assert len(place.mounted()) == 1
    place.system.run("umount", place.path)


def test_noauto_waits_for_mount_by_its_path(place: Place) -> None:
    place.fstab("allow_other,noauto,_netdev")
    place.mount("-a")
    assert not place.mounted()
    place.mount(place.path)
    place.wait()
    # systemd has it for a mount of its own: before network file systems are gone, it is.
    poll(
        "systemd to notice",
        lambda: place.system.show(place.unit, "ActiveState") == "active",
    )
    assert "remote-fs-pre.target" in place.system.show(place.unit, "After").split()
    place.system.run("systemctl", "stop", place.unit)
    assert not place.mounted()


def test_automount_mounts_when_somebody_looks(place: Place) -> None:
    requires = place.library.replace(" ", "\\040")
    place.fstab(f"allow_other,noauto,x-systemd.automount,x-systemd.requires-mounts-for={requires}")
    place.system.run("systemctl", "start", place.automount)
    assert not place.mounted()
    listed = place.system.shell(f"ls {place.path}")  # waits until it is mounted
    assert listed == "psx\n"
    assert len(place.mounted()) == 1
    place.wait()
    place.system.run("systemctl", "stop", place.unit)
    assert not place.mounted()
    assert place.system.shell(f"ls {place.path}") == "psx\n"  # and again
    place.system.run("systemctl", "stop", place.automount)


def test_an_automount_whose_daemon_was_killed_comes_back(place: Place) -> None:
    place.fstab("allow_other,noauto,x-systemd.automount")
    place.system.run("systemctl", "start", place.automount)
    place.system.run("ls", place.path)
    place.system.shell(f"pkill -9 -f '[m]ount.zipfs .*{place.path}'")
    # The dead mount is just being removed: a job that meets with that fails, the next doesn't.
    place.system.shell(f"systemctl restart '{place.unit}' || systemctl restart '{place.unit}'")
    assert place.system.shell(f"ls {place.path}") == "psx\n"
    place.system.run("systemctl", "stop", place.automount)


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ("alow_other", 1, "unknown mount option 'alow_other'"),
        ("settle=soon", 1, "'soon' is not a valid float"),
        ("uid=nosuchuser", 1, "there is no user 'nosuchuser'"),
        ("remount", 1, "remount"),
    ],
)
def test_a_wrong_option_is_one_line(place: Place, options: str, status: int, said: str) -> None:
    done = place.system.run("mount.zipfs", place.library, place.path, "-o", options, check=False)
    assert done.returncode == status
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_library_is_a_mount_that_failed(place: Place) -> None:
    done = place.system.run("mount", "-t", "zipfs", "/srv/none", place.path, check=False)
    assert done.returncode == 32
    assert "can't read the library /srv/none" in done.stderr


def test_what_is_logged_afterwards_is_in_the_journal(place: Place) -> None:
    place.system.shell(f"mkfifo '{place.library}/psx/Game/pipe'")
    place.mount("-t", "zipfs", place.library, place.path, "-o", "settle=0.2")
    place.wait()
    place.system.run("journalctl", "--sync")
    found = place.system.shell(f"journalctl -o cat ZIPFS_MOUNTPOINT={place.path}")
    assert "psx/Game/pipe is left out" in found
