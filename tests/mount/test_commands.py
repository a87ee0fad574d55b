"""``zipfs index`` and ``zipfs inspect``, and what they have in common with a mount."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from bench.mount import zipfs_program
from bench.process import start
from tests.support.libraries import content, expected, make_file, make_game, tree
from tests.support.mounting import Mounts, environment, run_zipfs
from tests.support.waiting import SECONDS, poll
from zipfs import __version__
from zipfs.archive.validators import caddy_etag, nginx_etag
from zipfs.errors import EXIT_CODES

GAME = "roms/psx/Game"
COMMANDS = (
    "mount", "unmount", "index", "inspect", "status", "doctor", "verify", "prepare", "tune", "help",
)  # fmt: skip


@pytest.fixture
def game(library: Path) -> Path:
    return make_game(
        library, GAME, {"b.bin": content(3_000_000, 1), "a/[x] é.bin": content(7, 2), "c": b""}
    )


@pytest.fixture
def index(place: Path) -> Path:
    return place / "state/index.sqlite3"


# -- index ---------------------------------------------------------------------------


def test_index(game: Path, library: Path, index: Path, mount: Mounts) -> None:
    """A mount with this index has everything at once, and hashes nothing."""
    before = tree(library)
    done = run_zipfs("index", "--index", index, library)
    size = expected(game).size
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"1 archive sealed: 3 members, {size} bytes (3000007 bytes hashed now)\n"
    )
    done = run_zipfs("index", "--index", index, library)
    assert done.stdout == f"1 archive sealed: 3 members, {size} bytes (0 bytes hashed now)\n"
    mounted = mount(library, index=index)
    mounted.wait_sealed(1)
    assert not any("hash" in state for state in mounted.notifications.seen)
    assert tree(library) == before


def test_index_of_chosen_games(game: Path, library: Path, index: Path) -> None:
    make_game(library, "isos/Other", {"a": b"a", "b": b"b"})
    for globs, count in ((["isos/*"], 1), (["isos/*", "roms/*/*"], 2), (["no/*"], 0)):
        options = [f"--games={glob}" for glob in globs]
        done = run_zipfs("index", "--index", index, *options, library)
        assert done.stdout.startswith(f"{count} archive{'s' * (count != 1)} sealed: "), globs


def test_index_interrupted_and_carried_on(library: Path, index: Path) -> None:
    """Ctrl-C: status 130, and what was hashed stays hashed."""
    make_game(library, "roms/psx/Small", {"a": content(1000), "b": content(1000)})
    make_game(library, "roms/ps3/Big", {"a": 1 << 40, "b": b"b"})
    command = [zipfs_program(), "index", "--index", index, library]
    process = start(command, env=environment(), stderr=subprocess.PIPE)  # type: ignore[arg-type]

    def is_hashing() -> bool:
        assert process.poll() is None
        links = []
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                links.append(os.readlink(link))
        return str(library / "roms/ps3/Big/a") in links

    poll("the big one to be in work", is_hashing)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert said.strip() == b"zipfs: interrupted; the same command continues from here"
    os.truncate(library / "roms/ps3/Big/a", 1000)
    done = run_zipfs("index", "--index", index, library)
    assert done.returncode == 0
    assert done.stdout.startswith("2 archives sealed: 4 members, ")
    assert done.stdout.endswith("(1000 bytes hashed now)\n")


def test_index_of_a_game_that_changes(library: Path, index: Path) -> None:
    folder = make_game(library, GAME, {"a": b"a", "b": b"b"})
    make_game(library, "roms/psx/Still", {"a": b"a", "b": b"b"})
    process = subprocess.Popen(
        [zipfs_program(), "index", "--index", index, library],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None:
        make_file(folder / "a", os.urandom(8))
    said, complained = process.communicate()
    assert process.returncode == 8
    assert said.startswith("1 archive sealed: 2 members, ")
    assert complained.startswith("zipfs: 1 game could not be sealed, because it keeps changing")
    assert complained.endswith(f": {GAME}\n")


def test_progress_on_a_terminal_only(game: Path, library: Path, index: Path) -> None:
    """With rate and time left; a log file or a pipe gets nothing of it."""
    make_file(game / "big", 2 << 30)
    main, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [zipfs_program(), "index", "--index", index, library],
            env=environment({"TERM": "xterm", "COLUMNS": "100"}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=terminal,
        )
        os.close(terminal)
        shown = b""
        try:
            while data := os.read(main, 65536):
                shown += data
        except OSError:  # EIO is how a terminal's end looks like
            pass
        said, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0
    finally:
        os.close(main)
    assert said.startswith(b"1 archive sealed: 4 members, ")
    assert b"hashing" in shown
    assert b"GiB" in shown
    assert b"B/s" in shown
    assert b"0:00:0" in shown


# -- inspect -------------------------------------------------------------------------


def test_inspect_and_mount_agree(game: Path, library: Path, index: Path, mount: Mounts) -> None:
    done = run_zipfs("inspect", "--json", "--index", index, library, GAME)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    wanted = expected(game)
    status = mount(library).wait_archive(GAME).stat()
    assert told["archive"] == f"{GAME}.zip"
    assert told["format_version"] == 1
    assert told["size"] == status.st_size == wanted.size
    assert told["mtime_ns"] == status.st_mtime_ns
    assert told["inode"] == status.st_ino
    assert told["content_id"] == f"{wanted.content_id:032x}"
    assert told["etag"] == {
        "nginx": nginx_etag(status.st_mtime_ns // 10**9, status.st_size),
        "caddy 2.7 and older": caddy_etag(status.st_mtime_ns // 10**9, status.st_size),
        "caddy 2.8 and newer": caddy_etag(status.st_mtime_ns, status.st_size),
    }
    data = wanted.read(0, wanted.size)
    for number, member in enumerate(told["members"]):
        layout = wanted.layout
        assert member["name"].encode() == layout.members[number].name
        assert member["offset"] == layout.header_offset(number)
        assert member["data_offset"] == layout.data_offset(number)
        assert member["crc32"] == f"{layout.members[number].crc32:08x}"
        assert member["source"] == f"{GAME}/{member['name']}"
        assert member["mtime"] == "2020-09-13 12:26:40"
        assert data[member["offset"] :].startswith(b"PK\x03\x04")
        assert member["executable"] is False
    assert [member["size"] for member in told["members"]] == [7, 3_000_000, 0]


def test_inspect_empty_folders_and_execute_bits(library: Path, index: Path) -> None:
    folder = make_game(library, GAME, {"run.sh": b"#!", "data": b"x"})
    (folder / "run.sh").chmod(0o755)
    for name in ("saves", "a:b"):
        (folder / name).mkdir()
    inspect = ("inspect", "--index", index, "--execute-bits", library, GAME)
    told = json.loads(run_zipfs(*inspect, "--json").stdout)
    assert [
        (member["name"], member["path"], member["source"], member["executable"])
        for member in told["members"]
    ] == [
        ("a%3Ab/", "a:b", None, False),
        ("data", "data", f"{GAME}/data", False),
        ("run.sh", "run.sh", f"{GAME}/run.sh", True),
        ("saves/", "saves", None, False),
    ]
    said = run_zipfs(*inspect).stdout
    assert "a%3Ab/ is a:b in the game's folder\n" in said
    assert "saves/ is" not in said


def test_inspect_for_people(game: Path, library: Path, index: Path) -> None:
    done = run_zipfs("inspect", "--index", index, library, GAME)
    wanted = expected(game)
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        "a/[x] é.bin",
        "b.bin",
        f"{wanted.layout.members[1].crc32:08x}",
        f"size: {wanted.size} bytes",
        f"content id: {wanted.content_id:032x} (format version 1)",
        "2020-09-13 12:26:40",
        f"ETag, nginx: {nginx_etag(wanted.mtime_ns // 10**9, wanted.size)}",
    ):
        assert text in done.stdout, text


def test_inspect_by_other_names(game: Path, library: Path, index: Path) -> None:
    """By its folder, by its archive, with slashes around."""
    told = {
        run_zipfs("inspect", "--json", "--index", index, library, name).stdout
        for name in (GAME, f"{GAME}.zip", f"{GAME}/", f"/{GAME}")
    }
    assert len(told) == 1
    make_file(library / f"{GAME}.zip", b"a real one")
    for name in (GAME, f"{GAME} (folder).zip"):
        done = run_zipfs("inspect", "--json", "--index", index, library, name)
        assert json.loads(done.stdout)["archive"] == f"{GAME} (folder).zip"


def test_inspect_names_that_are_not_utf_8(library: Path, index: Path) -> None:
    make_game(library, b"roms/psx/Pok\xe9mon", {b"\xff.bin": b"1", b"b": b"2"})
    for options in ([], ["--json"]):
        done = run_zipfs("inspect", *options, "--index", index, library, b"roms/psx/Pok\xe9mon")
        assert (done.returncode, done.stderr) == (0, "")
        assert "%FF.bin" in done.stdout


def test_inspect_into_a_closed_pipe(game: Path, library: Path, index: Path) -> None:
    command = f"'{zipfs_program()}' inspect --index '{index}' '{library}' '{GAME}' | true"
    done = subprocess.run(  # noqa: S602 - a pipe is the point
        command, shell=True, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


# -- help ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("redirection", "why"),
    [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")],
)
def test_an_output_that_takes_nothing(
    redirection: str, why: str, game: Path, library: Path, index: Path
) -> None:
    """Also one that is longer than a buffer."""
    make_game(library, "roms/psx/Many", {f"{number:050}": b"" for number in range(300)})
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", zipfs_program()]
    for command in (
        ["index", "--index", index, library],
        ["verify", "--index", index, library],
        ["verify", "--json", "--index", index, library],
        ["inspect", "--index", index, library, GAME],
        ["inspect", "--json", "--index", index, library, "roms/psx/Many"],
        ["doctor", "--index", index, library],
        ["doctor", "--json", "--index", index, library],
        ["--help"],
    ):
        done = subprocess.run(
            [*shell, *command], env=environment(), stderr=subprocess.PIPE, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (1, f"zipfs: can't write the output: {why}\n")


def test_without_any_stream(game: Path, library: Path, index: Path) -> None:
    """What is done all the same isn't written into by the one nor the other."""
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", zipfs_program()]
    done = subprocess.run(
        [*command, "index", "--index", index, library], env=environment(), check=False
    )
    assert done.returncode == 1
    assert run_zipfs("index", "--index", index, library).stdout.endswith("(0 bytes hashed now)\n")


