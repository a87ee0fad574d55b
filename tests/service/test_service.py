"""``zipfs@.service`` as its users have it: started, reloaded, killed, stuck, stopped, at boot."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.container import Container
from tests.support.waiting import poll

_SIZE = 40_000_000
CONFIG = """
library = "/srv/{name}"
mountpoint = "/srv/www/{name}"
index = "/var/lib/zipfs/{name}/index.sqlite3"
allow-other = true
settle = 0.2
"""


class Service:
    """An instance of the unit, with a library of one game of two discs."""

    def __init__(self, system: Container, name: str) -> None:
        self.system = system
        self.name = name
        self.unit = f"zipfs@{name}.service"
        self.archive = f"/srv/www/{name}/psx/Game.zip"
        system.shell(
            f"mkdir -p /srv/{name}/psx/Game /srv/www/{name} /etc/zipfs\n"
            f"cd /srv/{name}/psx/Game\n"
            f"for disc in 1 2; do head -c {_SIZE} /dev/urandom > $disc.bin; done"
        )
        self.configure(CONFIG.format(name=name))

    def configure(self, text: str) -> None:
        self.system.shell(f"cat > /etc/zipfs/{self.name}.toml <<'END'\n{text}\nEND")

    def drop_in(self, text: str) -> None:
        folder = f"/etc/systemd/system/{self.unit}.d"
        self.system.shell(f"mkdir -p {folder}; cat > {folder}/test.conf <<'END'\n{text}\nEND")
        self.system.run("systemctl", "daemon-reload")

    def systemctl(self, verb: str) -> None:
        done = self.system.run("systemctl", verb, self.unit, check=False)
        assert done.returncode == 0, done.stderr + self.system.journal(self.unit)

    def show(self, name: str) -> str:
        return self.system.show(self.unit, name)

    def there(self) -> bool:
        return self.system.run("test", "-e", self.archive, check=False).returncode == 0

    def wait(self) -> None:
        poll("the archive", self.there)

    def is_mounted(self) -> bool:
        return f" /srv/www/{self.name} " in self.system.shell("cat /proc/self/mountinfo")

    def digest(self) -> str:
        return self.system.shell(f"sha256sum < {self.archive}").split()[0]


@pytest.fixture
def service(system: Container, request: pytest.FixtureRequest) -> Iterator[Service]:
    """An instance that isn't started yet, called as the test; gone in the end."""
    name = "-".join(re.findall("[a-z]+", request.node.name))[-40:].strip("-")
    made = Service(system, name)
    yield made
    system.run("systemctl", "stop", made.unit, check=False)
    assert not made.is_mounted()


