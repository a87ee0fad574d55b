"""The tests' own folders."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import pytest

from tests.support.mounting import temporary_folder


def test_a_folder_that_is_gone_leaves_its_parent_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Run by root, it once took everybody's permissions away from /tmp.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tmp_path.chmod(0o755)
    with pytest.raises(FileNotFoundError), temporary_folder() as folder:
        folder.rmdir()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
