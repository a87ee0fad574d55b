"""Prometheus' own judgement of metrics."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.support.waiting import SECONDS


def check_metrics(text: str) -> None:
    """``promtool check metrics`` accepts *text*, and has nothing to say about it."""
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is not installed")
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=text.encode(),
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    said = (done.stdout + done.stderr).decode()
    assert (done.returncode, said) == (0, ""), text
