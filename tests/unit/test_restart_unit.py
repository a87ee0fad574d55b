"""Whether a unit's mount stays, and the note of it; without systemd, which tests/service has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zipfs.errors import MountpointError
from zipfs.mount.restart import note as notes
from zipfs.mount.restart import unit
from zipfs.mount.restart.note import Note
from zipfs.mount.restart.unit import State


@pytest.mark.parametrize(
    ("job", "result", "status", "follows"),
    [
        # `systemctl stop`, of a daemon that ends well, that is killed for it, that had crashed
        ("stop", "success", "", False),
        ("stop", "success", "0", False),
        ("stop", "timeout", "KILL", False),
        ("stop", "signal", "KILL", False),
        # `systemctl restart`, likewise
        ("restart", "success", "", True),
        ("restart", "success", "0", True),
        ("restart", "timeout", "KILL", True),
        ("try-restart", "success", "0", True),
        # the daemon has ended by itself: unmounted, or a signal that was sent by hand
        ("", "success", "0", False),
        # it has crashed, running or starting; Restart=on-failure
        ("", "signal", "KILL", True),
        ("", "core-dump", "ABRT", True),
        ("", "watchdog", "ABRT", True),
        ("", "exit-code", "1", True),
        ("start", "exit-code", "1", True),
        ("", "timeout", "", True),
        # it can't adopt the mount, or its config is wrong
        ("", "exit-code", "96", False),
        ("start", "exit-code", "96", False),
        ("restart", "exit-code", "96", False),
        ("", "exit-code", "2", False),
        ("start", "exit-code", "2", False),
        # or has crashed while it was reloaded
        ("reload", "signal", "KILL", True),
        ("reload", "success", "0", False),
    ],
)
def test_the_mount_stays_if_another_daemon_follows(
    job: str, result: str, status: str, follows: bool
) -> None:
    assert unit.follows(State("deactivating", job, 2), result, status) is follows


def test_a_manager_that_doesn_t_say_has_it_unmounted() -> None:
    assert not unit.follows(State(), "signal", "KILL")
    assert not unit.follows(State(), "success", "0")


@pytest.mark.parametrize(
    ("active", "job", "stays"),
    [
        ("failed", "", False),
        ("inactive", "", False),
        ("failed", "start", True),  # somebody has started it again
        ("activating", "start", True),
        ("active", "", True),
        ("deactivating", "stop", True),
        ("", "", True),
    ],
)
def test_after_a_failure_for_good_nothing_stays(active: str, job: str, stays: bool) -> None:
    assert unit.stays(State(active, job, 0)) is stays


# -- What systemctl says -----------------------------------------------------------------------

_SYSTEMCTL = """#!/bin/sh
case "$1" in
    show) cat "$0.show" ;;
    list-jobs) cat "$0.jobs" ;;
    *) exit 1 ;;
