"""``zipfs mount --setuid``: root mounts, and who serves has no right, and needs no entry."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from bench.mount import is_mounted, zipfs_program
from tests.mount.test_bad_input import assert_one_line
from tests.mount.test_lifecycle import opened
from tests.support.libraries import content, expected_archive, make_file, make_game
from tests.support.mounting import Mounted, Mounts, as_user, run_zipfs
from tests.support.users import NOBODY, needs_root, run_as
from tests.support.waiting import poll
from zipfs.mount.status import runtime

pytestmark = needs_root

GAME: Final = "roms/psx/Game"
NUMBER: Final = 54321
"""Nobody has it: it is in no passwd(5)."""
FEW: Final = "-all,+sys_admin,+setuid,+setgid"
"""All that a container needs to be given."""


@pytest.fixture
def game(library: Path) -> Path:
    make_file(library / "roms/gb/single.gb", b"single")
    return make_game(library, GAME, {"a": content(3_000_000, 1), "b": content(70_000, 2)})


def with_caps(capabilities: str) -> list[str]:
    return ["setpriv", "--inh-caps=-all", f"--bounding-set={capabilities}", "--"]


class Stand:
    """A user's index, and mounts whose sockets are where zipfs itself makes a folder for them."""

    def __init__(self, place: Path, mount: Mounts, zipfs: str, uid: int = NUMBER) -> None:
        self.mount = mount
        self._zipfs = zipfs
        self.state = place / "state"
        self.state.mkdir()
        os.chown(self.state, uid, uid)

    def __call__(
        self,
        library: Path,
        *options: str | Path,
        program: Sequence[str] = (),
        mountpoint: Path | None = None,
    ) -> Mounted:
        return self.mount(
            library,
            *options,
            mountpoint=mountpoint,
            index=self.state / "index.sqlite3",
            env={"RUNTIME_DIRECTORY": None},
            program=[*program, self._zipfs],
        )


@pytest.fixture
def stand(place: Path, mount: Mounts, public_program: str) -> Iterator[Stand]:
    yield Stand(place, mount, public_program)
    shutil.rmtree(Path(runtime.SYSTEM, f"user-{NUMBER}"), ignore_errors=True)


