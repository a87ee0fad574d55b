"""A mount in the home folder of a desktop's user, as the manual has it for ES-DE."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.desktop import shelf
from tests.desktop.session import Desktop, desktop_missing
from tests.support.mounting import Mounted, Mounts

_DESKTOP: pytest.StashKey[Desktop] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    desktop = item.stash.get(_DESKTOP, None)
    if desktop is not None and report.failed and report.when != "teardown":
        if report.when == "call":
            desktop.picture("failed")
        report.sections.append(("what the desktop has said", desktop.log.read_text()))
    return report


@pytest.fixture(scope="session")
def programs() -> None:
    """Skips the test where there is no desktop; but never where that is the point."""
    if missing := desktop_missing():
        if os.environ.get("CI"):
            pytest.fail(f"not installed: {missing}")
        pytest.skip(f"not installed: {missing}")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for screenshots: ``ZIPFS_PICTURES``, or pytest's own."""
    if wanted := os.environ.get("ZIPFS_PICTURES"):
        return Path(wanted).absolute()
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture
def desktop(
    request: pytest.FixtureRequest, programs: None, mount: Mounts, place: Path, pictures: Path
) -> Iterator[Desktop]:
    """A running desktop, without any window. It ends before the mount does."""
    module = request.node.path.stem.removeprefix("test_")
    name = re.sub(r"\W+", "-", request.node.name.removeprefix("test_")).strip("-")
    desktop = Desktop(place, pictures, f"{module}-{name}")
    request.node.stash[_DESKTOP] = desktop
    try:
        desktop.begin()
        yield desktop
    finally:
        desktop.end()


@pytest.fixture
def show(mount: Mounts, desktop: Desktop) -> Callable[[Path], Mounted]:
    """Mounts a library, as it is now, in the user's home folder."""

    def show(library: Path) -> Mounted:
        point = desktop.home / "ROMs-as-zip"
        point.mkdir()
        desktop.give(point)
        # root's mount is another user's; one's own needs no option.
        options = ["--allow-other"] if os.geteuid() == 0 else []
        mounted = mount(library, *options, mountpoint=point)
        mounted.wait_sealed()
        return mounted

    return show


@pytest.fixture
def platform(library: Path) -> Path:
    """A platform of the library, with a few games."""
    shelf.make_platform(library)
    return library / "roms/psx"


@pytest.fixture
def mounted(platform: Path, library: Path, show: Callable[[Path], Mounted]) -> Mounted:
    """The library with that platform."""
    return show(library)


@pytest.fixture
def folder(mounted: Mounted) -> Path:
    """The platform in the mount."""
    return mounted.path / "roms/psx"