def test_the_daemon_has_no_right_and_the_web_server_reads_the_mount(service: Service) -> None:
    service.systemctl("start")
    service.wait()
    pid = service.show("MainPID")
    status = dict(
        line.split(":\t", 1)
        for line in service.system.shell(f"cat /proc/{pid}/status").splitlines()
    )
    zipfs = service.system.shell("id -u zipfs").strip()
    assert zipfs != "0"
    assert status["Uid"].split() == [zipfs] * 4
    for capabilities in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
        assert int(status[capabilities], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    # The hashing process, whose parent it is, has no more.
    assert service.system.run(
        "setpriv", "--reuid=www-data", "--regid=www-data", "--init-groups",
        "head", "-c", "4", service.archive,
    ).stdout == "PK\x03\x04"  # fmt: skip
    length = service.system.shell(f"curl -sSI http://127.0.0.1:8080/{service.name}/psx/Game.zip")
    size = service.system.shell(f"stat -c %s {service.archive}").strip()
    assert f"Content-Length: {size}" in length
    poll("the status line", lambda: service.show("StatusText") == "1 archives sealed")
    # And root learns how it is; others don't.
    told = json.loads(service.system.shell(f"zipfs status --json /srv/www/{service.name}"))
    assert told["pid"] == int(pid)
    asked = service.system.run(
        "zipfs", "status", f"/srv/www/{service.name}", user="www-data", check=False
    )
    assert asked.returncode == 4
    assert "no permission" in asked.stderr
    assert service.system.shell(f"stat -c '%U %a' /var/lib/zipfs/{service.name}") == "zipfs 700\n"


def test_nothing_of_the_system_can_be_written_by_it(service: Service) -> None:
    """Its own view of the system, which nsenter shares: the library and /etc are read-only."""
    service.systemctl("start")
    pid = service.show("MainPID")
    for folder in (f"/srv/{service.name}", "/etc", "/usr", "/root"):
        done = service.system.run(
            "nsenter", f"--target={pid}", "--mount", "touch", f"{folder}/new", check=False
        )
        assert done.returncode != 0
        assert "Read-only file system" in done.stderr
    inside = service.system.shell(f"nsenter --target={pid} --mount --net ls /dev /sys/class/net")
    assert "fuse" not in inside.split()
    assert "host0" not in inside.split()


def test_sighup_looks_again(service: Service) -> None:
    service.systemctl("start")
    service.wait()
    pid = service.show("MainPID")
    service.system.run("systemctl", "kill", "-s", "HUP", "--kill-whom=main", service.unit)
    poll(
        "the log to say so",
        lambda: "looking through the library again" in service.system.journal(service.unit),
    )
    assert service.show("MainPID") == pid
    assert service.there()


def test_after_kill_9_it_is_back_and_aria2c_completes(service: Service) -> None:
    service.systemctl("start")
    service.wait()
    wanted = service.digest()
    pid = service.show("MainPID")
    url = f"http://127.0.0.1:8080/{service.name}/psx/Game.zip"
    folder = f"/var/tmp/{service.name}"  # noqa: S108 - in the container
    download = service.system.start(
        "aria2c", "-x4", "-s4", "-k1M", "--max-overall-download-limit=10M", "--max-tries=0",
        "--retry-wait=1", "--max-file-not-found=60", "--file-allocation=none", "-d", folder, url,
    )  # fmt: skip
    try:
        poll(
            "some of the download",
            lambda: (
                service.system.run(
                    "sh", "-c", f"test $(stat -c %b {folder}/Game.zip) -gt 20000", check=False
                ).returncode
                == 0
            ),
        )
        assert download.poll() is None
        service.system.run("kill", "-9", pid)
        poll("it to be back", lambda: service.show("MainPID") not in (pid, "0"))
        service.wait()
        assert download.wait(120) == 0
    finally:
        download.kill()
        download.wait()
    assert service.system.shell(f"sha256sum < {folder}/Game.zip").split()[0] == wanted
    assert service.show("NRestarts") == "1"
    # Archives can be read before the manager has done the last that belongs to a start.
    poll("it to be active", lambda: service.show("ActiveState") == "active")
    # One mount, and not the dead one below it.
    mountinfo = service.system.shell("cat /proc/self/mountinfo")
    assert mountinfo.count(f" /srv/www/{service.name} ") == 1


def test_a_stuck_loop_is_ended_by_the_watchdog(service: Service) -> None:
    service.drop_in("[Service]\nWatchdogSec=4\nTimeoutAbortSec=2\n")
    service.systemctl("start")
    service.wait()
    pid = service.show("MainPID")
    service.system.run("kill", "-STOP", pid)  # nothing of it goes on, the loop included
    poll("it to be back", lambda: service.show("MainPID") not in (pid, "0"))
    service.wait()
    assert "Watchdog timeout" in service.system.journal(service.unit)


def test_the_watchdog_leaves_a_loop_alone_that_isn_t_stuck(service: Service) -> None:
    service.drop_in("[Service]\nWatchdogSec=3\n")
    service.systemctl("start")
    service.wait()
    pid = service.show("MainPID")
    for _ in range(6):
        service.digest()
        service.system.shell("sleep 1")
    assert service.show("MainPID") == pid
    assert service.show("NRestarts") == "0"


@pytest.mark.parametrize("how", ["moved", "broken", "gone"])
def test_stop_takes_away_what_was_mounted_whatever_the_config_says_by_now(
    service: Service, how: str
) -> None:
    service.systemctl("start")
    service.wait()
    if how == "moved":
        service.system.shell(f"mkdir -p /srv/www/{service.name}-new")
        service.configure(CONFIG.format(name=service.name).replace("/srv/www/", "/srv/www/new-"))
    elif how == "broken":
        service.configure("x = ")
    else:
        service.system.shell(f"rm /etc/zipfs/{service.name}.toml")
    service.systemctl("stop")
    assert not service.is_mounted()
    assert service.show("Result") == "success"


def test_another_service_with_the_same_mount_point_does_it_no_harm(service: Service) -> None:
    service.systemctl("start")
    service.wait()
    pid = service.show("MainPID")
    other = f"{service.name}2"
    service.system.shell(
        f"sed s,zipfs/{service.name}/,zipfs/{other}/, /etc/zipfs/{service.name}.toml"
        f" > /etc/zipfs/{other}.toml; systemctl daemon-reload"
    )
    unit = f"zipfs@{other}.service"
    assert service.system.run("systemctl", "start", unit, check=False).returncode != 0
    service.system.run("systemctl", "stop", unit)
    assert "something is mounted on" in service.system.journal(unit)
    assert service.there()
    assert service.show("MainPID") == pid


def test_the_capability_that_reads_everything(service: Service) -> None:
    """As the manual has it, for a library that the user zipfs may not read; for verify, too."""
    drop_in = (
        "[Service]\nAmbientCapabilities=CAP_DAC_READ_SEARCH\n"
        "CapabilityBoundingSet=CAP_DAC_READ_SEARCH\n"
    )
    service.drop_in(drop_in)
    folder = f"/etc/systemd/system/zipfs-verify@{service.name}.service.d"
    service.system.shell(f"mkdir -p {folder}; printf '{drop_in}' > {folder}/test.conf")
    service.system.shell(f"chmod -R go-rwx /srv/{service.name}; systemctl daemon-reload")
    service.systemctl("start")
    service.wait()
    service.digest()  # root may read it
    refused = service.system.run("cat", service.archive, user="www-data", check=False)
    assert "Permission denied" in refused.stderr
    unit = f"zipfs-verify@{service.name}"

    def verified() -> bool:
        service.system.run("systemctl", "reset-failed", unit, check=False)
        return service.system.run("systemctl", "start", unit, check=False).returncode == 0

    poll("the checksums to be in the index", verified)


def test_stop_leaves_nothing_and_cuts_downloads_off(service: Service) -> None:
    service.systemctl("start")
    service.wait()
    reader = service.system.start("tail", "-f", service.archive)  # open, and stays so
    try:
        service.systemctl("stop")
        assert not service.is_mounted()
        assert service.show("Result") == "success"
        assert service.show("ActiveState") == "inactive"
    finally:
        reader.kill()
        reader.wait()


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.4, 0.7])
def test_stopped_while_it_starts(service: Service, seconds: float) -> None:
    service.system.run("systemctl", "start", "--no-block", service.unit)
    service.system.shell(f"sleep {seconds}")
    service.systemctl("stop")
    assert not service.is_mounted()
    assert service.show("Result") == "success"


