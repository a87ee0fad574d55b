"""``zipfs doctor``, run as people run it, on what it is to find."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.mount import zipfs_program
from tests.support.faultfs import faultfs
from tests.support.libraries import content, make_file, make_game, tree
from tests.support.mounting import Mounts, environment, run_zipfs
from tests.support.users import NOBODY, needs_root
from tests.support.waiting import poll
from zipfs.errors import EXIT_CODES
from zipfs.system.containers import in_container

GAME = "roms/psx/Game"
WEB = "daemon"
"""Stands for the web server's user: not all systems have one of those."""
PROBLEM = 9


@pytest.fixture
def game(library: Path) -> Path:
    return make_game(library, GAME, {"a": content(70_000, 1), "b": content(100, 2)})


class Seen:
    """What the doctor said of something."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.stderr = done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout, done.stderr
        self.whole: dict[str, Any] = json.loads(done.stdout)
        self.findings: list[dict[str, str]] = self.whole["findings"]
        for finding in self.findings:
            # Whatever isn't right has a remedy, unless it is just so.
            assert finding["remedy"] or finding["level"] in ("ok", "note"), finding

    def of(self, name: str) -> dict[str, str]:
        """The first finding of the check *name*."""
        return next(finding for finding in self.findings if finding["name"] == name)

    def level(self, name: str) -> str:
        return self.of(name)["level"]

    @property
    def problems(self) -> list[str]:
        return [f["name"] for f in self.findings if f["level"] == "problem"]


def see(*arguments: str | Path, place: Path, **options: Any) -> Seen:
    """What the doctor says, with an index in *place* and nobody but :data:`WEB` to read."""
    given = ["--json", "--index", place / "state/index.sqlite3", "--web-user", WEB]
    return Seen(run_zipfs("doctor", *given, *arguments, **options))


# -- A machine and a library ---------------------------------------------------------


def test_nothing_is_wrong(fuse: None, game: Path, library: Path, place: Path) -> None:
    """And nothing is touched."""
    before = tree(library)
    seen = see(library, place=place)
    assert (seen.status, seen.stderr, seen.problems) == (0, "", [])
    assert seen.whole["healthy"] is True
    names = {finding["name"] for finding in seen.findings}
    assert names >= {
        "/dev/fuse", "kernel", "pyfuse3", "libfuse", "open files", "library", "clock", "inotify",
        "read-ahead", "index", f"user {WEB}",
    }  # fmt: skip
    assert "5 folders" not in seen.of("library")["what"]
    assert seen.of("library")["what"].startswith("4 folders, 2 files, ")
    assert seen.of("inotify")["what"].startswith("4 folders to watch")
    assert tree(library) == before
    assert not (place / "state").exists()


def test_the_machine_alone(fuse: None) -> None:
    seen = Seen(run_zipfs("doctor", "--json"))
    assert (seen.status, seen.problems) == (0, [])
    assert "index" not in {finding["name"] for finding in seen.findings}


def test_lines_where_there_is_no_terminal(game: Path, library: Path, place: Path) -> None:
    done = run_zipfs("doctor", "--index", library / "x", "--web-user", WEB, library)
    assert done.returncode == PROBLEM
    lines = done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    found = next(n for n, line in enumerate(lines) if line.startswith("problem index: "))
    assert lines[found + 1].strip() == "remedy: name another place with --index FILE"
    assert done.stderr.startswith("zipfs: 1 problem found; the first: index: ")
    assert done.stderr.count("\n") == 1


def test_a_table_on_a_terminal(game: Path, library: Path, place: Path) -> None:
    ours, its = pty.openpty()
    command = [zipfs_program(), "doctor", "--index", library / "x", "--web-user", WEB, library]
    env = environment({"COLUMNS": "100", "TERM": "xterm"})
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=env) as process:
        os.close(its)
        said = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # EIO: nobody has the other end any more
                break
            if not piece:
                break
            said += piece
    os.close(ours)
    assert process.returncode == PROBLEM
    text = said.decode()
    assert "\x1b[" in text
    assert "→ name another place with --index FILE" in text


def test_strict(place: Path, library: Path) -> None:
    """An empty library is a warning, and a problem to who wants it so."""
    assert see(library, place=place).level("library") == "warning"
    assert see(library, place=place).status == 0
    strict = see("--strict", library, place=place)
    assert (strict.status, strict.whole["healthy"]) == (PROBLEM, False)


def test_the_status_is_documented() -> None:
    assert PROBLEM in EXIT_CODES
    assert f"{PROBLEM}  {EXIT_CODES[PROBLEM].split(';')[0]}" in run_zipfs("--help").stdout
    assert run_zipfs("doctor", "--help").stdout.startswith("Usage: zipfs doctor [OPTIONS] ")


# -- Bad input -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"), [("missing", "there is no folder"), ("file", "isn't a folder")]
)
def test_no_library(fuse: None, place: Path, make: str, words: str) -> None:
    """That is a finding, and the machine is looked at all the same."""
    if make == "file":
        make_file(place / make, b"")
    seen = see(place / make, place=place)
    assert (seen.status, seen.problems) == (PROBLEM, ["library"])
    assert words in seen.of("library")["what"]
    assert seen.level("/dev/fuse") == "ok"


def test_wrong_usage(place: Path, library: Path) -> None:
    make_file(place / "broken.toml", b"library = [")
    make_file(place / "unknown.toml", b"library = '/'\nlibary = '/'\n")
    for arguments, words in (
        (["--config", place / "missing.toml"], "can't read the config file"),
        (["--config", place / "broken.toml"], "isn't valid TOML"),
        (["--config", place / "unknown.toml"], "unknown key"),
        (["--web-user", "nobody-knows", library], "there is no user 'nobody-knows'"),
    ):
        done = run_zipfs("doctor", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_config_file(game: Path, library: Path, place: Path) -> None:
    (place / "m").mkdir()
    config = place / "games.toml"
    config.write_text(
        f'library = "{library}"\nmountpoint = "{place}/m"\nindex = "{library}/index"\n'
        'read-ahead = 0\nwatch = "poll"\n'
    )
    seen = Seen(run_zipfs("doctor", "--json", "--web-user", WEB, "--config", config))
    assert seen.problems == ["index"]
    assert seen.level("mount point") == "ok"
    assert "as set" in seen.of("read-ahead")["what"]
    assert "inotify" not in {finding["name"] for finding in seen.findings}


@needs_root
def test_a_config_file_that_may_not_be_read(
    place: Path, library: Path, public_program: str
) -> None:
    make_file(place / "closed.toml", b"")
    (place / "closed.toml").chmod(0o600)
    done = run_zipfs(
        "doctor", "--config", place / "closed.toml", user=NOBODY, program=[public_program]
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


# -- Who may read --------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("closed", ["", "roms", GAME])
def test_a_closed_folder(fuse: None, game: Path, library: Path, place: Path, closed: str) -> None:
    (library / closed).chmod(0o700)
    seen = see(library, place=place)
    assert (seen.status, seen.problems) == (PROBLEM, [f"user {WEB}"])
    remedy = seen.of(f"user {WEB}")["remedy"]
    assert str(library / closed) in remedy
    subprocess.run(remedy, shell=True, check=True)  # noqa: S602 - it is to be one that works
    seen = see(library, place=place)
    assert (seen.status, seen.problems) == (0, [])


@needs_root
def test_a_closed_folder_above_the_mount_point(
    fuse: None, game: Path, library: Path, place: Path
) -> None:
    (place / "www/m").mkdir(parents=True)
    (place / "www").chmod(0o700)
    seen = see(library, place / "www/m", place=place)
    assert (seen.status, seen.problems) == (PROBLEM, [f"user {WEB}"])
    assert seen.of(f"user {WEB}")["remedy"] == f"chmod a+x {place}/www"
    (place / "www").chmod(0o711)
    assert see(library, place / "www/m", place=place).status == 0


@needs_root
def test_a_closed_folder_above_the_library(
    fuse: None, game: Path, library: Path, place: Path
) -> None:
    """No hindrance for who looks into the mount."""
    (place / "state").mkdir()
    place.chmod(0o700)
    try:
        seen = see(library, place=place)
    finally:
        place.chmod(0o755)
    assert seen.status == 0
    said = [f["level"] for f in seen.findings if f["name"] == f"user {WEB}"]
    assert said == ["ok", "note"]


@needs_root
def test_a_mount_that_lets_nobody_in(game: Path, library: Path, place: Path, mount: Mounts) -> None:
    mounted = mount(library)
    mounted.wait_sealed(1)
    seen = see(library, mounted.path, place=place)
    assert (seen.status, seen.problems) == (PROBLEM, [f"user {WEB}"])
    assert "--allow-other" in seen.of(f"user {WEB}")["remedy"]
    assert seen.level("mount point") == "ok"


@needs_root
def test_a_mount_that_lets_others_in(game: Path, library: Path, place: Path, mount: Mounts) -> None:
    make_file(library / "roms/gb/single.gb", b"single")
    mounted = mount(library, "--allow-other")
    mounted.wait_sealed(1)
    seen = see(library, mounted.path, place=place)
    assert (seen.status, seen.problems) == (0, [])
    assert seen.of(f"user {WEB}")["what"] == "lists the mount, and reads each of 2 files tried"
    (library / "roms/gb/single.gb").chmod(0o600)

    def refused() -> bool:
        return see(library, mounted.path, place=place).level(f"user {WEB}") == "warning"

    poll("it to be refused", refused)
    remedy = see(library, mounted.path, place=place).of(f"user {WEB}")["remedy"]
    assert remedy == f"chmod -R a+rX {library}"


@needs_root
def test_a_root_that_can_t_be_others(game: Path, library: Path, place: Path, mount: Mounts) -> None:
    """As in some containers: what can't be tried is told by permission bits."""
    caps = ["--inh-caps=-all", "--bounding-set=-setuid,-setgid"]
    options: dict[str, Any] = {
        "program": ["setpriv", *caps, "--", zipfs_program()],
        "place": place,
    }
    assert "by permission bits" in see(library, **options).of(f"user {WEB}")["what"]
    mounted = mount(library, "--allow-other")
    mounted.wait_sealed(1)
    seen = see(library, mounted.path, **options)
    assert (seen.status, seen.level(f"user {WEB}")) == (0, "note")


