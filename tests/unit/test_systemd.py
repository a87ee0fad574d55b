"""The unit files, as systemd itself reads them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.mount import zipfs_program
from tests.support.waiting import SECONDS

UNITS = Path(__file__).parents[2] / "systemd"


EXPOSURE = 7
"""The most that `systemd-analyze security` may find, of 100 (it shows a tenth of that)."""


def analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is not installed")
        pytest.skip("systemd-analyze is not installed")  # a laptop without systemd
    return program


@pytest.fixture(params=sorted(path.name for path in UNITS.glob("*@.*")))
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit, as an instance; systemd looks for the program as well, which is elsewhere here."""
    for source in UNITS.glob("*@.*"):
        text = source.read_text().replace("/usr/local/bin/zipfs", zipfs_program())
        (tmp_path / source.name.replace("@", "@games")).write_text(text)
    return tmp_path / request.param.replace("@", "@games")


def test_systemd_finds_nothing_wrong(unit: Path) -> None:
    done = subprocess.run(
        [analyze(), "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_daemon_has_hardly_a_right(unit: Path) -> None:
    if unit.suffix != ".service" or unit.name.startswith("zipfs-unmount@"):
        return  # that unmounts, as root, and is over
    done = subprocess.run(
        [
            analyze(),
            "security",
            "--offline=yes",
            "--no-pager",
            f"--threshold={EXPOSURE * 10:.0f}",
            unit,
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_unit_waits_for_the_mount_and_reloads_by_a_successor() -> None:
    text = (UNITS / "zipfs@.service").read_text()
    for line in (
        "Type=notify",
        "DeviceAllow=/dev/fuse rw",  # with cgroup 2 `+` commands are refused it, too
        "ExecStart=/usr/local/bin/zipfs mount --config /etc/zipfs/%i.toml",
        "ExecReload=/usr/local/bin/zipfs restart --config /etc/zipfs/%i.toml",
        "StateDirectory=zipfs/%i",
        "WatchdogSec=30",
        "CapabilityBoundingSet=",
        "User=zipfs",
    ):
        assert line in text.splitlines()


def test_the_commented_command_is_one() -> None:
    """What the unit suggests for a drop-in is what `zipfs verify --help` knows."""
    text = (UNITS / "zipfs-verify@.service").read_text()
    options = {option for line in text.splitlines() for option in re.findall(r" (--[a-z-]+)", line)}
    assert options == {"--config", "--rate", "--max-time"}
    done = subprocess.run(
        [zipfs_program(), "verify", "--help"], capture_output=True, text=True, check=True
    )
    for option in options:
        assert f"  {option} " in done.stdout
