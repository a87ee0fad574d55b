"""Nothing can be done by way of the mount that can't be done in the library (DESIGN H3)."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fs.lab import root_only
from tests.support.libraries import make_file
from tests.support.mounting import Mounts

SAFE = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV


def flags(path: Path) -> int:
    return os.statvfs(path).f_flag


def test_no_device_and_nobody_else(library: Path, mount: Mounts) -> None:
    """Programs run as who runs them, whatever bits the library's have."""
    make_file(library / "tool", b"#!/bin/sh\n")
    (library / "tool").chmod(0o6755)
    mounted = mount(library)
    assert flags(mounted.path) & SAFE == SAFE
    assert not flags(mounted.path) & os.ST_NOEXEC
    assert stat.S_IMODE((mounted.path / "tool").stat().st_mode) == 0o555


@contextlib.contextmanager
def without_programs(folder: Path) -> Iterator[None]:
    """*folder* is a file system from which nothing can be run."""
    options = "noexec,mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@root_only
@pytest.mark.parametrize(("options", "runs"), [((), False), (("-o", "exec"), True)])
def test_what_cant_be_run(
    options: tuple[str, ...], runs: bool, library: Path, mount: Mounts
) -> None:
    with without_programs(library):
        make_file(library / "tool", b"#!/bin/sh\n")
        (library / "tool").chmod(0o755)
        mounted = mount(library, *options)
        assert flags(mounted.path) & SAFE == SAFE
        if runs:
            subprocess.run([mounted.path / "tool"], check=True)
        else:
            with pytest.raises(PermissionError):
                subprocess.run([mounted.path / "tool"], check=True)
        mounted.unmount()