def fields_of(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def daemon_of(mounted: Mounted, program: Sequence[str] = ()) -> int:
    """By its own word."""
    done = run_zipfs("status", "--json", mounted.path, program=[*program, zipfs_program()])
    assert done.returncode == 0, done.stderr
    pid: int = json.loads(done.stdout)["pid"]
    return pid


@pytest.mark.parametrize("text", [str(NUMBER), f"{NUMBER}:{NUMBER + 1}"])
@pytest.mark.parametrize("program", [[], with_caps(FEW)], ids=["root", "container"])
def test_the_daemon_has_no_right(
    game: Path, library: Path, stand: Stand, text: str, program: list[str]
) -> None:
    mounted = stand(library, "--allow-other", "--setuid", text, program=program)
    mounted.wait_sealed(1)
    daemon = daemon_of(mounted, program)
    assert daemon != mounted.process.pid
    fields = fields_of(daemon)
    group = text.rpartition(":")[2]
    assert fields["Uid"] == [str(NUMBER)] * 4
    assert (fields["Gid"], fields["Groups"]) == ([group] * 4, [group])
    assert {fields[name][0] for name in ("CapEff", "CapPrm", "CapAmb")} == {"0" * 16}
    assert mounted.archive(GAME).read_bytes() == expected_archive(game)
    assert run_as(NOBODY, "cat", mounted.archive(GAME)).stdout == expected_archive(game)
    mounted.stop()
    assert not Path(f"/proc/{daemon}").exists()


def test_a_name_brings_its_groups(
    game: Path, library: Path, place: Path, mount: Mounts, public_program: str
) -> None:
    stand = Stand(place, mount, public_program, NOBODY)
    mounted = stand(library, "--setuid", "nobody")
    mounted.wait_sealed(1)
    assert fields_of(daemon_of(mounted))["Uid"] == [str(NOBODY)] * 4


def test_what_the_user_may_not_read_isn_t_shown(game: Path, library: Path, stand: Stand) -> None:
    """Though root could."""
    make_game(library, "roms/psx/Closed", {"a": b"1", "b": b"2"})
    (library / "roms/psx/Closed/a").chmod(0o600)
    mounted = stand(library, "--setuid", str(NUMBER))
    mounted.expect_log("Closed")
    mounted.wait_sealed(1)
    assert not mounted.archive("roms/psx/Closed").exists()


def test_signals_are_passed_on(game: Path, library: Path, stand: Stand) -> None:
    mounted = stand(library, "--setuid", str(NUMBER), program=with_caps(FEW))
    mounted.wait_sealed(1)
    mounted.process.send_signal(signal.SIGHUP)
    mounted.wait_log("looking through the library again")
    mounted.process.send_signal(signal.SIGUSR1)
    mounted.wait_log("^Tasks:")
    mounted.stop(signal.SIGINT)


def test_unmounted_by_somebody_else_it_ends(game: Path, library: Path, stand: Stand) -> None:
    mounted = stand(library, "--setuid", str(NUMBER))
    mounted.wait_sealed(1)
    mounted.unmount()


def test_downloads_end_with_it(game: Path, library: Path, stand: Stand) -> None:
    mounted = stand(library, "--setuid", str(NUMBER))
    mounted.wait_sealed(1)
    with opened(mounted.archive(GAME)) as reader:
        os.read(reader, 4096)
        mounted.stop()


@pytest.mark.parametrize("which", ["daemon", "parent"])
def test_killed(game: Path, library: Path, stand: Stand, which: str) -> None:
    """Nothing is left but a dead mount, and that only if the parent is killed."""
    mounted = stand(library, "--setuid", str(NUMBER))
    mounted.wait_sealed(1)
    daemon = daemon_of(mounted)
    if which == "daemon":
        os.kill(daemon, signal.SIGKILL)
        assert mounted.process.wait(60) == 128 + signal.SIGKILL
        assert not is_mounted(mounted.path)
        mounted.ended = True
        mounted.notifications.close()
        mounted.see_children_end()
    else:
        mounted.kill()
        poll("the daemon to end", lambda: not Path(f"/proc/{daemon}").exists())
        again = stand(library, "--setuid", str(NUMBER), mountpoint=mounted.path)
        again.wait_sealed(1)


def test_zip(game: Path, library: Path, stand: Stand) -> None:
    mounted = stand(library, "--setuid", str(NUMBER))
    mounted.wait_sealed(1)
    assert zipfile.ZipFile(mounted.archive(GAME)).testzip() is None


# -- What can't be --------------------------------------------------------------------


@pytest.fixture
def command(library: Path, game: Path, place: Path) -> list[str | Path]:
    (place / "point").mkdir()
    return ["mount", "--index", place / "x/index.sqlite3", library, place / "point"]


def test_no_such_user(command: list[str | Path]) -> None:
    for wrong in ("nobody-has-this-name", "nobody:no-such-group", "-1", ""):
        done = run_zipfs(*command, f"--setuid={wrong}")
        assert_one_line(done, 2, "bad value for 'setuid' on the command line: .*")


def test_a_user_can_t_become_another(command: list[str | Path], public_program: str) -> None:
    done = run_zipfs(*command, "--setuid=1", program=[*as_user(NOBODY), public_program])
    assert_one_line(done, 5, "only root can become 1; leave --setuid out")


@pytest.mark.parametrize(
    ("capabilities", "words"),
    [
        ("-sys_admin", "CAP_SYS_ADMIN.*--cap-add SYS_ADMIN"),
        ("-setuid", "--cap-add SETUID"),
        ("-setgid", "--cap-add SETGID"),
    ],
)
def test_the_flag_that_gives_a_missing_right_is_named(
    command: list[str | Path], place: Path, capabilities: str, words: str
) -> None:
    program = [*with_caps(capabilities), zipfs_program()]
    done = run_zipfs(*command, "--setuid", str(NUMBER), program=program)
    assert_one_line(done, 5, f".*{words}.*")
    assert not is_mounted(place / "point")


def test_an_index_that_the_user_can_t_write(command: list[str | Path], place: Path) -> None:
    (place / "x").mkdir(mode=0o755)
    done = run_zipfs(*command, "--setuid", str(NUMBER))
    assert done.returncode == 6, done.stderr
    assert re.fullmatch(r"zipfs: .*index.sqlite3.*\n", done.stderr)
    assert not is_mounted(place / "point")
