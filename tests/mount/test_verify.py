"""``zipfs verify`` as it is run: by people, by a timer, beside a mount."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.mount import zipfs_program
from bench.process import start
from tests.support.disks import Disk, disk
from tests.support.faultfs import Faults
from tests.support.libraries import content, expected_archive, make_file, make_game, tree
from tests.support.mounting import Mounts, environment, run_zipfs
from tests.support.users import program_for_everybody
from tests.support.waiting import SECONDS, poll

MIB = 1 << 20
GAME = "roms/psx/Game"
LARGE = f"{GAME}/large"
FILES = {"large": content(9 * MIB + 5, "large"), "small": content(5000, "small")}
TOTAL = sum(map(len, FILES.values()))

Source = tuple[Path, Faults]


@pytest.fixture
def index(place: Path) -> Path:
    return place / "state/index.sqlite3"


def indexed(library: Path, index: Path) -> None:
    done = run_zipfs("index", "--index", index, library)
    assert done.returncode == 0, done.stderr


def verified(library: Path, index: Path, *options: str, status: int = 0) -> tuple[Any, str]:
    """What ``zipfs verify --json`` says, and its standard error."""
    done = run_zipfs("verify", "--json", "--index", index, *options, library)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout), done.stderr


def rows(index: Path) -> list[Any]:
    with contextlib.closing(sqlite3.connect(index)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [
            row
            for table in ("files", "blocks", "issued")
            for row in db.execute(f"SELECT * FROM {table}")  # noqa: S608 - constants
        ]


# -- Real rot ------------------------------------------------------------------------


@pytest.fixture
def rotting(place: Path) -> Iterator[Disk]:
    with disk(place) as made:
        yield made


def test_a_bit_that_flips_on_the_disk(rotting: Disk, index: Path) -> None:
    """The file, the block, the archive, both checksums; after it is restored all is well."""
    library = rotting.folder
    folder = make_game(library, GAME, FILES)
    make_game(library, "roms/psx/Other", {"1": content(3000, 1), "2": b"2"})
    indexed(library, index)
    said, complained = verified(library, index)
    assert (said["findings"], complained) == ([], "")
    assert said["last_round"]["verified"] == {"files": 4, "bytes": TOTAL + 3001}
    before = tree(library, contents=False)
    known = index.read_bytes(), index.stat().st_mtime_ns

    rotting.unmount()
    offset = 6 * MIB + 12345
    rotting.flip(FILES["large"][offset - 50 : offset + 50], 50)
    rotting.mount()
    assert tree(library, contents=False) == before  # no time has moved

    said, complained = verified(library, index, status=10)
    (found,) = said["findings"]
    rotten = (folder / "large").read_bytes()
    assert rotten != FILES["large"]
    crc32 = zlib.crc32
    assert found["path"] == LARGE
    assert found["kind"] == "damaged"
    assert found["archives"] == [f"{GAME}.zip"]
    assert found["expected"]["crc32"] == f"{crc32(FILES['large']):08x}"
    assert found["found"]["crc32"] == f"{crc32(rotten):08x}"
    assert found["blocks"] == [{"offset": 6 * MIB, "length": MIB}]
    line, last = complained.splitlines()
    assert f"ERROR: {LARGE} is damaged at MiB 6-7 of 10: CRC-32 " in line
    assert f"it is in {GAME}.zip; restore it from a backup" in line
    assert last.startswith("zipfs: 1 file isn't what it was")
    assert last.endswith(f": {LARGE}")
    assert (index.read_bytes(), index.stat().st_mtime_ns) == known
    assert tree(library, contents=False) == before

    make_file(folder / "large", FILES["large"])
    said, _ = verified(library, index)
    assert said["findings"] == []
    assert said["last_round"]["changed"] == 1
    indexed(library, index)
    said, _ = verified(library, index)
    assert said["last_round"]["verified"]["files"] == 4


def test_rot_that_the_cache_hides(rotting: Disk, index: Path, mount: Mounts) -> None:
    """Beside a mount that has read it, and goes on serving the right bytes from memory."""
    library = rotting.folder
    folder = make_game(library, GAME, FILES)
    mounted = mount(library, index=index)
    archive = mounted.wait_archive(GAME)
    wanted = expected_archive(folder)
    assert archive.read_bytes() == wanted
    rotting.flip(FILES["large"][5000:5100], 3)
    assert (folder / "large").read_bytes() == FILES["large"]
    said, _ = verified(library, index, status=10)
    assert [found["path"] for found in said["findings"]] == [LARGE]
    assert said["findings"][0]["blocks"] == [{"offset": 0, "length": MIB}]
    assert archive.read_bytes() == wanted
    mounted.stop()  # its library isn't to be unmounted beneath it


# -- A source that fails on command --------------------------------------------------


def test_wrong_bytes_wrong_once_and_none(faulty: Source, library: Path, index: Path) -> None:
    source, faults = faulty
    make_game(library, GAME, FILES)
    make_game(library, "roms/psx/Other", FILES)
    make_game(library, "roms/psx/Third", FILES)
    indexed(source, index)
    faults.rot(LARGE, 3 * MIB)
    faults.rot("roms/psx/Other/large", 8 * MIB + 1, once=True)
    faults.break_at("roms/psx/Third/large", 2 * MIB + 7)
    said, complained = verified(source, index, status=10)
    kinds = {found["path"]: (found["kind"], found["blocks"]) for found in said["findings"]}
    assert kinds == {
        LARGE: ("damaged", [{"offset": 3 * MIB, "length": MIB}]),
        "roms/psx/Other/large": ("unstable", [{"offset": 8 * MIB, "length": MIB}]),
        "roms/psx/Third/large": ("unreadable", [{"offset": 2 * MIB, "length": MIB}]),
    }
    assert len(complained.splitlines()) == 4
    assert "Third/large can't be read (Input/output error) at MiB 2-3 of 10" in complained
    faults.clear()
    assert verified(source, index)[0]["findings"] == []


def test_the_same_for_people(faulty: Source, library: Path, index: Path) -> None:
    source, faults = faulty
    make_game(library, GAME, FILES)
    indexed(source, index)
    done = run_zipfs("verify", "--index", index, source)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"2 files verified: {TOTAL} bytes, in ")
    assert done.stdout.endswith(f" s ({TOTAL} bytes read now)\n")
    make_file(library / GAME / "new", b"new")
    make_file(library / GAME / "small", b"changed")
    faults.rot(LARGE, 0)
    done = run_zipfs("verify", "--index", index, source)
    assert done.returncode == 10
    assert "not verified: 1 changed since they were hashed, 1 not hashed yet" in done.stdout
    assert len(done.stderr.splitlines()) == 2


def test_on_a_terminal(faulty: Source, library: Path, index: Path) -> None:
    """A bar, and what is found on lines of its own above it."""
    source, faults = faulty
    make_game(library, "roms/psx/Game [b]", FILES)
    indexed(source, index)
    faults.rot("roms/psx/Game [[]b]/large", MIB)
    main, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [zipfs_program(), "verify", "--rate", "20", "--index", index, source],
            env=environment({"TERM": "xterm", "COLUMNS": "500"}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=terminal,
        )
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # EIO is how a terminal's end looks like
            while data := os.read(main, 65536):
                shown += data
        process.communicate(timeout=SECONDS)
    finally:
        os.close(main)
    assert process.returncode == 10
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", shown.decode())
    assert "verifying" in text
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    (found,) = (line for line in lines if "is damaged" in line)
    assert found.startswith("zipfs: roms/psx/Game [b]/large is damaged at MiB 1-2 of 10: CRC-32 ")
    assert found.endswith("; it is in roms/psx/Game [b].zip; restore it from a backup")


def test_known_damage_is_told_before_its_turn_comes_again(
    faulty: Source, library: Path, index: Path
) -> None:
    source, faults = faulty
    make_game(library, "roms/psx/A", FILES)
    make_game(library, "roms/psx/Z", FILES)
    indexed(source, index)
    faults.rot("roms/psx/Z/large", 0)
    verified(source, index, status=10)
    said, complained = verified(source, index, "--rate", "4", "--max-time", "1s", status=10)
    assert not said["ended"]
    assert [found["path"] for found in said["findings"]] == ["roms/psx/Z/large"]
    assert "found on " in complained
    assert said["last_round"]["ended"] is not None


def test_a_file_that_changes_while_it_is_read(faulty: Source, library: Path, index: Path) -> None:
    source, faults = faulty
    folder = make_game(library, GAME, FILES)
    indexed(source, index)
    faults.rot(LARGE, MIB)
    faults.hang(LARGE)
    process = start(
        [zipfs_program(), "verify", "--json", "--index", index, source],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,  # type: ignore[arg-type]
    )
    poll("it to be read", lambda: faults.waiting(LARGE, "read") > 0)
    make_file(folder / "large", FILES["large"][::-1])
    faults.release(LARGE)
    said, complained = process.communicate(timeout=SECONDS)
    assert (process.returncode, complained) == (0, b"")
    told = json.loads(said)
    assert told["last_round"]["changed"] == 1
    assert told["findings"] == []


def test_a_disk_that_has_gone_away(faulty: Source, library: Path, index: Path) -> None:
    source, faults = faulty
    make_game(library, GAME, {f"{number:03}": b"%d" % number for number in range(150)})
    indexed(source, index)
    faults.fail(f"{GAME}/*", "open", errno.EIO)
    done = run_zipfs("verify", "--index", index, source)
    assert done.returncode == 3
    assert "100 files in a row can't be read" in done.stderr
    faults.clear()
    said, _ = verified(source, index)
    assert said["last_round"]["verified"]["files"] == 150
    assert said["findings"] == []


# -- In parts ------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_was_verified_is_not_read_again(
    number: signal.Signals, faulty: Source, library: Path, index: Path
) -> None:
    source, faults = faulty
    make_game(library, GAME, {"a": content(2 * MIB, "a"), **FILES})
    make_game(library, "roms/psx/Huge", {"b": content(40 * MIB, "b"), "c": b"c"})
    indexed(source, index)
    process = start(
        [zipfs_program(), "verify", "--rate", "8", "--index", index, source],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,  # type: ignore[arg-type]
    )
    poll("the huge one to be in work", lambda: faults.count("roms/psx/Huge/b", "read") > 0)
    # What was done before is saved within seconds.
    memory = Path(f"{index}.verify")
    done = 11 * MIB + 5 + 5000
    poll("the others to be saved", lambda: _saved(memory).get("passed", 0) == done)
    assert process.poll() is None
    process.send_signal(number)
    _, complained = process.communicate(timeout=SECONDS)
    if number == signal.SIGINT:
        assert process.returncode == 130
        said_last = complained.strip()
        assert said_last == b"zipfs: interrupted; the same command continues from here"
    read = faults.count(f"{GAME}/*", "read")
    said, _ = verified(source, index)
    assert said["ended"]
    assert said["this_run"]["read_bytes"] == 40 * MIB + 1  # the huge one from its beginning
    assert said["last_round"]["verified"] == {"files": 5, "bytes": 42 * MIB + TOTAL + 1}
    assert faults.count(f"{GAME}/*", "read") == read
    assert verified(source, index)[0]["this_run"]["verified_files"] == 5  # the next round


def _saved(memory: Path) -> dict[str, Any]:
    """The round that is under way, as it was saved."""
    found = json.loads(memory.read_text())["round"] if memory.exists() else None
    return found or {}


def test_a_part_each_night(library: Path, index: Path) -> None:
    make_game(library, GAME, {f"{number}": content(2 * MIB, number) for number in range(6)})
    indexed(library, index)
    read = runs = 0
    started = time.monotonic()
    while True:
        said, complained = verified(library, index, "--rate", "6", "--max-time", "0.4s")
        assert complained == ""
        read += said["this_run"]["read_bytes"]
        runs += 1
        if said["ended"]:
            break
        assert said["round"]["done_bytes"] <= 12 * MIB
    assert read == 12 * MIB
    assert runs >= 2
    assert time.monotonic() - started > 12 / 6 * 0.6
    done = run_zipfs("verify", "--index", index, "--rate=6", "--max-time=0.4s", library)
    assert done.returncode == 0
    assert "by --max-time; the same command continues from there" in done.stdout
    assert "the last whole round ended on 20" in done.stdout
    said, _ = verified(library, index, "--restart")
    assert said["this_run"]["read_bytes"] == 12 * MIB


def test_the_rate_of_the_config_file(library: Path, index: Path, place: Path) -> None:
    make_game(library, GAME, FILES)
    indexed(library, index)
    config = place / "games.toml"
    config.write_text(f'library = "{library}"\nindex = "{index}"\nhash-rate = 10\n')
    started = time.monotonic()
    done = run_zipfs("verify", "--config", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - started > 0.7
    # At the config's own rate this would take hours.
    config.write_text(config.read_text().replace("hash-rate = 10", "hash-rate = 0.001"))
    run = json.loads(run_zipfs("verify", "--json", "--config", config, "--rate", "0").stdout)
    assert run["this_run"]["read_bytes"] == TOTAL


@pytest.mark.parametrize("rate", ["1e-9", "1e-300"])
def test_the_time_is_up_before_the_rate_allows_more(rate: str, library: Path, index: Path) -> None:
    make_game(library, GAME, FILES)
    indexed(library, index)
    said, _ = verified(library, index, "--rate", rate, "--max-time", "1")
    assert not said["ended"]
    assert said["this_run"]["seconds"] < 30


@pytest.mark.parametrize("text", ["soon", "5 parsecs", "0", "1h-2m", ""])
def test_a_time_that_is_none(text: str, library: Path) -> None:
    done = run_zipfs("verify", "--max-time", text, library)
    assert done.returncode == 2
    assert "isn't a duration " in done.stderr


# -- The index -----------------------------------------------------------------------


def test_without_an_index(library: Path, index: Path) -> None:
    make_game(library, GAME, FILES)
    done = run_zipfs("verify", "--index", index, library)
    assert done.returncode == 6
    assert done.stderr == (
        f"zipfs: there is no index {index} to compare with; `zipfs index` creates it, or name"
        " another with --index FILE\n"
    )
    assert not index.exists()
    done = run_zipfs("verify", "--index", index, library / "nothing")
    assert done.returncode == 3


@pytest.mark.parametrize("data", [b"", b"not SQLite at all" * 1000])
def test_with_something_else_for_an_index(data: bytes, library: Path, index: Path) -> None:
    make_file(index, data)
    done = run_zipfs("verify", "--index", index, library)
    assert done.returncode == 6
    assert len(done.stderr.splitlines()) == 1
    assert index.read_bytes() == data
    assert sorted(path.name for path in index.parent.iterdir()) == [index.name]


def test_with_the_index_of_another_library(library: Path, index: Path, place: Path) -> None:
    make_game(library, GAME, FILES)
    indexed(library, index)
    verified(library, index)
    remembered = Path(f"{index}.verify")
    before = remembered.read_bytes()
    make_game(place / "other", "roms/psx/Else", FILES)
    done = run_zipfs("verify", "--index", index, place / "other")
    assert done.returncode == 3
    assert "is its disk mounted, and is this its index?" in done.stderr
    make_game(place / "copy", GAME, FILES)
    done = run_zipfs("verify", "--index", index, place / "copy")
    assert done.returncode == 6
    assert "as it was hashed, so there is nothing to compare with" in done.stderr
    assert remembered.read_bytes() == before
    assert verified(library, index)[0]["findings"] == []


def test_an_index_whose_name_is_hard_on_uris(library: Path, place: Path) -> None:
    make_game(library, GAME, FILES)
    index = place / "100%?#é &mode=memory.sqlite3"
    indexed(library, index)
    assert verified(library, index)[0]["last_round"]["verified"]["files"] == 2


def test_two_at_once(faulty: Source, library: Path, index: Path) -> None:
    source, faults = faulty
    make_game(library, GAME, FILES)
    indexed(source, index)
    faults.hang(LARGE)
    process = start([zipfs_program(), "verify", "--index", index, source], env=environment())
    poll("it to be read", lambda: faults.waiting(LARGE, "read") > 0)
    done = run_zipfs("verify", "--index", index, source)
    assert done.returncode == 6
    assert done.stderr == f"zipfs: another `zipfs verify` by the index {index} is under way\n"
    # It is in nobody's way: ioprio_set(2) and setpriority(2) were heard.
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
    asked = subprocess.run(["ionice", "-p", f"{process.pid}"], capture_output=True, check=True)
    assert asked.stdout == b"idle\n"
    faults.clear()
    assert process.wait(SECONDS) == 0


def test_beside_a_mount(library: Path, index: Path, mount: Mounts) -> None:
    """Both use the index; neither waits for the other, and its rows are what they would be."""
    folder = make_game(library, GAME, FILES)
    other = make_game(library, "roms/psx/Other", {"1": content(3 * MIB, 1), "2": b"2"})
    mounted = mount(library, index=index)
    mounted.wait_sealed(2)
    poll("all to be saved", lambda: index.exists() and len(rows(index)) >= 8)
    before = rows(index)
    process = start(
        [zipfs_program(), "verify", "--json", "--rate", "6", "--index", index, library],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,  # type: ignore[arg-type]
    )
    poll("it to begin", lambda: Path(f"{index}.verify.lock").exists())
    assert mounted.archive(GAME).read_bytes() == expected_archive(folder)
    make_file(other / "1", content(2 * MIB, "new"))
    mounted.wait_gone("roms/psx/Other.zip")
    assert mounted.wait_archive("roms/psx/Other").read_bytes() == expected_archive(other)
    said, complained = process.communicate(timeout=SECONDS)
    assert (process.returncode, complained) == (0, b"")
    last = json.loads(said)["last_round"]
    assert last["verified"]["files"] + last["changed"] == 4
    assert mounted.stop() == 0
    assert {row[0] for row in rows(index) if len(row) == 8} == {
        row[0] for row in before if len(row) == 8
    }
    assert verified(library, index)[0]["last_round"]["verified"]["files"] == 4


def test_as_somebody_who_may_not_read_it_all(library: Path, index: Path, place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can change users")
    folder = make_game(library, GAME, FILES)
    (folder / "small").chmod(0o600)
    indexed(library, index)
    index.parent.chmod(0o777)
    index.chmod(0o666)
    program = program_for_everybody(place)
    done = run_zipfs("verify", "--index", index, library, user=65534, program=[program])
    assert (done.returncode, done.stderr) == (0, "")
    assert "not verified: 1 may not be read" in done.stdout


def test_in_lists_and_variants(library: Path, index: Path, place: Path, faulty: Source) -> None:
    source, faults = faulty
    make_game(library, GAME, {**FILES, "manual/1.pdf": b"manual"})
    lists = place / "lists"
    make_file(lists / "some.list", f"- {len(FILES['large'])} /library/{LARGE} x\n".encode())
    config = place / "games.toml"
    config.write_text(
        f'library = "{source}"\nindex = "{index}"\nlists = "{lists}"\n'
        '[[variants]]\nname = "no manuals"\nwithout = ["manual"]\n'
    )
    assert run_zipfs("index", "--config", config).returncode == 0
    faults.rot(LARGE, 1)
    done = run_zipfs("verify", "--json", "--config", config)
    assert done.returncode == 10, done.stderr
    assert json.loads(done.stdout)["findings"][0]["archives"] == [
        ".lists/some.zip",
        f"{GAME} [no manuals].zip",
        f"{GAME}.zip",
    ]