esac
"""


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(_SYSTEMCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def says(systemctl: Path, show: str, jobs: str = "") -> None:
    Path(f"{systemctl}.show").write_text(show)
    Path(f"{systemctl}.jobs").write_text(jobs)


@pytest.mark.parametrize(
    ("show", "jobs", "state"),
    [
        ("Job=0\nActiveState=active\nNFileDescriptorStore=2\n", "", State("active", "", 2)),
        (
            "ActiveState=deactivating\nNFileDescriptorStore=1\nJob=312\n",
            "  2 zipfs@b.service stop    running\n312 zipfs@a.service restart running\n",
            State("deactivating", "restart", 1),
        ),
        # it was done meanwhile
        ("Job=312\nActiveState=failed\n", "7 zipfs@a.service stop running", State("failed", "", 0)),
        ("Job=\nActiveState=failed\nNFileDescriptorStore=[not set]", "", State("failed", "", 0)),
        ("", "", State()),
    ],
)
def test_the_state_of_a_unit(systemctl: Path, show: str, jobs: str, state: State) -> None:
    says(systemctl, show, jobs)
    assert unit.ask("zipfs@a.service") == state


def test_without_systemctl_nothing_is_known(
    systemctl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unit.ask("zipfs@a.service") == State()  # it fails
    monkeypatch.setenv("PATH", str(systemctl.parent / "nowhere"))
    assert unit.ask("zipfs@a.service") == State()


def test_each_command_asks_in_its_own_way(systemctl: Path) -> None:
    says(systemctl, "Job=0\nActiveState=failed\n")
    assert not unit.keeps("zipfs@a.service", {})
    assert unit.keeps("zipfs@a.service", {"SERVICE_RESULT": "signal", "EXIT_STATUS": "KILL"})
    assert not unit.keeps("zipfs@a.service", {"SERVICE_RESULT": "exit-code", "EXIT_STATUS": "96"})
    says(systemctl, "Job=3\nActiveState=deactivating\n", "3 zipfs@a.service restart running")
    assert unit.keeps("zipfs@a.service", {"SERVICE_RESULT": "success"})


# -- The note ----------------------------------------------------------------------------------


def test_a_note_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = str(tmp_path / "note")
    assert notes.read(file) is None
    note = Note("0:71", "/srv/\udcff", ("allow_other", "ro"), "abc")
    notes.write(file, note)
    assert notes.read(file) == note
    assert note.mounted() is None


def test_a_note_of_an_earlier_version(tmp_path: Path) -> None:
    (tmp_path / "note").write_text('{"device": "0:71", "path": "/srv"}')
    assert notes.read(str(tmp_path / "note")) == Note("0:71", "/srv")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"device": 1}', '{"device": "", "path": ', "5"])
def test_a_note_that_can_t_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "note").write_text(text)
    with pytest.raises(MountpointError, match="can't be read"):
        notes.read(str(tmp_path / "note"))


def test_the_lock_is_root_s_own_file_and_one_has_it(tmp_path: Path) -> None:
    file = str(tmp_path / "note")
    script = (
        "import sys; from zipfs.mount.restart.note import locked\nwith locked(sys.argv[1]): pass"
    )
    with notes.locked(file):
        assert os.stat(f"{file}.lock").st_mode & 0o777 == 0o600
        other = subprocess.Popen([sys.executable, "-c", script, file])
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.5)
    assert other.wait() == 0
    with notes.locked(str(tmp_path / "nowhere" / "note")):
        pass


# -- The short way -----------------------------------------------------------------------------


def test_what_needs_nothing_is_known_before_anything_large_is_imported(
    systemctl: Path, tmp_path: Path
) -> None:
    says(systemctl, "Job=0\nActiveState=failed\nNFileDescriptorStore=2\n")
    config, note = tmp_path / "config", str(tmp_path / "note")
    config.write_text("x")
    unmount = ["unmount", "--lazy", "--if-mounted", "--noted", note, "--unit", "zipfs@a.service"]
    prepare = ["prepare", "--config", str(config), "--note", note, "--unit", "zipfs@a.service"]
    assert unit.nothing_to_do(unmount)  # without a note
    assert not unit.nothing_to_do(prepare)
    # The root is mounted, though not as a zipfs.
    notes.write(note, Note("0:1", "/", (), notes.fingerprint(str(config))))
    assert not unit.nothing_to_do(prepare)
    assert not unit.nothing_to_do(unmount)
    (tmp_path / "note").write_text("{")
    assert not unit.nothing_to_do(prepare)  # which says so
    assert not unit.nothing_to_do(["unmount", "--lazy", "--unit", "x"])  # likewise
    assert not unit.nothing_to_do(["mount", "--unit", "x"])
    assert not unit.nothing_to_do(["--unit", "x"])
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c",
         "import sys; from zipfs.__main__ import main; sys.argv[0] = 'zipfs'; main()", *unmount],
        capture_output=True, text=True, env=os.environ | {"SERVICE_RESULT": "signal"}, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "zipfs.mount.restart.unit" in imported
    assert not imported & {"click", "pydantic", "rich", "logging", "trio", "pyfuse3"}