def test_stop_doesn_t_wait_for_a_stuck_daemon(service: Service) -> None:
    service.drop_in("[Service]\nTimeoutStopSec=2\n")
    service.systemctl("start")
    service.wait()
    service.system.run("kill", "-STOP", service.show("MainPID"))
    service.systemctl("stop")  # nobody asks the mount anything
    assert not service.is_mounted()
    assert service.show("MainPID") == "0"


def test_a_dead_mount_of_somebody_else_s_crash_is_cleared_away(service: Service) -> None:
    """Left behind by a daemon that no unit started."""
    config = f"/etc/zipfs/{service.name}.toml"
    left = service.system.start("zipfs", "mount", "--no-supervise", "--config", config)
    poll("a mount", service.is_mounted)
    service.system.shell(f"pkill -9 -f -- '[z]ipfs mount --no-supervise --config {config}'")
    left.wait()
    assert service.is_mounted()
    service.system.shell(f"rm -f /var/lib/zipfs/{service.name}/index*")  # root's now
    service.systemctl("start")
    service.wait()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("library = 5", "bad value for 'library'"),
        (
            'library = "/srv/nowhere"\nmountpoint = "/srv/www"',
            "can't read the library /srv/nowhere",
        ),
    ],
    ids=["bad", "nowhere"],
)
def test_a_wrong_config_is_one_line_in_the_journal(service: Service, wrong: str, said: str) -> None:
    service.drop_in("[Service]\nRestart=no\n")
    service.configure(wrong)
    assert service.system.run("systemctl", "start", service.unit, check=False).returncode != 0
    journal = service.system.journal(service.unit)
    assert said in journal
    assert "Traceback" not in journal


