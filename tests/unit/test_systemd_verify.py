"""The units that verify a library now and then, as systemd itself reads them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.mount import zipfs_program

UNITS = Path(__file__).parents[2] / "systemd"
_EXPOSURE = 1.0
"""Of 10: what `systemd-analyze security` may say at most."""


@pytest.fixture
def analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is not installed")
        pytest.skip("systemd-analyze is not installed")  # a laptop without systemd
    return program


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Instances of service and timer, with the program that is here."""
    for kind in ("service", "timer"):
        text = (UNITS / f"zipfs-verify@.{kind}").read_text()
        copy = tmp_path / f"zipfs-verify@games.{kind}"
        copy.write_text(text.replace("/usr/local/bin/zipfs", zipfs_program()))
    return tmp_path


def test_systemd_finds_nothing_wrong(analyze: str, units: Path) -> None:
    done = subprocess.run(
        [analyze, "verify", "--man=no", *sorted(units.iterdir())],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_it_is_sandboxed(analyze: str, units: Path) -> None:
    done = subprocess.run(
        [analyze, "security", "--offline=yes", "--no-pager", units / "zipfs-verify@games.service"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd before 250 has no --offline")
    exposure = re.search(r"Overall exposure level .*: (\d+\.\d+) ", done.stdout)
    assert exposure, done.stderr
    assert float(exposure[1]) <= _EXPOSURE


def test_the_commented_command_is_one(units: Path) -> None:
    """What the unit suggests for a drop-in is what `zipfs verify --help` knows."""
    text = (units / "zipfs-verify@games.service").read_text()
    options = {option for line in text.splitlines() for option in re.findall(r" (--[a-z-]+)", line)}
    assert options == {"--config", "--rate", "--max-time"}
    done = subprocess.run(
        [zipfs_program(), "verify", "--help"], capture_output=True, text=True, check=True
    )
    for option in options:
        assert f"  {option} " in done.stdout
