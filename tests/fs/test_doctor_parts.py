"""The checks of ``zipfs doctor``, each on real files: no mount of ours is needed."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.libraries import make_file, make_game, tree
from tests.support.users import NOBODY, OTHER, needs_root
from tests.support.waiting import poll
from zipfs.errors import ConfigError, UnansweredError
from zipfs.library.filestate import BLOCK
from zipfs.ops.doctor import (
    checks_changes,
    checks_index,
    checks_library,
    checks_mount,
    checks_system,
    doctor,
)
from zipfs.ops.doctor.checks_access import WebUser, check, web_users
from zipfs.ops.doctor.findings import Finding
from zipfs.ops.doctor.headcount import SAMPLE, Headcount, count
from zipfs.ops.doctor.remedies import chmod_remedy
from zipfs.system.events.inotify import Inotify
from zipfs.system.mounts import Mount, mounts
from zipfs.system.subprocesses import FailedError, Identity, ask, ask_each
from zipfs.system.users import identity_of

# From Python 3.12 on; what is forked here touches no lock that another thread may hold.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

DAEMON = Identity("daemon", OTHER, OTHER, (OTHER,))


@contextlib.contextmanager
def tmpfs(folder: Path, *options: str) -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(["mode=755", *options]), "tmpfs"]
    subprocess.run([*command, str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# -- Questions -----------------------------------------------------------------------


def test_an_answer() -> None:
    assert ask(lambda a, b: {"sum": a + b, "name": os.fsdecode(b"\xff")}, 1, 2) == {
        "sum": 3,
        "name": "\udcff",
    }


def test_a_long_answer() -> None:
    """Longer than a pipe holds."""
    assert ask(lambda: "x" * 1_000_000) == "x" * 1_000_000


def test_an_error_is_the_same_here() -> None:
    with pytest.raises(FileNotFoundError, match="No such file"):
        ask(os.stat, "/nothing/there")


def test_a_mistake_shows_its_traceback() -> None:
    with pytest.raises(FailedError, match="ZeroDivisionError"):
        ask(lambda: 1 // 0)


def test_nobody_waits_without_end(tmp_path: Path) -> None:
    """And the process that didn't answer is gone."""
    file = tmp_path / "pid"

    def sleep() -> None:
        file.write_text(str(os.getpid()))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)

    with pytest.raises(UnansweredError, match=r"within 0\.5 seconds"):
        ask(sleep, patience=0.5)

    def is_gone() -> bool:
        ask(os.getpid)  # which also takes in those that were killed before, once they have ended
        try:
            os.kill(int(file.read_text()), 0)
        except ProcessLookupError:
            return True
        return False

    poll("the end of the process", is_gone)


def test_many_answers_each_have_their_time() -> None:
    def slowly() -> Iterator[int]:
        for number in range(4):
            time.sleep(0.3)
            yield number

    assert list(ask_each(slowly, patience=1.0)) == [0, 1, 2, 3]


def test_nothing_of_ours_is_held(tmp_path: Path) -> None:
    """A process that is left behind keeps no pipe open that somebody reads to its end."""
    with open(tmp_path / "file", "wb") as file:
        held = ask(lambda: [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                            if os.path.exists(f"/proc/self/fd/{n}")])  # fmt: skip
        assert file.name not in held
    assert {path for path in held if path.startswith("/dev")} == {os.devnull}
    assert sum(path.startswith("pipe:") for path in held) == 1


@needs_root
def test_somebody_else_asks(tmp_path: Path) -> None:
    def who() -> list[object]:
        DAEMON.become()
        return [os.getresuid(), os.getresgid(), os.getgroups()]

    assert ask(who) == [[OTHER] * 3, [OTHER] * 3, [OTHER]]
    assert os.geteuid() == 0


# -- Counting ------------------------------------------------------------------------