def test_the_journal_has_fields(service: Service) -> None:
    service.system.shell(f"mkfifo '/srv/{service.name}/psx/Game/pipe'")
    service.systemctl("start")
    service.wait()
    service.system.run("journalctl", "--sync")
    entries = [
        json.loads(line)
        for line in service.system.run(
            "journalctl",
            "--output=json",
            f"--unit={service.unit}",
            "ZIPFS_MESSAGE=%s is left out: %s",
        ).stdout.splitlines()
    ]
    assert len(entries) == 1  # once, however often it was looked at
    (entry,) = entries
    assert entry["PRIORITY"] == "4"
    assert entry["ZIPFS_ARG_1"] == "psx/Game/pipe"
    assert entry["ZIPFS_MOUNTPOINT"] == f"/srv/www/{service.name}"
    assert entry["SYSLOG_IDENTIFIER"] == "zipfs"
    assert entry["MESSAGE"].startswith("psx/Game/pipe is left out: ")


def test_the_library_s_disk_is_mounted_first(service: Service) -> None:
    """zipfs-generator has read the config."""
    service.system.run("systemctl", "daemon-reload")
    assert f"/srv/{service.name}" in service.show("RequiresMountsFor").split()
    assert "nginx.service" in service.show("Before").split()


def test_enabled_it_is_there_after_a_boot(service: Service) -> None:
    """After its library, a mount of fstab's, and before the web server."""
    name = service.name
    service.system.shell(f"mkdir -p /srv/of-{name}; mv /srv/{name}/psx /srv/of-{name}")
    service.system.shell(f"echo '/srv/of-{name} /srv/{name} none bind,ro 0 0' >> /etc/fstab")
    service.system.run("systemctl", "daemon-reload")
    service.systemctl("enable")
    service.system.run("systemctl", "enable", "nginx")
    service.system.power_off()
    service.system.boot()
    service.wait()
    times = [
        int(service.system.show(unit, "ActiveEnterTimestampMonotonic"))
        for unit in (
            service.system.run(
                "systemd-escape", "-p", "--suffix=mount", f"/srv/{name}"
            ).stdout.strip(),
            service.unit,
            "nginx.service",
        )
    ]
    assert times == sorted(times)
    assert 0 not in times
    url = f"http://127.0.0.1:8080/{name}/psx/Game.zip"
    fetched = service.system.shell(f"curl -sS {url} | sha256sum").split()[0]
    assert fetched == service.digest()
    service.systemctl("disable")
    service.systemctl("stop")
    service.system.shell(f"umount /srv/{name}; sed -i '/{name}/d' /etc/fstab")


def test_verify_runs_beside_the_mount(service: Service) -> None:
    """In its own sandbox, as the daemon's user, on the daemon's index."""
    service.systemctl("start")
    service.wait()
    unit = f"zipfs-verify@{service.name}"
    journal = ""

    def verified() -> bool:
        nonlocal journal
        # The checksums of the last two seconds may not be in the index yet.
        service.system.run("systemctl", "reset-failed", f"{unit}.service", check=False)
        service.system.run("systemctl", "start", f"{unit}.service", check=False)
        journal = service.system.journal(f"{unit}.service")
        return "2 files verified" in journal

    try:
        poll("the index", verified)
    except AssertionError as error:
        raise AssertionError(f"{error}: {journal[-2000:]}") from None
    service.system.run("systemctl", "start", f"{unit}.timer")
    assert service.system.show(f"{unit}.timer", "NextElapseUSecRealtime") != ""
    service.system.run("systemctl", "stop", f"{unit}.timer")


def test_make_uninstall_takes_all_of_it_away(system: Container) -> None:
    # This clone may lie where the container has a file system of its own.
    script = (Path(__file__).parents[2] / "systemd/uninstall").read_text()
    system.shell(f"cat > /root/uninstall <<'END_OF_SCRIPT'\n{script}\nEND_OF_SCRIPT")
    before = system.shell("find /usr/local /usr/sbin -name '*zipfs*' -prune").split()
    assert "/usr/local/lib/zipfs" in before
    # In a copy of the tree, since the other tests go on with this one.
    system.shell(
        "mkdir -p /tmp/tree/usr/local /tmp/tree/usr/sbin; cp -a /usr/local/bin /usr/local/lib"
        " /usr/local/share /tmp/tree/usr/local; cp -a /usr/sbin/mount.zipfs /tmp/tree/usr/sbin"
    )
    system.run("env", "DESTDIR=/tmp/tree", "bash", "/root/uninstall")
    assert system.shell("find /tmp/tree -name '*zipfs*'") == ""
