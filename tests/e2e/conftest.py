"""Web servers in front of mounts, and what the readers of archives need."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.web import Server
from tests.e2e import downloads
from tests.e2e.programs import run
from tests.e2e.site import SERVERS, Serve, Site
from tests.support.mounting import MARKER, temporary_folder


@pytest.fixture(scope="session", autouse=True)
def _marked() -> Iterator[None]:
    """Web servers inherit our environment: let them be known as ours, like the mounts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARKER, str(os.getpid()))
        yield


@pytest.fixture(autouse=True)
def _whole_archives(place: Path) -> Iterator[None]:
    """What a test leaves in its folder, too. Being the first fixture of all, this ends last."""
    yield
    downloads.check_folder(place)


@pytest.fixture
def serve(mount: object, place: Path) -> Iterator[Serve]:
    """``serve(mounted, "nginx")``: a web server in front of a mount, ended before it."""
    with contextlib.ExitStack() as servers:
        yield lambda mounted, name: servers.enter_context(
            SERVERS[name](mounted.path, workdir=place)
        )


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest, site: Site) -> str:
    """The archive of the module's *site*, behind each of the servers."""
    server: Server = getattr(site, request.param)
    return server.url_of(site.archive)


@pytest.fixture(scope="session")
def java_reader() -> Iterator[Path]:
    """Where ReadZip.class is."""
    with temporary_folder() as folder:
        source = Path(__file__).with_name("ReadZip.java")
        # With "perf data", Java would leave a file in /tmp.
        run("javac", "-J-XX:-UsePerfData", "-d", folder, source)
        yield folder