@needs_root
def test_ordinary_users(
    game: Path, library: Path, place: Path, public_program: str, public_device: None
) -> None:
    """What isn't theirs to know they are told of as such."""
    (place / "state").mkdir()
    os.chown(place / "state", NOBODY, NOBODY)
    options: dict[str, Any] = {"user": NOBODY, "program": [public_program], "place": place}
    seen = see(library, **options)
    assert (seen.status, seen.problems) == (0, [])
    assert seen.level("fusermount3") == "ok"
    assert seen.level("read-ahead") == "note"
    conf = Path("/etc/fuse.conf")
    allowed = conf.exists() and "user_allow_other" in conf.read_text().split("\n")
    point = place / "m"
    point.mkdir()
    seen = see(library, point, **options)
    assert (seen.problems, seen.of("mount point")["remedy"]) == (
        ["mount point"],
        f"chown {NOBODY} {point}",
    )
    os.chown(point, NOBODY, NOBODY)
    assert see(library, point, **options).level("mount point") == "ok"
    seen = see("--allow-other", library, **options)
    assert seen.level("user_allow_other") == ("ok" if allowed else "problem")
    library.chmod(0o700)
    seen = see(library, **options)
    assert (seen.status, seen.problems) == (PROBLEM, ["library"])
    assert "can't be listed by this user" in seen.of("library")["what"]
    library.chmod(0o755)
    place.chmod(0o755)
    (place / "state").chmod(0o500)
    seen = see(library, **options)
    assert seen.problems == ["index"]


