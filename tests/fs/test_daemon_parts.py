"""What the daemon is made of, as far as it needs no mount."""

from __future__ import annotations

import errno
import json
import logging
import os
import pwd
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
import trio
import trio.testing

from tests.fs.lab import root_only, small_disk, until
from zipfs.catalog.background.turns import Turns
from zipfs.catalog.listing.hearing import Hearing
from zipfs.catalog.tree import Catalog
from zipfs.config import Settings
from zipfs.errors import (
    ConfigError,
    FuseError,
    IndexFileError,
    LibraryError,
    MountpointError,
    ZipfsError,
)
from zipfs.library.library import Library
from zipfs.mount import daemon, mountpoint, session, stacks, watcher
from zipfs.mount.fs import Operations
from zipfs.mount.sd_notify import Notifier, watchdog_seconds
from zipfs.sealing import sealers
from zipfs.system import mounts

# -- The index's own place -------------------------------------------------------------------


INDEX: Final = "/nowhere/index"


def index_file(library: Path | str, **more: str) -> str:
    return sealers.index_file(Settings.load(None, {"library": str(library), **more}))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    return tmp_path / "state"


def test_each_library_has_an_index_of_its_own(state: Path, tmp_path: Path) -> None:
    names = ["a", "b/a", "c/a", "A", "a b", "a-b", "Ä", "\udcff", "x" * 255, "x" * 254]
    files = set()
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        file = Path(index_file(tmp_path / name))
        assert file.parent == state
        assert len(os.fsencode(file.name + ".bad-journal")) <= 255
        files.add(file)
    assert len(files) == len(names)


def test_a_library_has_one_index_by_whatever_path(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "alias").symlink_to("library")
    monkeypatch.chdir(tmp_path)
    paths = ["library", "./library/", "alias", str(tmp_path / "x" / ".." / "library")]
    assert len({index_file(path) for path in paths}) == 1


def test_an_index_that_is_named(state: Path) -> None:
    assert index_file("/", index="here") == "here"
    assert os.path.basename(index_file("/")).startswith("root-")


def test_systemd_may_name_several_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/one:{tmp_path}/two")
    assert index_file("/").startswith(f"{tmp_path}/one/")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "own"))
    assert index_file("/").startswith(f"{tmp_path}/own/zipfs/")


def test_a_sealer_out_of_settings(state: Path, library: Path) -> None:
    settings = Settings.load(None, {"library": str(library), "games": ["a/*"], "settle": 5})
    sealer = sealers.make_sealer(settings)
    sealer.index.close()
    assert sealer.policy.is_game(b"a/b")
    assert not sealer.policy.is_game(b"a")
    assert os.path.exists(sealer.index.file)


def test_nothing_is_made_before_all_is_checked(
    state: Path, library: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mountpoint, "check_fuse", lambda **_: None)
    wrong: list[tuple[dict[str, str], type[ZipfsError]]] = [
        ({"library": str(library)}, ConfigError),
        ({"library": str(place / "none"), "mountpoint": str(library)}, LibraryError),
        ({"library": str(library), "mountpoint": str(place / "none")}, MountpointError),
        ({"library": str(library), "mountpoint": str(library)}, MountpointError),
        ({"library": str(library), "mountpoint": str(place)}, MountpointError),
    ]
    for given, error in wrong:
        with pytest.raises(error):
            daemon.run(Settings.load(None, given))
    assert not state.exists()


# -- Mount points ----------------------------------------------------------------------------

