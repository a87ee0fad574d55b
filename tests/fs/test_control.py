"""The daemon's socket and who asks there (H4): hostile clients, stale sockets, unsafe folders."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import trio

from tests.fs.lab import NOBODY, root_only, unprivileged, until
from tests.support.waiting import SECONDS
from zipfs.errors import MountpointError
from zipfs.mount.status import client as status_client
from zipfs.mount.status import runtime
from zipfs.mount.status import server as status_server
from zipfs.system import mounts
from zipfs.system.mounts import Mount

PATH: Final = "/srv/www/games"
DOCUMENT: Final = json.dumps({"document": 1, "text": "x" * 1000}).encode()
NAME: Final = "0-999.sock"
_ASKED: Final = mounts.asked


@pytest.fixture(autouse=True)
def mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount as far as mountinfo says, and alive if asked."""
    mount = Mount("0:999", PATH, "fuse.zipfs", frozenset({"rw", f"user_id={os.geteuid()}"}))
    monkeypatch.setattr(mounts, "mounted_at", lambda path: mount if path == PATH else None)
    monkeypatch.setattr(mounts, "asked", lambda path, patience: True)


@pytest.fixture
def folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime folder; nothing else on this machine is looked at."""
    monkeypatch.setattr(runtime, "SYSTEM", str(place / "system"))
    monkeypatch.setattr(runtime, "USERS", str(place / "users"))
    found = place / "runtime"
    found.mkdir(mode=0o700)
    return found


def environment(folder: Path) -> dict[str, str]:
    return {"RUNTIME_DIRECTORY": f"{folder}:/second"}


async def tell() -> bytes:
    return DOCUMENT


@contextlib.contextmanager
def connected(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        client.connect(f"{folder}/{NAME}")
        yield client


async def ask(folder: Path) -> dict[str, object]:
    return await trio.to_thread.run_sync(status_client.ask, PATH, environment(folder))


async def refused(folder: Path) -> str:
    with pytest.raises(MountpointError) as caught:
        await ask(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- Serving ---------------------------------------------------------------------------


async def test_whoever_connects_is_told(folder: Path, nursery: trio.Nursery) -> None:
    await nursery.start(status_server.run, tell, PATH, environment(folder))
    assert await ask(folder) == json.loads(DOCUMENT)
    assert await ask(folder) == json.loads(DOCUMENT)


async def test_the_socket_comes_and_goes(folder: Path) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(status_server.run, tell, PATH, environment(folder))
        assert os.listdir(folder) == [NAME]
        mode = os.stat(folder / NAME).st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660
        nursery.cancel_scope.cancel()
    assert os.listdir(folder) == []


@root_only
async def test_without_systemd_it_is_private(folder: Path, nursery: trio.Nursery) -> None:
    system = Path(runtime.SYSTEM)
    await nursery.start(status_server.run, tell, PATH, {})
    assert stat.S_IMODE(os.stat(system / NAME).st_mode) == 0o600
    # systemd makes the folders of units in there, and their users have to get at them.
    assert stat.S_IMODE(os.stat(system).st_mode) == 0o755
    assert await ask(folder) == json.loads(DOCUMENT)


@root_only
async def test_a_users_own_folder(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)
    with unprivileged():
        async with trio.open_nursery() as nursery:
            environment = {"XDG_RUNTIME_DIR": str(folder)}
            await nursery.start(status_server.run, tell, PATH, environment)
            assert stat.S_IMODE(os.stat(folder / "zipfs").st_mode) == 0o700
            assert stat.S_IMODE(os.stat(folder / "zipfs" / NAME).st_mode) == 0o600
            nursery.cancel_scope.cancel()


@root_only
async def test_no_folder_is_no_harm(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with unprivileged():
        await status_server.run(tell, PATH, {})  # ends
        await status_server.run(tell, PATH, {"XDG_RUNTIME_DIR": "relative"})
    assert caplog.messages == []
    await status_server.run(tell, PATH, environment(folder / "not/there"))
    (said,) = caplog.messages
    why = f"no socket in {folder}/not/there: No such file or directory"
    assert said == f"`zipfs status` will get no answer: {why}"


@root_only
@pytest.mark.parametrize("how", ["writable", "theirs", "link"])
async def test_an_unsafe_folder_is_refused(
    how: str, folder: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = folder
    if how == "writable":
        os.chmod(folder, 0o770)  # noqa: S103 - that is the case
    elif how == "theirs":
        os.chown(folder, NOBODY, NOBODY)
    else:
        given = place / "link"
        os.symlink(folder, given)
    await status_server.run(tell, PATH, environment(given))
    assert os.listdir(folder) == []
    assert len(caplog.messages) == (how != "link")


async def test_one_that_was_left_behind_is_replaced(folder: Path, nursery: trio.Nursery) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{folder}/{NAME}")
    assert "no socket" in await refused(folder)
    await nursery.start(status_server.run, tell, PATH, environment(folder))
    assert await ask(folder) == json.loads(DOCUMENT)
    assert os.listdir(folder) == [NAME]


async def test_somebody_elses_socket_stays(folder: Path) -> None:
    """The next daemon has taken the name over already."""
    async with trio.open_nursery() as later:
        async with trio.open_nursery() as first:
            await first.start(status_server.run, tell, PATH, environment(folder))
            await later.start(status_server.run, tell, PATH, environment(folder))
            first.cancel_scope.cancel()
        assert await ask(folder) == json.loads(DOCUMENT)
        later.cancel_scope.cancel()
    assert os.listdir(folder) == []


async def test_a_path_longer_than_a_socket_may_have(place: Path, nursery: trio.Nursery) -> None:
    folder = place / ("x" * 200)
    folder.mkdir()
    await nursery.start(status_server.run, tell, PATH, environment(folder))
    assert await ask(folder) == json.loads(DOCUMENT)


async def test_clients_that_never_read_hinder_nobody(
    folder: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than are served at a time, and each with more to take than a socket holds."""
    monkeypatch.setattr(status_server, "PATIENCE", 10 * SECONDS)
    large = json.dumps({"document": 1, "text": "x" * (4 << 20)}).encode()

    async def tell() -> bytes:
        return large

    await nursery.start(status_server.run, tell, PATH, environment(folder))
    with contextlib.ExitStack() as stack:
        for _ in range(3 * status_server.CLIENTS):
            stack.enter_context(connected(folder))
            await trio.lowlevel.checkpoint()
        with trio.fail_after(SECONDS):  # less than they are given
            assert await ask(folder) == json.loads(large)