@needs_root
def test_a_source_that_lets_nobody_else_in(
    fuse: None, game: Path, library: Path, place: Path, public_program: str, public_device: None
) -> None:
    """It isn't a closed folder, and chmod is no remedy."""
    source = place / "source"
    make_game(source, "Far", {"a": b"a", "b": b"b"})
    (place / "state").mkdir()
    os.chown(place / "state", NOBODY, NOBODY)
    options: dict[str, Any] = {"user": NOBODY, "program": [public_program], "place": place}
    with faultfs(source, library) as (point, _):
        seen = see(library, **options)
        assert seen.problems == ["file system fuse.faultfs"]
        assert "allow_other" in seen.of("file system fuse.faultfs")["remedy"]
        assert seen.of("library")["what"].startswith("4 folders, ")
        seen = see(point, **options)
        assert seen.problems == ["library"]
        assert "allow_other" in seen.of("library")["remedy"]


@needs_root
def test_lists(fuse: None, game: Path, library: Path, place: Path) -> None:
    """Their folder is another place to be looked at."""
    config = place / "games.toml"
    config.write_text(f'library = "{library}"\nlists = "{place}/lists"\n')
    seen = see("--config", config, place=place)
    assert seen.problems == ["lists"]
    (place / "lists").mkdir()
    seen = see("--config", config, place=place)
    assert seen.problems == []
    assert seen.of("inotify")["what"].startswith("5 folders to watch")