def test_count(library: Path) -> None:
    make_game(library, "roms/psx/G", {"a": BLOCK + 1, "b": b"b", "deep/er/c": 3 * BLOCK})
    (library / "roms/link").symlink_to("psx")
    os.mkfifo(library / "roms/fifo")
    before = tree(library)
    found = count(str(library))
    assert (found.folders, found.files, found.complete) == (6, 3, True)
    assert found.size == 4 * BLOCK + 2
    assert found.blocks == 5
    assert found.index_size() == 3 * 150 + 5 * 8
    assert set(found.sample) == {f"roms/psx/G/{name}" for name in ("a", "b", "deep/er/c")}
    assert (found.closed, found.future, found.stuck) == (0, 0, "")
    assert tree(library) == before


def test_count_without_what_is_mounted_there(library: Path) -> None:
    make_game(library, "roms/psx/G", {"a": b"a"})
    make_game(library, "roms/dc/H", {"b": b"b"})
    found = count(str(library), [f"{library}/roms/dc"])
    assert (found.folders, found.files) == (4, 1)


def test_a_sample_is_spread_evenly(library: Path) -> None:
    for folder in range(10):
        make_game(library, f"roms/psx/G{folder}", {f"{n:03}": b"" for n in range(100)})
    found = count(str(library))
    assert found.files == 1000
    assert SAMPLE // 2 <= len(found.sample) <= SAMPLE
    assert {path.split("/")[2] for path in found.sample} == {f"G{n}" for n in range(10)}


def test_counting_ends_when_the_time_is_up(library: Path) -> None:
    for folder in range(300):
        make_game(library, f"roms/psx/G{folder}", {"a": b"", "b": b""})
    found = count(str(library), seconds=0)
    assert not found.complete
    assert found.folders <= 2
    assert found.stuck == ""


def test_dates_of_the_future(library: Path) -> None:
    now = time.time()
    make_game(library, "roms/psx/G", {"a": b"a"}, mtime=now + 1e6)
    make_game(library, "roms/psx/G", {"b": b"b"})
    found = count(str(library))
    assert found.future_names == ["roms/psx/G/a"]
    assert found.newest == pytest.approx(now + 1e6, abs=1)
    (finding,) = checks_library.check_dates(found, str(library), 2.0, now, fixed=False)
    assert finding.level == "note"


@needs_root
def test_closed_to_us(library: Path) -> None:
    game = make_game(library, "roms/psx/G", {"a": b"a", "b": b"b"})
    closed = make_game(library, "roms/psx/H", {"a": b"a"})
    (game / "a").chmod(0o600)
    closed.chmod(0o700)

    def as_daemon() -> list[object]:
        DAEMON.become()
        found = count(str(library))
        return [found.closed, sorted(found.closed_names), found.files]

    assert ask(as_daemon) == [2, ["roms/psx/G/a", "roms/psx/H"], 2]


# -- Who may read --------------------------------------------------------------------


def test_web_users() -> None:
    (named,) = web_users(["daemon"], wanted=False)
    assert named == WebUser(identity_of("daemon"), serious=True)
    (numbered,) = web_users(["54321:54322"], wanted=False)
    assert numbered.identity == Identity("54321:54322", 54321, 54322, (54322,))
    with pytest.raises(ConfigError, match="nobody-knows"):
        web_users(["nobody-knows"], wanted=False)
    assert all(user.serious for user in web_users([], wanted=True))


def levels(library: Path, *, serious: bool = True) -> list[str]:
    user = WebUser(DAEMON, serious)
    found = count(str(library))
    return [finding.level for finding in check([user], str(library), found, None, None)]


@needs_root
def test_permission_bits_of_a_library(place: Path, library: Path) -> None:
    game = make_game(library, "roms/psx/G", {"a": b"a", "b": b"b"})
    assert levels(library) == ["ok"]
    (game / "a").chmod(0o640)
    assert levels(library) == ["warning"]
    os.chown(game / "a", 0, OTHER)
    assert levels(library) == ["ok"]
    game.chmod(0o700)
    assert levels(library) == ["problem"]
    assert levels(library, serious=False) == ["warning"]
    game.chmod(0o755)
    library.chmod(0o711)
    assert levels(library) == ["problem"]
    library.chmod(0o755)
    place.chmod(0o700)
    assert levels(library) == ["ok", "note"]
    place.chmod(0o755)