async def test_a_client_that_doesnt_take_it_is_hung_up_on(
    folder: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_server, "PATIENCE", 0.2)

    async def tell() -> bytes:
        return b"x" * (4 << 20)

    await nursery.start(status_server.run, tell, PATH, environment(folder))
    with connected(folder) as client:
        await trio.sleep(0.5)
        received = 0
        with trio.fail_after(SECONDS):
            while True:
                try:
                    piece = client.recv(1 << 20)
                except BlockingIOError:
                    await trio.sleep(0.01)
                    continue
                if not piece:
                    break
                received += len(piece)
        assert received < 4 << 20


async def test_clients_that_hang_up(folder: Path, nursery: trio.Nursery) -> None:
    await nursery.start(status_server.run, tell, PATH, environment(folder))
    for _ in range(20):
        with connected(folder):
            pass
        with connected(folder) as client:
            client.send(b"x" * 1000)  # nobody reads it
    assert await ask(folder) == json.loads(DOCUMENT)


async def test_a_defect_ends_nothing(
    folder: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [DOCUMENT]

    async def tell() -> bytes:
        return answers.pop()

    await nursery.start(status_server.run, tell, PATH, environment(folder))
    assert await ask(folder) == json.loads(DOCUMENT)
    assert "is incomplete" in await refused(folder)
    assert caplog.messages == ["unexpected error while answering `zipfs status`"]
    answers.append(DOCUMENT)
    assert await ask(folder) == json.loads(DOCUMENT)


async def test_a_defect_before_it_serves(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(status_server, "_listen", broken)
    async with trio.open_nursery() as nursery:
        await nursery.start(status_server.run, tell, PATH, environment(folder))
    assert caplog.messages == ["unexpected error; `zipfs status` will get no answer"]


async def test_no_descriptors_left(
    folder: Path,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(status_server, "_PAUSE", 0.01)
    with trio.socket.socket(socket.AF_UNIX) as some:
        kind = type(some)  # which trio doesn't name
    accept = kind.accept
    failing = 5

    async def refusing(self: trio.socket.SocketType) -> tuple[trio.socket.SocketType, object]:
        nonlocal failing
        if failing:
            failing -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return await accept(self)

    monkeypatch.setattr(kind, "accept", refusing)
    await nursery.start(status_server.run, tell, PATH, environment(folder))
    await until(lambda: not failing)
    assert await ask(folder) == json.loads(DOCUMENT)
    assert caplog.messages == ["`zipfs status` gets no answer: Too many open files"]


# -- Asking ----------------------------------------------------------------------------


@contextlib.contextmanager
def serving(folder: Path, behave: Callable[[socket.socket], object]) -> Iterator[None]:
    """Somebody who isn't zipfs serves the socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/{NAME}")
        listener.listen(8)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        behave(client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (b"", "is incomplete"),
        (b"{", "is incomplete"),
        (b"[" * 100_000, "is incomplete"),
        (b"\xff\xfe", "is incomplete"),
        (b"[1]", "is incomplete"),
        (b'{"document": 2, "version": "9.9\\u001b"}', "another version of zipfs ('9.9\\x1b')"),
        (b"{}", "another version of zipfs"),
    ],
)
async def test_answers_that_are_none(answer: bytes, wanted: str, folder: Path) -> None:
    with serving(folder, lambda client: client.sendall(answer)):
        assert wanted in await refused(folder)


async def test_an_endless_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_client, "_MAX_BYTES", 1 << 20)

    def endless(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client.sendall(b"[" * 65536)

    with serving(folder, endless):
        assert "is incomplete" in await refused(folder)


@pytest.mark.parametrize("trickling", [False, True])
async def test_no_answer(trickling: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly somebody goes on answering, the command ends."""
    monkeypatch.setattr(status_client, "PATIENCE", 0.5)
    over = threading.Event()

    def silent(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not over.wait(0.05):
                if trickling:
                    client.send(b" ")

    with serving(folder, silent):
        try:
            with trio.fail_after(SECONDS):
                assert "is alive but has not answered for" in await refused(folder)
        finally:
            over.set()


@root_only
async def test_who_serves_it_must_be_who_mounted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(folder, NOBODY, NOBODY)
    with unprivileged():
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{folder}/{NAME}")
        listener.listen(8)
    with listener:
        assert "no socket" in await refused(folder)  # root has mounted
        theirs = Mount("0:999", PATH, "fuse.zipfs", frozenset({"rw", f"user_id={NOBODY}"}))
        monkeypatch.setattr(mounts, "mounted_at", lambda path: theirs)
        monkeypatch.setattr(status_client, "PATIENCE", 0.2)
        assert "has not answered" in await refused(folder)  # they may, and don't


@root_only
@pytest.mark.parametrize("writable", [False, True])
async def test_whom_root_has_given_a_folder_may_serve_in_it(
    place: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    """As systemd does for a daemon that isn't root; unless others could have made the folder."""
    monkeypatch.setattr(status_client, "PATIENCE", 0.2)
    system = place / "system"
    system.mkdir(mode=0o755)
    system.chmod(0o777 if writable else 0o755)
    theirs = system / "games"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    with unprivileged():
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{theirs}/{NAME}")
        listener.listen(8)
    with listener:
        assert ("no socket" if writable else "has not answered") in await refused(folder)


async def test_a_mount_that_hangs_isnt_dead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_client, "PATIENCE", 0.2)
    monkeypatch.setattr(mounts, "asked", _ASKED)
    monkeypatch.setattr(mounts, "PROBE", ("sh", "-c", "exec sleep 999"))
    with trio.fail_after(SECONDS):
        assert "nobody answers" in await refused(folder)
    monkeypatch.setattr(mounts, "asked", lambda path, patience: False)
    said = await refused(folder)
    assert f"the daemon of {PATH} has died" in said
    assert f"zipfs unmount {PATH}" in said


def test_where_sockets_may_be(folder: Path, place: Path) -> None:
    system, users = Path(runtime.SYSTEM), Path(runtime.USERS)
    for unit in ("b", "a"):
        (system / unit).mkdir(parents=True)
    (system / "0-1.sock").touch()
    found = functools.partial(runtime.candidates, user=7)
    assert list(found({"RUNTIME_DIRECTORY": "/x:/y", "XDG_RUNTIME_DIR": "/z"})) == [
        "/x",
        str(system),
        f"{system}/a",
        f"{system}/b",
        "/z/zipfs",
        f"{users}/7/zipfs",
    ]
    assert list(found({"RUNTIME_DIRECTORY": str(system)}))[:2] == [str(system), f"{system}/a"]
    assert list(runtime.candidates({"XDG_RUNTIME_DIR": "z"}, None))[-1] == f"{system}/b"


@root_only
def test_folders_that_cant_be_looked_into(folder: Path) -> None:
    Path(runtime.SYSTEM).mkdir(mode=0o700)
    with unprivileged():
        found = runtime.candidates({}, 7)
        assert next(found) == runtime.SYSTEM
        assert next(found) == f"{runtime.USERS}/7/zipfs"
        with pytest.raises(PermissionError):
            next(found)


async def test_sockets_of_the_killed_are_swept_and_no_others(folder: Path) -> None:
    def bound(name: str) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.bind(f"{folder}/{name}")
        return made

    bound("0-998.sock").close()
    bound("other.sock").close()
    with bound("0-997.sock") as alive:
        alive.listen()
        async with trio.open_nursery() as nursery:
            await nursery.start(status_server.run, tell, PATH, environment(folder))
            assert set(os.listdir(folder)) == {NAME, "0-997.sock", "other.sock"}
            nursery.cancel_scope.cancel()