def test_without_the_binding(library: Path, place: Path) -> None:
    """A broken installation is what a doctor is for."""
    program = (
        "import sys; sys.modules['pyfuse3'] = None; from zipfs.cli.cli import main;"
        " sys.argv[0] = 'zipfs'; main()"
    )
    seen = see(library, place=place, program=[sys.executable, "-c", program])
    assert "pyfuse3" in seen.problems
    remedy = "build the image anew" if in_container() else "pip install 'pyfuse3>=3.4'"
    assert remedy in seen.of("pyfuse3")["remedy"]


# -- The mount -----------------------------------------------------------------------


@needs_root
def test_what_the_kernel_was_told(game: Path, library: Path, place: Path, mount: Mounts) -> None:
    mounted = mount(library, "--read-ahead", "256")
    mounted.wait_sealed(1)
    seen = see(library, mounted.path, place=place)
    assert seen.level("read-ahead") == "note"
    assert seen.of("read-ahead")["what"].startswith("256 KiB instead of 1024: ")
    remedy = seen.of("read-ahead")["remedy"].removesuffix(", as root")
    remedy = remedy.removeprefix("on the host: ")
    subprocess.run(remedy, shell=True, check=True)  # noqa: S602 - it is to be one that works
    assert see(library, mounted.path, place=place).level("read-ahead") == "ok"
    assert seen.level("max_background") == "ok"


@needs_root
def test_a_mount_whose_daemon_hangs_or_has_died(
    game: Path, library: Path, place: Path, mount: Mounts
) -> None:
    mounted = mount(library, "--allow-other")
    mounted.wait_sealed(1)
    mounted.process.send_signal(signal.SIGSTOP)
    try:
        seen = see(library, mounted.path, place=place)
    finally:
        mounted.process.send_signal(signal.SIGCONT)
    assert seen.problems == ["mount point"]
    assert "doesn't answer" in seen.of("mount point")["what"]
    mounted.kill()
    seen = see(library, mounted.path, place=place)
    assert seen.problems == ["mount point"]
    assert "has died" in seen.of("mount point")["what"]
    assert run_zipfs("unmount", mounted.path).returncode == 0