@needs_root
def test_chmod_is_a_remedy_for_owners_only(place: Path) -> None:
    theirs = place / "it's"
    theirs.mkdir()
    os.chown(theirs, OTHER, OTHER)

    def remedy_of(uid: int) -> str:
        os.setuid(uid)
        return chmod_remedy(str(theirs), below=True)

    assert chmod_remedy(str(theirs), "a+rx") == f"chmod a+rx '{place}/it'\"'\"'s'"
    assert ask(remedy_of, OTHER).startswith("chmod -R a+rX ")
    assert ask(remedy_of, NOBODY).startswith("only its owner, daemon, can change it; ")
    with tmpfs(place / "fixed", "ro") as fixed:
        assert chmod_remedy(str(fixed)).startswith("it is mounted read-only; ")


def test_a_file_that_can_not_be_read() -> None:
    """Nothing is mapped at the beginning of a process' memory: EIO. That isn't our failure."""
    findings = list(
        checks_library.check_states("/proc/self", Headcount(files=1, sample=["mem"]), 2.0)
    )
    (finding,) = findings
    assert (finding.name, finding.level) == ("reading", "warning")
    assert finding.what == "mem can't be read: Input/output error"


def test_nobody_serves() -> None:
    (finding,) = check([], None, None, None, None)
    assert finding.level == "note"


# -- Changes -------------------------------------------------------------------------


def test_watches_in_use(library: Path) -> None:
    for number in range(20):
        (library / f"{number}").mkdir()
    uid = os.geteuid()
    before = checks_changes.in_use(uid)
    watched = Inotify(os.fsencode(library))
    try:
        watched.add()
        now = checks_changes.in_use(uid)
    finally:
        watched.close()
    # Other programs watch as well, and more or fewer by now.
    assert now.instances >= 1
    assert now.watches >= 21
    assert now.own <= before.own + 5


def test_limits_of_this_machine() -> None:
    limits = checks_changes.limits()
    assert limits.watches
    assert limits.instances
    assert limits.queue


# -- The index -----------------------------------------------------------------------


def index(file: Path, root: Path | None = None, found: Headcount | None = None) -> Finding:
    *others, finding = checks_index.check(
        str(file), str(root) if root else None, found, list(mounts())
    )
    assert all(other.level == "warning" for other in others)
    return finding


def test_an_index_that_can_be_made(place: Path) -> None:
    finding = index(place / "a/b/index.sqlite3")
    assert finding.level == "ok"
    assert finding.what.endswith(f"; the folder {place}/a/b will be made, for this user alone")
    assert "will be made" not in index(place / "index.sqlite3").what
    assert list(place.iterdir()) == []


def test_an_index_that_is_there(place: Path) -> None:
    make_file(place / "index.sqlite3", 12345)
    finding = index(place / "index.sqlite3")
    assert finding.level == "ok"
    assert "beside its 12.1 KiB" in finding.what


def test_no_place_for_an_index(place: Path, library: Path) -> None:
    make_file(place / "file", b"")
    assert index(library / "x/index.sqlite3", library).level == "problem"
    assert index(place / "file/index.sqlite3").level == "problem"
    assert index(library).level == "problem"
    (place / "link").symlink_to(library)
    assert index(place / "link/index.sqlite3", library).level == "problem"


@needs_root
def test_an_index_in_a_closed_folder(place: Path) -> None:
    (place / "closed").mkdir(mode=0o755)

    def as_nobody() -> list[str]:
        os.setuid(NOBODY)
        finding = index(place / "closed/index.sqlite3")
        return [finding.level, finding.remedy]

    level, remedy = ask(as_nobody)
    assert level == "problem"
    assert remedy.startswith(f"chown {NOBODY} {place}/closed")

    def deeper() -> list[str]:
        os.setuid(NOBODY)
        finding = index(place / "closed/a/b/index.sqlite3")
        return [finding.level, finding.remedy]

    level, remedy = ask(deeper)
    assert level == "problem"
    # And whoever has the folder above has it still.
    assert remedy.startswith(f"as root: install -d -m 700 -o {NOBODY} {place}/closed/a/b, or ")