MOUNTINFO = rb"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid shared:2 master:3 propagate_from:4 - proc proc rw
24 22 0:40 / /mnt/a\040b\011c\012d\134e rw - fuse.zipfs zipfs rw,user_id=0
25 22 0:41 / /mnt/dash\040-\040dash rw - fuse.sshfs host:/ rw
26 24 0:42 / /mnt/a\040b\011c\012d\134e ro - tmpfs tmpfs rw
27 22 0:43 /sub /mnt/\303\244\377 rw - fuse.zipfs - rw
28 22 0:44 / /mnt/octal\0401 rw - autofs systemd-1 rw
"""


@pytest.fixture
def mountinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_bytes(MOUNTINFO.replace(rb"\303\244\377", b"\xc3\xa4\xff"))
    real = open

    def elsewhere(file: object, *rest: object, **more: object) -> object:
        file = tmp_path / "mountinfo" if file == "/proc/self/mountinfo" else file
        return real(file, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(mounts, "open", elsewhere, raising=False)


@pytest.mark.usefixtures("mountinfo")
def test_what_is_mounted() -> None:
    found = [(mount.device, mount.path, mount.kind) for mount in mounts.mounts()]
    assert found == [
        ("254:0", "/", "ext4"),
        ("0:21", "/proc", "proc"),
        ("0:40", "/mnt/a b\tc\nd\\e", "fuse.zipfs"),
        ("0:41", "/mnt/dash - dash", "fuse.sshfs"),
        ("0:42", "/mnt/a b\tc\nd\\e", "tmpfs"),
        ("0:43", "/mnt/ä\udcff", "fuse.zipfs"),
        ("0:44", "/mnt/octal 1", "autofs"),
    ]
    top = mounts.mounted_at("/mnt/a b\tc\nd\\e")
    assert top
    assert top.kind == "tmpfs"
    assert mounts.mounted_at("/mnt") is None
    assert mounts.mounted_at("/mnt/ä\udcff")


def test_what_is_mounted_here() -> None:
    root = mounts.mounted_at("/")
    assert root
    assert mounts.mounted_at("/proc")
    assert not mounts.is_dead("/")
    assert not mounts.is_dead("/no such path")


def test_a_mount_point_that_can_be_used(place: Path, library: Path) -> None:
    (place / "point").mkdir()
    (place / "alias").symlink_to("point")
    (place / "folders").symlink_to(".")
    for path in ("point", "point/", "./point", "alias", "folders/point", "x/../point"):
        found = mountpoint.prepare(os.path.join(place, path), str(library), INDEX)
        assert found == str(place / "point")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("none", "mkdir -p"),
        ("file", "isn't a folder"),
        ("file/below", "isn't a folder"),
        ("full", "isn't empty"),
        ("dangling", "mkdir -p"),
        ("library", "choose a folder elsewhere"),
        ("library/inside", "choose a folder elsewhere"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_mount_point_that_cant(path: str, text: str, place: Path, library: Path) -> None:
    (library / "inside").mkdir()
    (place / "file").touch()
    (place / "full/of").mkdir(parents=True)
    (place / "dangling").symlink_to("nowhere")
    if path == "library":
        (library / "inside").rmdir()
    with pytest.raises(MountpointError, match=text) as caught:
        mountpoint.prepare(str(place / path), str(library), INDEX)
    assert "\n" not in str(caught.value)
    assert path in str(caught.value)


def test_nothing_is_said_of_changes_that_an_ended_mount_cant_be_told() -> None:
    def record(error: Exception | None) -> logging.LogRecord:
        info = (type(error), error, None) if error else None
        return logging.LogRecord("pyfuse3", logging.ERROR, "", 0, "", (), info)

    assert not session.is_of_a_mount(record(OSError(errno.EINVAL, "Invalid argument")))
    assert session.is_of_a_mount(record(ValueError("x")))
    assert session.is_of_a_mount(record(None))


def test_an_index_in_the_mount_is_refused_untouched(
    place: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks there waits for a daemon that hasn't begun, for ever."""
    point = place / "point"
    touched: list[object] = []
    lstat = os.lstat

    def watched(path: bytes | str, *rest: Any, **keywords: Any) -> os.stat_result:
        if os.fsencode(path).startswith(os.fsencode(point)):
            touched.append(path)
        return lstat(path, *rest, **keywords)

    monkeypatch.setattr(os, "lstat", watched)
    values = {"library": str(library), "mountpoint": str(point)}
    for index in (point / "index", point / "a/b", place / "x/../point/index"):
        settings = Settings.load(None, values | {"index": str(index)})
        with pytest.raises(IndexFileError, match="would lie in the mount point"):
            sealers.make_sealer(settings)
    assert not touched
    settings = Settings.load(None, values | {"index": str(place / "pointer/index")})
    sealers.make_sealer(settings).index.close()


def test_a_library_inside_the_mount_point(place: Path) -> None:
    with pytest.raises(MountpointError):
        mountpoint.prepare("/", str(place), INDEX)


@root_only
def test_a_mount_that_is_none_of_ours_is_left_alone(place: Path, library: Path) -> None:
    (place / "disk").mkdir()
    with small_disk(place / "disk", "64k"):
        with pytest.raises(MountpointError, match="mounted on"):
            mountpoint.prepare(str(place / "disk"), str(library), INDEX)
        assert mounts.mounted_at(str(place / "disk"))
        assert mountpoint.set_read_ahead(str(place / "none"), 128) == "the mount isn't there"
    assert mounts.mounted_at(str(place / "disk")) is None