def test_help() -> None:
    general = run_zipfs("--help")
    assert general.returncode == 0
    for command in COMMANDS:
        assert command in general.stdout
        done = run_zipfs(command, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"Usage: zipfs {command} [OPTIONS]")
    assert run_zipfs("mount", "-h").stdout == run_zipfs("mount", "--help").stdout
    text = " ".join(general.stdout.split())
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in text


def test_version() -> None:
    assert run_zipfs("--version").stdout == f"zipfs, version {__version__}\n"


def test_help_tells_all_options() -> None:
    text = run_zipfs("mount", "--help").stdout
    for option in (
        "--index", "--games", "--allow-other", "--settle", "--read-ahead", "--config", "-o",
        "--log-level",
    ):  # fmt: skip
        assert option in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    done = run_zipfs(env={"_ZIPFS_COMPLETE": f"{shell}_source"})
    assert "_ZIPFS_COMPLETE" in done.stdout


# -- help ----------------------------------------------------------------------------


@pytest.mark.parametrize("pager", ["cat", "sed s/^/PAGED:/"])
def test_help_on_a_terminal(pager: str) -> None:
    """Rendered for its width, and shown by the pager."""
    main, terminal = pty.openpty()
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        process = subprocess.Popen(
            [zipfs_program(), "help", "playlists"],
            env=environment({"TERM": "xterm", "PAGER": pager, "COLUMNS": None, "LINES": None}),
            stdin=terminal,
            stdout=terminal,
            stderr=subprocess.PIPE,
        )
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # EIO is how a terminal's end looks like
            while data := os.read(main, 65536):
                shown += data
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, b"")
    finally:
        os.close(main)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n").splitlines()
    begin = "PAGED:" if pager.startswith("sed") else ""
    assert lines[0] == f"{begin}Playlists of discs (.m3u)"
    assert max(map(len, lines)) <= len(begin) + 80
    assert not any("`" in line or "<!--" in line for line in lines)


def test_help_in_a_pipe() -> None:
    """Markdown, without a pager; and an unknown topic is one line and a status."""
    done = run_zipfs("help", "romm", env={"PAGER": "false"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("# RomM")
    done = run_zipfs("help", "rommm")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "zipfs: the manual has no topic 'rommm'; the nearest: romm\n"
    done = run_zipfs("help", "--search", "xyzzy")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