@needs_root
def test_space_for_an_index(place: Path) -> None:
    with tmpfs(place / "small", "size=1600k") as small:
        few, many = Headcount(files=10), Headcount(files=20_000)
        assert index(small / "index", None, few).level == "warning"  # it fits, its log doesn't
        assert index(small / "index", None, many).level == "problem"
    with tmpfs(place / "full", "nr_inodes=2") as full:
        finding = index(full / "index")
        assert finding.level == "problem"
        assert "inodes" in finding.what


@needs_root
def test_an_index_in_memory(place: Path) -> None:
    with tmpfs(place / "memory") as memory:
        first, second = checks_index.check(str(memory / "index"), None, None, list(mounts()))
    assert (first.level, second.level) == ("warning", "ok")
    assert "in memory" in first.what


# -- The machine ---------------------------------------------------------------------


def device(file: Path, filesystems: Path, **options: bool) -> list[tuple[str, str]]:
    findings = checks_system.check_device(str(file), str(filesystems), **options)
    return [(finding.level, finding.remedy) for finding in findings]


def test_device(tmp_path: Path) -> None:
    known, unknown = tmp_path / "known", tmp_path / "unknown"
    known.write_text("nodev\tsysfs\n\text4\nnodev\tfuse\nnodev\tfusectl\n")
    unknown.write_text("nodev\tsysfs\n\text4\nnodev\tfusectl\n")
    there = tmp_path / "fuse"
    there.touch()
    assert device(there, known) == [("ok", "")]
    assert device(there, unknown) == [("ok", ""), ("problem", "modprobe fuse")]
    assert device(tmp_path / "missing", known) == [("problem", "modprobe fuse")]
    ((level, remedy),) = device(tmp_path / "missing", known, container=True)
    assert (level, "--device /dev/fuse" in remedy) == ("problem", True)


