"""The unit files, as systemd itself reads them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.mount import zipfs_program

UNITS = Path(__file__).parents[2] / "systemd"


@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.service")), ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong(unit: Path, tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is not installed")
        pytest.skip("systemd-analyze is not installed")  # a laptop without systemd
    # It looks for the program as well, which is installed elsewhere here.
    text = unit.read_text()
    assert "/usr/local/bin/zipfs" in text
    copy = tmp_path / unit.name.replace("@", "@games")
    copy.write_text(text.replace("/usr/local/bin/zipfs", zipfs_program()))
    done = subprocess.run(
        [verify, "verify", "--man=no", copy],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_waits_for_the_mount_and_reloads_by_a_signal() -> None:
    text = (UNITS / "zipfs@.service").read_text()
    for line in (
        "Type=notify",
        "ExecStart=/usr/local/bin/zipfs mount --config /etc/zipfs/%i.toml",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "StateDirectory=zipfs/%i",
    ):
        assert line in text.splitlines()