def test_unmounting_what_isnt_mounted(place: Path) -> None:
    with pytest.raises(MountpointError, match="can't unmount"):
        mountpoint.unmount(str(place))


def refused(*_: object) -> int:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_what_fuse_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, conf = tmp_path / "fuse", tmp_path / "fuse.conf"
    monkeypatch.setattr(mountpoint, "DEVICE", str(device))
    monkeypatch.setattr(mountpoint, "FUSE_CONF", str(conf))
    with pytest.raises(FuseError, match="modprobe fuse"):
        mountpoint.check_fuse(allow_other=False)
    device.touch()
    mountpoint.check_fuse(allow_other=False)
    nobody = pwd.getpwnam("nobody").pw_uid  # a user whom each system knows
    monkeypatch.setattr(os, "geteuid", lambda: nobody)
    for text, allowed in [
        ("", False),
        ("# user_allow_other\n", False),
        ("mount_max = 1\n  user_allow_other  \n", True),
        ("\udcff\nuser_allow_other\n", True),
    ]:
        conf.write_bytes(os.fsencode(text))
        mountpoint.check_fuse(allow_other=False)
        if allowed:
            mountpoint.check_fuse(allow_other=True)
        else:
            with pytest.raises(FuseError, match="user_allow_other"):
                mountpoint.check_fuse(allow_other=True)
    conf.unlink()
    with pytest.raises(FuseError, match="user_allow_other"):
        mountpoint.check_fuse(allow_other=True)
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(FuseError, match="install the package fuse3"):
        mountpoint.check_fuse(allow_other=False)
    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(FuseError, match="0666"):
        mountpoint.check_fuse(allow_other=False)


