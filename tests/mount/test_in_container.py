"""What ``zipfs mount`` says in a container: all that is missing at once, each with its flag."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from bench.mount import zipfs_program
from tests.support.libraries import make_game
from tests.support.mounting import Mounts, environment, run_zipfs
from tests.support.users import needs_root
from tests.support.waiting import SECONDS
from zipfs.mount import mountpoint as mp

pytestmark = needs_root

CONTAINER: Final = {"container": "test"}
NUMBER: Final = 54321
"""Nobody has it."""


@pytest.fixture
def www(library: Path, place: Path) -> Path:
    """A folder that is to be shared, with the mount point in it."""
    make_game(library, "roms/psx/Game", {"a": b"a", "b": b"b"})
    (place / "www/games").mkdir(parents=True)
    return place / "www"


def within(script: str, *command: str | Path) -> list[str]:
    """*command* in a mount namespace that *script* has changed."""
    return ["unshare", "--mount", "--propagation=unchanged", "sh", "-euc", f'{script}\nexec "$@"',
            "sh", *map(str, command)]  # fmt: skip


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environment(CONTAINER),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_a_user_without_entry_is_told_all_at_once(
    www: Path, library: Path, public_program: str
) -> None:
    """As by ``user: "54321:54321"`` in a Compose file without a right."""
    user = f"--reuid={NUMBER} --regid={NUMBER} --clear-groups --inh-caps=-all"
    less = f"setpriv {user} --bounding-set=-sys_admin -- env -u HOME"
    closed = "mount -t tmpfs none /dev; mknod -m 600 /dev/fuse c 10 229"
    script = f'mount --make-rprivate /\nmount -t tmpfs none /etc\n{closed}\nexec {less} "$@"'
    done = run(within(script, public_program, "mount", "--allow-other", library, www / "games"))
    assert done.returncode == 5, done.stderr
    (line,) = done.stderr.splitlines()
    for words in (
        "no permission to open /dev/fuse",
        "--cap-add SYS_ADMIN",
        "'user_allow_other' to /etc/fuse.conf",
        f"user {NUMBER} has no entry in /etc/passwd",
        "no home for the index; name a file with --index, or $STATE_DIRECTORY",
        f"zipfs mount --setuid {NUMBER}:{NUMBER}",
    ):
        assert words in line


@pytest.mark.parametrize("propagation", ["private", "slave"])
def test_a_mount_that_stays_inside_is_warned_of(
    www: Path, library: Path, mount: Mounts, propagation: str
) -> None:
    mounted = mount(
        library,
        mountpoint=www / "games",
        env=CONTAINER,
        program=within(f"mount --bind --make-{propagation} {www} {www}", zipfs_program()),
    )
    mounted.expect_log("will stay in this container")
    mounted.wait_sealed(1)
    assert f"bind it with -v {www}:{www}:rshared" in mounted.log_text()
    mounted.stop()


def test_one_that_gets_out_is_not(www: Path, library: Path, mount: Mounts) -> None:
    subprocess.run(["mount", "--bind", www, www], check=True)
    try:
        subprocess.run(["mount", "--make-shared", www], check=True)
        program = within("true", zipfs_program())
        mounted = mount(library, mountpoint=www / "games", env=CONTAINER, program=program)
        mounted.wait_sealed(1)
        assert mounted.archive("roms/psx/Game").exists()  # out here
        mounted.stop()
    finally:
        subprocess.run(["umount", "--lazy", www], check=True)


def test_a_mount_point_that_is_itself_bound(www: Path, library: Path) -> None:
    script = f"mount --make-rprivate /\nmount --bind {www}/games {www}/games"
    done = run(within(script, zipfs_program(), "mount", library, www / "games"))
    assert done.returncode == 4
    assert re.fullmatch(
        f"zipfs: {www}/games is itself bound into this container, and a mount on it would stay in"
        f" here; bind the folder above instead: -v {www}:{www}:rshared\n",
        done.stderr,
    )
    done = run(within(script, zipfs_program(), "doctor", library, www / "games"))
    assert f"remedy: bind the folder above instead: -v {www}:{www}:rshared" in done.stdout


def test_a_profile_that_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CONTAINER.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(mp.containers, "apparmor", lambda: "docker-default")
    assert "docker-default may forbid it: --security-opt apparmor=unconfined" in mp.forbidden()
    monkeypatch.setattr(mp.containers, "apparmor", lambda: "")
    assert "--security-opt seccomp=unconfined" in mp.forbidden()


def test_doctor_asks_the_daemon(www: Path, library: Path, place: Path, mount: Mounts) -> None:
    mounted = mount(library, mountpoint=www / "games", env=CONTAINER)
    mounted.wait_sealed(1)
    env = CONTAINER | {"RUNTIME_DIRECTORY": str(mounted.runtime), "XDG_STATE_HOME": str(place)}
    done = run_zipfs("doctor", library, mounted.path, env=env)
    assert f"index: the daemon uses {mounted.index}, " in done.stdout
    other = place / "other"
    make_game(other, "roms/x/y", {"a": b"", "b": b""})
    done = run_zipfs("doctor", other, mounted.path, env=env)
    assert f"library: the mount shows {library}, not {other}" in done.stdout