@needs_root
def test_a_device_without_a_driver(tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text("nodev\tfuse\n")
    # A number for local use, which nobody has here (the kernel's devices.txt).
    os.mknod(tmp_path / "fuse", 0o666 | stat.S_IFCHR, os.makedev(240, 254))
    try:
        os.close(os.open(tmp_path / "fuse", os.O_RDWR))
        pytest.skip("this machine has such a device")
    except OSError:
        pass
    ((level, _),) = device(tmp_path / "fuse", known)
    assert level == "problem"


def mounting(tmp_path: Path, status: str, conf: str = "") -> dict[str, str]:
    (tmp_path / "status").write_text(status)
    (tmp_path / "fuse.conf").write_text(conf)
    findings = checks_system.check_mounting(
        str(tmp_path / "status"),
        allow_other=True,
        container=False,
        conf=str(tmp_path / "fuse.conf"),
    )
    return {finding.name: finding.level for finding in findings}


@needs_root
def test_root_may_mount_with_a_capability(tmp_path: Path) -> None:
    assert mounting(tmp_path, "CapEff:\t000001ffffffffff\n") == {"right to mount": "ok"}
    assert mounting(tmp_path, "CapEff:\t00000000a80425fb\n") == {"right to mount": "problem"}


@needs_root
def test_users_mount_by_a_helper(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That has to be setuid root, and may only be in vain."""
    helper = place / "fusermount3"
    helper.touch()
    monkeypatch.setenv("PATH", str(place))
    status = "NoNewPrivs:\t0\n"

    def as_nobody(status: str, conf: str) -> dict[str, str]:
        os.setuid(NOBODY)
        return mounting(place / "own", status, conf)

    (place / "own").mkdir()
    os.chown(place / "own", NOBODY, NOBODY)
    told = ask(as_nobody, status, "")  # not executable: not found
    assert told == {"fusermount3": "problem", "user_allow_other": "problem"}
    helper.chmod(0o755)
    assert ask(as_nobody, status, "user_allow_other\n") == {
        "fusermount3": "problem",
        "user_allow_other": "ok",
    }
    helper.chmod(0o4755)
    assert ask(as_nobody, status, "")["fusermount3"] == "ok"
    assert ask(as_nobody, "NoNewPrivs:\t1\n", "")["fusermount3"] == "problem"


def test_versions_of_what_is_installed() -> None:
    found = {finding.name: finding for finding in checks_system.check_versions()}
    assert {"kernel", "Python", "pyfuse3", "trio", "libfuse"} <= set(found)
    assert found["libfuse"].what.startswith("3.")
    assert {finding.level for finding in found.values()} <= {"ok", "note"}


def test_programs(tmp_path: Path) -> None:
    def found() -> dict[str, str]:
        findings = checks_system.check_programs(str(tmp_path), (str(tmp_path),))
        return {finding.name: finding.level for finding in findings}

    assert found() == {"program": "note", "mount.zipfs": "note"}
    for name in ("zipfs", "mount.zipfs"):
        (tmp_path / name).touch(mode=0o755)
    assert found() == {"program": "ok"}


# -- A mount's settings --------------------------------------------------------------


def test_what_the_kernel_was_told(tmp_path: Path) -> None:
    mount = Mount("0:77", "/srv/www/games", "fuse.zipfs")
    bdi, connections = tmp_path / "bdi", tmp_path / "connections"
    make_file(bdi / "0:77/read_ahead_kb", b"128\n")
    make_file(connections / "77/max_background", b"12\n")

    def found(read_ahead: int) -> list[tuple[str, str]]:
        findings = checks_mount.check_tuning(mount, read_ahead, str(bdi), str(connections))
        return [(finding.level, finding.remedy) for finding in findings]

    first, second = found(1024)
    assert first == ("note", f"echo 1024 > {bdi}/0:77/read_ahead_kb, as root")
    assert second == ("note", f"echo 512 > {connections}/77/max_background, as root")
    (bdi / "0:77/read_ahead_kb").write_text("1024\n")
    (connections / "77/max_background").write_text("512\n")
    assert [level for level, _ in found(1024)] == ["ok", "ok"]
    assert [level for level, _ in found(0)] == ["ok"]


def test_places_to_mount_on(place: Path, library: Path) -> None:
    make_game(library, "roms/psx/G", {"a": b"a"})
    (place / "empty").mkdir()
    make_file(place / "file", b"")

    def level(point: Path) -> str:
        return checks_mount.locate(str(point), str(library), list(mounts()))[1].level

    assert level(place / "empty") == "ok"
    assert level(place / "missing") == "problem"
    assert level(place / "file") == "problem"
    assert level(library) == "problem"
    (library / "inside").mkdir()
    assert level(library / "inside") == "problem"
    assert level(place) == "problem"


@needs_root
def test_something_else_is_mounted(place: Path) -> None:
    with tmpfs(place / "point") as point:
        found, finding = checks_mount.locate(str(point), None, list(mounts()))
    assert found.mount is None
    assert finding.level == "problem"
    assert "tmpfs is mounted" in finding.what


# -- All together --------------------------------------------------------------------


def test_what_the_machine_refuses_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    def refused() -> Iterator[Finding]:
        yield Finding("a", "ok", "fine")
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    (finding,) = doctor._safely("the check", refused)
    assert finding.what == "can't be checked: Invalid argument"
    assert caplog.text == ""


def test_a_check_that_fails_itself(caplog: pytest.LogCaptureFixture) -> None:
    """It takes no other away, and isn't hidden."""

    def wrong() -> Iterator[Finding]:
        yield Finding("a", "ok", "fine")
        raise ValueError("two\nlines")

    (finding,) = doctor._safely("the check", wrong)
    assert (finding.name, finding.level) == ("the check", "warning")
    assert finding.what == "the check itself failed: ValueError: two"
    assert "Traceback" in caplog.text