# -- Telling the service manager ---------------------------------------------------------------


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """What ``NOTIFY_SOCKET`` says, and what listens there."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        if request.param == "abstract":
            listener.bind("\0" + path)
            yield "@" + path, listener
        else:
            listener.bind(path)
            yield path, listener


def heard(listener: socket.socket) -> list[bytes]:
    listener.setblocking(False)
    messages = []
    while True:
        try:
            messages.append(listener.recv(4096))
        except BlockingIOError:
            return messages


def test_the_service_manager_is_told(manager: tuple[str, socket.socket]) -> None:
    address, listener = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.status("looking")
    notifier.status("looking")
    notifier.ready()
    notifier.status("täglich")
    notifier.stopping()
    assert heard(listener) == [
        b"STATUS=looking",
        b"READY=1",
        "STATUS=täglich".encode(),
        b"STOPPING=1",
    ]


@pytest.mark.parametrize("address", ["", "@", "/no/such/socket", "@nobody listens", "/" * 200, "x"])
def test_nobody_is_hindered_by_a_manager_that_doesnt_listen(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address} if address else {})
    notifier.ready()
    notifier.status("x")
    notifier.stopping()


def test_a_manager_that_is_busy(manager: tuple[str, socket.socket]) -> None:
    """Its queue is full: nothing waits."""
    address, listener = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    for number in range(3000):
        notifier.status(f"{number}")
    assert heard(listener)[0] == b"STATUS=0"


# -- Stacks, and what C code says --------------------------------------------------------------


def test_what_c_code_says_is_caught(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before\n")
    with session._captured_stderr() as said:
        os.write(2, b"fuse: mount failed\n\xff")
        assert said() == ["fuse: mount failed", "\ufffd"]
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"


def test_no_signal_interrupts_the_mounting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """libfuse 3.17 waits for a program, and takes EINTR for a mount that failed."""
    seen = []

    def init(*_: object) -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGHUP)
        seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        assert not heard

    heard: list[int] = []
    kept = signal.signal(signal.SIGHUP, lambda number, _: heard.append(number))
    monkeypatch.setattr(session.pyfuse3, "init", init)
    try:
        session.Session(cast(Operations, None), str(tmp_path), set()).begin()
        assert seen[0] >= set(session.ENDING)
        assert heard == [signal.SIGHUP]  # and is not lost
    finally:
        signal.signal(signal.SIGHUP, kept)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(session.ENDING)


async def test_the_stacks_of_all_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    async def a_task_of_this_test() -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(a_task_of_this_test)
        await trio.testing.wait_all_tasks_blocked()
        stacks._dump_tasks()
        nursery.cancel_scope.cancel()
    said = capsys.readouterr().err
    assert "a_task_of_this_test" in said
    assert "sleep_forever" in said


def test_streams_without_a_descriptor(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w", encoding="ascii") as stream:
        assert stacks.has_descriptor(stream)
    assert not stacks.has_descriptor(stream)
    assert not stacks.has_descriptor(None)
    assert stacks.has_descriptor(sys.__stdout__)


def test_the_limit_on_open_files_is_raised() -> None:
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        limit = daemon._raise_limit()
        assert limit == (hard if hard != resource.RLIM_INFINITY else 1 << 20)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# -- Told of changes -------------------------------------------------------------------------


async def test_an_error_about_changes_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """H4: it happens in a call that trio makes by itself, and would end all of it."""

    class Broken:
        told = 0
        returned = trio.Event()
        hearing = Hearing(lambda: None, lambda: None)
        presence = SimpleNamespace(is_gone=False)
        turns = Turns()

        def changed(self, paths: Iterable[bytes]) -> None:
            self.told += 1
            raise LookupError

    catalog = Broken()
    settings = Settings.load(None, {"library": str(tmp_path)})
    async with trio.open_nursery() as nursery:
        library = Library(str(tmp_path))
        nursery.start_soon(watcher.follow, settings, library, cast("Catalog", catalog))
        await until(lambda: catalog.hearing.is_complete)  # now it is watched
        (tmp_path / "new").touch()
        await until(lambda: bool(catalog.told))
        nursery.cancel_scope.cancel()
    assert "unexpected error about changes in the library" in caplog.text


def test_a_descriptor_is_kept_by_the_service_manager(manager: tuple[str, socket.socket]) -> None:
    address, listener = manager
    with tempfile.TemporaryFile() as file:
        file.write(b"content")
        file.flush()
        assert Notifier({"NOTIFY_SOCKET": address}).keep(file.fileno(), "fuse")
    message, descriptors, _, _ = socket.recv_fds(listener, 4096, 4)
    assert message == b"FDSTORE=1\nFDNAME=fuse\nFDPOLL=0"
    (descriptor,) = descriptors
    assert os.pread(descriptor, 100, 0) == b"content"
    os.close(descriptor)
    Notifier({"NOTIFY_SOCKET": address}).let_go("fuse")
    assert heard(listener) == [b"FDSTOREREMOVE=1\nFDNAME=fuse"]


def test_without_a_service_manager_nothing_is_kept(tmp_path: Path) -> None:
    assert not Notifier({}).is_heard
    assert not Notifier({}).keep(0, "fuse")
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).keep(0, "fuse")


_TAKE = """
import json, os, sys
from zipfs.mount.sd_notify import handed_over
def is_open(number):
    try:
        return bool(os.fstat(number))
    except OSError:
        return False
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[1]))
found = handed_over(["fuse", "state"])
open_now = [number for number in (3, 4, 5) if is_open(number)]
contents = {name: os.pread(number, 100, 0).decode() for name, number in found.items()}
inherited = any(os.get_inheritable(number) for number in found.values())
rest = [name for name in os.environ if name.startswith("LISTEN_")]
print(json.dumps([contents, inherited, open_now, rest]))
"""


@pytest.mark.parametrize(
    ("names", "pid", "found"),
    [
        ("other:fuse:fuse", 0, [{"fuse": "file 2"}, False, [5], []]),
        ("fuse:other:other", 0, [{"fuse": "file 0"}, False, [3], []]),
        ("state:other:fuse", 0, [{"state": "file 0", "fuse": "file 2"}, False, [3, 5], []]),
        ("fuse:state:fuse", 0, [{"state": "file 1", "fuse": "file 2"}, False, [4, 5], []]),
        ("fuse", 0, [{"fuse": "file 0"}, False, [3], []]),
        ("a:b:c", 0, [{}, False, [], []]),
        ("fuse:fuse:fuse", 1, [{}, False, [3, 4, 5], []]),  # somebody else's
    ],
)
def test_the_newest_descriptor_of_that_name_is_taken(
    names: str, pid: int, found: list[object], tmp_path: Path
) -> None:
    """sd_listen_fds(3): from 3 on, for the process that ``LISTEN_PID`` names."""
    files = []
    for number in range(3):
        path = tmp_path / str(number)
        path.write_text(f"file {number}")
        files.append(str(path))
    environment = os.environ | {"LISTEN_FDS": "3", "LISTEN_FDNAMES": names}
    script = 'exec 3<"$1" 4<"$2" 5<"$3"; exec "$4" -c "$5" "$6"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *files, sys.executable, _TAKE, str(pid)],
        env=environment,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == found


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_says_how_often(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog_seconds(environment) == seconds