@needs_root
def test_a_library_on_a_mount_that_hangs(
    game: Path, library: Path, place: Path, mount: Mounts
) -> None:
    """Its index has no name then: that is made of the library's own, links followed."""
    mounted = mount(library, "--allow-other")
    mounted.wait_sealed(1)
    (place / "m2").mkdir()
    mounted.process.send_signal(signal.SIGSTOP)
    try:
        for named in (mounted.path, mounted.path / "roms/psx"):
            seen = Seen(run_zipfs("doctor", "--json", "--web-user", WEB, named, place / "m2"))
            assert seen.problems == ["library"]
            assert "doesn't answer" in seen.of("library")["what"]
            assert seen.level("mount point") == "ok"
            assert seen.of("index")["remedy"] == "name it with --index FILE"
    finally:
        mounted.process.send_signal(signal.SIGCONT)


# -- File systems below the library --------------------------------------------------


def test_a_view_of_the_kernel_is_no_library(place: Path) -> None:
    seen = see("/proc", place=place)
    assert (seen.status, seen.stderr.count("\n")) == (PROBLEM, 1)
    assert seen.problems == ["file system proc"]
    assert not any("chmod" in finding["remedy"] for finding in seen.findings if finding["remedy"])


@needs_root
def test_file_systems_are_named(fuse: None, game: Path, library: Path, place: Path) -> None:
    (library / "roms/mem").mkdir()
    source = place / "source"
    make_game(source, "Far", {"a": b"a", "b": b"b"})
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", library / "roms/mem"], check=True)
    try:
        with faultfs(source, library) as (point, _):
            seen = see(library, place=place)
    finally:
        subprocess.run(["umount", library / "roms/mem"], check=True)
    memory = seen.of("file system tmpfs")
    assert memory["what"].startswith(f"{library}/roms/mem is memory")
    foreign = seen.of("file system fuse.faultfs")
    assert foreign["what"].startswith(f"{point} sends no events: it is scanned every ten")
    assert (memory["level"], foreign["level"]) == ("note", "note")


def timed(arguments: Sequence[str | Path], place: Path) -> Seen:
    return see(*arguments, place=place)


@needs_root
def test_a_source_that_hangs(fuse: None, game: Path, library: Path, place: Path) -> None:
    """It is named, wherever in the library it is; all else is looked at."""
    source = place / "source"
    make_game(source, "deep/Far", {"a": b"a", "b": b"b"})
    with faultfs(source, library) as (point, faults):
        faults.hang("", "open")
        seen = timed([library], place)
        assert seen.problems == ["file system fuse.faultfs"]
        assert seen.of("file system fuse.faultfs")["what"].startswith(f"{point} doesn't answer")
        assert seen.of("library")["what"].startswith("4 folders, ")
        assert seen.level("index") == "ok"
        # The library itself.
        seen = timed([point], place)
        assert seen.problems == ["library"]
        assert "doesn't answer" in seen.of("library")["what"]
        faults.clear()
        # A folder of it.
        faults.hang("deep/Far", "open")
        seen = timed([library], place)
        assert seen.problems == ["library"]
        assert f"{point}/deep/Far, or something in it, doesn't answer" in seen.of("library")["what"]
        faults.clear()
        # One file of it: to read it, that is.
        faults.hang("deep/Far/a", "read")
        seen = timed([library], place)
        assert seen.problems == ["file states"]
        faults.clear()
        assert see(library, place=place).problems == []


@needs_root
def test_a_source_that_has_died(game: Path, library: Path, place: Path, mount: Mounts) -> None:
    """A mount of ours does for one: its library is another one."""
    other = place / "other"
    make_game(other, GAME, {"a": b"a", "b": b"b"})
    (library / "dead").mkdir()
    mounted = mount(other, mountpoint=library / "dead")
    mounted.wait_sealed(1)
    seen = see(library, place=place)
    assert seen.level("file system fuse.zipfs") == "warning"
    mounted.kill()
    seen = see(library, place=place)
    assert seen.problems == ["file system fuse.zipfs"]
    remedy = f"what was mounted there has died: umount -l {library}/dead, and mount it again"
    assert seen.of("file system fuse.zipfs")["remedy"] == remedy
    subprocess.run(["umount", "-l", library / "dead"], check=True)
    assert see(library, place=place).problems == []
