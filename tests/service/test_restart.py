"""A unit's mount outlives its daemon where another one follows, and goes where none does."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from tests.service.container import Container
from tests.service.test_service import CONFIG, Service
from tests.support.waiting import SECONDS, poll

_READER = """
import os, random, sys
path, copy, folder = sys.argv[1:]
file, right = os.open(path, os.O_RDONLY), os.open(copy, os.O_RDONLY)
size, count = os.fstat(right).st_size, 0
while not os.path.exists(f"{folder}/stop"):
    at = random.randrange(size - 65536)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # or the kernel knows it
    if os.pread(file, 65536, at) != os.pread(right, 65536, at):
        sys.exit(f"wrong bytes at {at}")
    count += 1
    with open(f"{folder}/new", "w") as told:
        told.write(str(count))
    os.rename(f"{folder}/new", f"{folder}/count")
"""
_DIES = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exit {status}'\n"


class Reader:
    """A process that has an archive open, and reads on and on from it."""

    def __init__(self, service: Service) -> None:
        self._system = service.system
        self._folder = f"/var/tmp/reader-{service.name}"  # noqa: S108 - in the container
        self._system.shell(
            f"mkdir -p {self._folder}; cp {service.archive} {self._folder}/copy\n"
            f"cat > {self._folder}/reader.py <<'END'\n{_READER}\nEND"
        )
        self._process = self._system.start(
            "sh", "-c",
            f"exec python3 {self._folder}/reader.py {service.archive} {self._folder}/copy"
            f" {self._folder} 2> {self._folder}/errors",
        )  # fmt: skip
        self.goes_on()

    def count(self) -> int:
        return int(self._system.shell(f"cat {self._folder}/count 2>/dev/null || echo 0"))

    def goes_on(self) -> None:
        """Wait until it has read something from now on, and fail if it has ended."""
        before = self.count()

        def more() -> bool:
            assert self._process.poll() is None, self.errors()
            return self.count() > before + 1  # one may have been on its way

        poll("the reader", more)

    def errors(self) -> str:
        return self._system.shell(f"cat {self._folder}/errors")

    def end(self) -> int:
        """Its status, after it was told to end."""
        self._system.shell(f"touch {self._folder}/stop")
        return self._process.wait()

    def is_cut_off(self) -> None:
        """It ends, with an error of a mount that is gone; the other if it was waiting just then."""
        poll("the reader's end", lambda: self._process.poll() is not None)
        told = self.errors()
        assert "not connected" in told or "caused connection abort" in told, told

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


@pytest.fixture
def service(system: Container, request: pytest.FixtureRequest) -> Iterator[Service]:
    """An instance that is started, called as the test; gone in the end."""
    name = "-".join(re.findall("[a-z]+", request.node.name))[-40:].strip("-")
    made = Service(system, name)
    made.systemctl("start")
    made.wait()
    yield made
    system.run("systemctl", "stop", made.unit, check=False)
    assert not made.is_mounted()


@pytest.fixture
def reader(service: Service) -> Iterator[Reader]:
    with contextlib.closing(Reader(service)) as made:
        yield made


def device(service: Service) -> str:
    """The mount, as mountinfo has it; nobody has to answer for that."""
    lines = service.system.shell("cat /proc/self/mountinfo").splitlines()
    (found,) = [line for line in lines if f" /srv/www/{service.name} " in line]
    number, _, minor, *_ = found.split()
    return f"{number} {minor}"


def back(service: Service, pid: str) -> None:
    """Wait until another daemon than *pid* is ready."""
    poll("another daemon", lambda: service.show("MainPID") not in (pid, "0"))
    poll("it to be active", lambda: service.show("ActiveState") == "active")


def nobody_hangs(service: Service) -> None:
    """No process waits in the kernel for a daemon that never comes."""
    poll(
        "all processes",
        lambda: not service.system.shell("ps -eo state=,args= | grep '^D' || true").strip(),
    )


def test_a_restart_keeps_the_mount_and_who_reads_reads_on(service: Service, reader: Reader) -> None:
    before = device(service)
    for _ in range(3):
        pid = service.show("MainPID")
        service.systemctl("restart")
        assert service.show("MainPID") != pid
        assert service.show("Result") == "success"
        assert device(service) == before
        reader.goes_on()
    assert reader.end() == 0, reader.errors()


def test_a_reload_replaces_the_daemon_without_a_pause(service: Service, reader: Reader) -> None:
    before = device(service)
    pids = {service.show("MainPID")}
    for number in (1, 2):
        service.systemctl("reload-or-restart")
        back(service, "")
        pids.add(service.show("MainPID"))
        assert len(pids) == number + 1
        assert device(service) == before
        reader.goes_on()
    assert service.show("NRestarts") == "0"
    poll("the others' end", lambda: daemons(service) == [service.show("MainPID")])
    assert "reception only permitted" not in service.system.journal(service.unit)
    # The main process is watched, and what it had stored is still there.
    pid = service.show("MainPID")
    service.system.run("kill", "-9", pid)
    back(service, pid)
    assert device(service) == before
    reader.goes_on()
    assert reader.end() == 0, reader.errors()


def daemons(service: Service) -> list[str]:
    """The processes that are daemons of the unit."""
    command = f"zipfs mount --config /etc/zipfs/{service.name}.toml"
    done = service.system.run("pgrep", "-f", command, check=False)
    return done.stdout.split()


def test_a_reload_that_fails_leaves_the_daemon(service: Service, reader: Reader) -> None:
    """Also one whose config is gone."""
    pid = service.show("MainPID")
    for spoil in ("echo 'x = ' > {}", "rm {}"):
        service.system.shell(spoil.format(f"/etc/zipfs/{service.name}.toml"))
        assert service.system.run("systemctl", "reload", service.unit, check=False).returncode
        assert service.show("MainPID") == pid
        assert service.show("ActiveState") == "active"
        reader.goes_on()
    assert reader.end() == 0, reader.errors()


_SERVERS = {
    "nginx": (8080, ""),  # a unit
    "caddy": (8081, "caddy file-server --root /srv/www --listen 127.0.0.1:8081"),
    "apache": (8082, "apache2 -D FOREGROUND -f /etc/apache-test.conf"),
    "lighttpd": (8083, "lighttpd -D -f /etc/lighttpd-test.conf"),
}
"""Port, and command; `make core` has nginx alone."""
_CONFIGS = {
    "/etc/apache-test.conf": """
ServerRoot /usr/lib/apache2
ServerName localhost
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
Listen 127.0.0.1:8082
PidFile /run/apache-test.pid
ErrorLog /dev/null
User www-data
Group www-data
DocumentRoot /srv/www
<Directory /srv/www>
Require all granted
</Directory>
""",
    "/etc/lighttpd-test.conf": """
server.document-root = "/srv/www"
server.bind = "127.0.0.1"
server.port = 8083
""",
}


@pytest.fixture
def servers(service: Service) -> Iterator[dict[str, str]]:
    """URLs by server, each of an archive of its own: what the kernel has of it no daemon is asked.

    None of them is reloaded or started again.
    """
    system = service.system
    installed = {
        name: (port, command)
        for name, (port, command) in _SERVERS.items()
        if not command or system.run("which", command.split()[0], check=False).returncode == 0
    }
    for file, text in _CONFIGS.items():
        system.shell(f"cat > {file} <<'END'\n{text}\nEND")
    for name in installed:
        system.shell(
            f"cp -r /srv/{service.name}/psx/Game /srv/{service.name}/psx/{name}\n"
            f"head -c 100000 /dev/urandom > /srv/{service.name}/psx/{name}/3.bin"
        )
        poll(
            "its archive",
            lambda name=name: (
                system.run(
                    "test", "-e", f"/srv/www/{service.name}/psx/{name}.zip", check=False
                ).returncode
                == 0
            ),
        )
    with contextlib.ExitStack() as ending:
        urls = {}
        for name, (port, command) in installed.items():
            urls[name] = f"http://127.0.0.1:{port}/{service.name}/psx/{name}.zip"
            if command:
                process = system.start(*command.split())
                ending.callback(process.wait)
                ending.callback(process.terminate)
            poll(
                name,
                lambda url=urls[name]: (
                    system.run("curl", "-sSfI", url, check=False).returncode == 0
                ),
            )
        yield urls


_UNCACHE = "import os; os.posix_fadvise(os.open({!r}, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)"


def test_downloads_survive_whatever_happens_to_the_daemon(
    service: Service, servers: dict[str, str]
) -> None:
    """One connection each. nginx has files open, and goes on with them."""
    system, name = service.system, service.name
    service.drop_in("[Service]\nWatchdogSec=6\nTimeoutAbortSec=2\n")
    service.systemctl("restart")
    archives = {server: f"/srv/www/{name}/psx/{server}.zip" for server in servers}
    wanted = {
        server: system.shell(f"sha256sum < {archive}").split()[0]
        for server, archive in archives.items()
    }
    for how in ("restart", "crash", "watchdog", "reload"):
        for archive in archives.values():  # or no daemon is asked for it
            system.run("python3", "-c", _UNCACHE.format(archive))
        said = _downloaded(service, servers, how)
        for server in servers:
            assert said[server] == f"1 {wanted[server]}", (how, server)


def _downloaded(service: Service, servers: dict[str, str], how: str) -> dict[str, str]:
    """The number of connections, and the SHA-256, of a download from each, over an event."""
    system = service.system
    files = {server: f"/var/tmp/{service.name}-{server}-{how}" for server in servers}  # noqa: S108 - in there
    downloads = {
        server: system.start(
            "sh", "-c",
            f"curl -sSf --limit-rate 4M -w '%{{num_connects}}' -o {files[server]} {url}"
            f" > {files[server]}.connections",
        )
        for server, url in servers.items()
    }  # fmt: skip
    sizes = f"stat -c %s {' '.join(files.values())} 2>/dev/null || true"
    try:

        def all_have_some() -> bool:
            found = [int(size) for size in system.shell(sizes).split()]
            return len(found) == len(files) and min(found) > 1_000_000

        poll("some of each", all_have_some)
        assert all(download.poll() is None for download in downloads.values()), how
        pid = service.show("MainPID")
        if how in ("restart", "reload"):
            service.systemctl(how)
        else:
            system.run("kill", "-9" if how == "crash" else "-STOP", pid)
        back(service, pid)
        for server, download in downloads.items():
            assert download.wait(SECONDS) == 0, (how, server)
    finally:
        for download in downloads.values():
            download.kill()
            download.wait()
    return {
        server: system.shell(
            f"echo $(cat {file}.connections) $(sha256sum < {file} | cut -d' ' -f1); rm {file}"
        ).strip()
        for server, file in files.items()
    }


def test_kill_9_again_and_again(service: Service, reader: Reader) -> None:
    before = device(service)
    for _ in range(3):
        pid = service.show("MainPID")
        service.system.run("kill", "-9", pid)
        back(service, pid)
        assert device(service) == before
        reader.goes_on()
    assert service.show("NRestarts") == "3"
    assert reader.end() == 0, reader.errors()


def test_killed_before_it_is_ready(service: Service, reader: Reader) -> None:
    before = device(service)
    pid = service.show("MainPID")
    service.system.run("kill", "-9", pid)
    poll("the next", lambda: service.show("MainPID") not in (pid, "0"))
    pid = service.show("MainPID")
    service.system.run("kill", "-9", pid)
    back(service, pid)
    assert device(service) == before
    reader.goes_on()
    assert reader.end() == 0, reader.errors()


def test_the_watchdog_keeps_it(service: Service, reader: Reader) -> None:
    service.drop_in("[Service]\nWatchdogSec=4\nTimeoutAbortSec=2\n")
    service.systemctl("restart")
    before = device(service)
    pid = service.show("MainPID")
    service.system.run("kill", "-STOP", pid)
    back(service, pid)
    assert "Watchdog timeout" in service.system.journal(service.unit)
    assert device(service) == before
    reader.goes_on()
    assert reader.end() == 0, reader.errors()


def test_a_stop_takes_it_away(service: Service, reader: Reader) -> None:
    service.systemctl("restart")  # what it has adopted, too
    reader.goes_on()
    service.systemctl("stop")
    assert not service.is_mounted()
    assert service.show("Result") == "success"
    reader.is_cut_off()
    nobody_hangs(service)
    assert service.system.run(
        "test", "-e", f"/run/zipfs/{service.name}.mount", check=False
    ).returncode


@pytest.mark.parametrize("seconds", [0, 0.1, 0.4])
def test_a_stop_amid_a_restart_takes_it_away(
    service: Service, reader: Reader, seconds: float
) -> None:
    service.system.run("systemctl", "restart", "--no-block", service.unit)
    service.system.shell(f"sleep {seconds}")
    service.systemctl("stop")
    poll("the mount to be gone", lambda: not service.is_mounted())
    reader.is_cut_off()


_STOPPED = {
    # After ExecStopPost= has heard of a restart.
    "stop-post": "ExecStopPost=/bin/sleep 4\n",
    # Before the next start.
    "auto-restart": "RestartSec=60\n",
}


@pytest.mark.parametrize("substate", list(_STOPPED))
def test_a_stop_that_no_command_hears_of_takes_it_away(
    service: Service, reader: Reader, substate: str
) -> None:
    service.drop_in("[Service]\n" + _STOPPED[substate])
    pid = service.show("MainPID")
    if substate == "stop-post":
        service.system.run("systemctl", "restart", "--no-block", service.unit)
    else:
        service.system.run("kill", "-9", pid)
    poll("the daemon's end", lambda: service.show("SubState").startswith(substate))
    if substate == "stop-post":
        command = "ps -o args= -p {} || true"
        poll(
            "ExecStopPost= to have asked",
            lambda: "sleep" in service.system.shell(command.format(service.show("ControlPID"))),
        )
    assert service.is_mounted()
    service.systemctl("stop")
    poll("the mount to be gone", lambda: not service.is_mounted())
    reader.is_cut_off()
    nobody_hangs(service)
    service.drop_in("")
    service.systemctl("start")
    service.wait()


def test_one_that_never_comes_back_takes_it_away(service: Service, reader: Reader) -> None:
    """After the limit of starts, as nobody knows before it."""
    service.drop_in(_DIES.format(status=1))
    service.system.run("kill", "-9", service.show("MainPID"))
    poll("the unit to fail", lambda: service.show("ActiveState") == "failed")
    poll("the mount to be gone", lambda: not service.is_mounted())
    reader.is_cut_off()
    nobody_hangs(service)
    assert int(service.show("NRestarts")) > 1
    service.system.run("systemctl", "reset-failed", service.unit)
    service.drop_in("")
    service.systemctl("start")
    service.wait()


def test_an_end_that_prevents_restarts_takes_it_away(service: Service, reader: Reader) -> None:
    service.drop_in(_DIES.format(status=2))
    service.system.run("kill", "-9", service.show("MainPID"))
    poll("the unit to fail", lambda: service.show("ActiveState") == "failed")
    assert not service.is_mounted()
    reader.is_cut_off()
    nobody_hangs(service)


def test_one_that_can_t_adopt_gets_a_new_mount(service: Service, reader: Reader) -> None:
    once = f"/var/lib/zipfs/{service.name}/once"
    program = f"exec zipfs mount --config /etc/zipfs/{service.name}.toml"
    service.drop_in(
        "[Service]\nExecStart=\n"
        f"ExecStart=/bin/sh -c 'if rm {once} 2>/dev/null; then exit 96; fi; {program}'\n"
    )
    service.system.shell(f"touch {once}; chmod a+w {once}")
    pid = service.show("MainPID")
    service.system.run("kill", "-9", pid)
    reader.is_cut_off()
    poll("another daemon", lambda: service.show("ActiveState") == "active")
    service.wait()
    assert service.system.run("test", "-e", once, check=False).returncode


def test_changed_options_make_a_new_mount(service: Service, reader: Reader) -> None:
    text = CONFIG.format(name=service.name)
    service.configure(text + 'options = ["fsname=other"]\n')
    service.systemctl("restart")
    reader.is_cut_off()
    service.wait()
    assert "is mounted anew" in service.system.journal(service.unit)
    mountinfo = service.system.shell("cat /proc/self/mountinfo").splitlines()
    lines = [line for line in mountinfo if f" /srv/www/{service.name} " in line]
    assert [line.split(" - ")[1].split()[1] for line in lines] == ["other"]


def test_options_that_are_no_matter_of_the_mount_don_t(service: Service, reader: Reader) -> None:
    before = device(service)
    service.configure(CONFIG.format(name=service.name) + "read-timeout = 20\n")
    service.systemctl("restart")
    assert device(service) == before
    reader.goes_on()
    assert reader.end() == 0, reader.errors()


@pytest.mark.parametrize("config", ["wrong", "gone"])
def test_a_restart_without_a_config(service: Service, reader: Reader, config: str) -> None:
    if config == "wrong":
        service.configure("x = ")
    else:
        service.system.run("rm", f"/etc/zipfs/{service.name}.toml")
    assert service.system.run("systemctl", "restart", service.unit, check=False).returncode
    reader.is_cut_off()
    poll("the unit to fail", lambda: service.show("ActiveState") == "failed")
    assert not service.is_mounted()
    nobody_hangs(service)
    why = "isn't valid TOML" if config == "wrong" else "No such file"
    assert why in service.system.journal(service.unit)
