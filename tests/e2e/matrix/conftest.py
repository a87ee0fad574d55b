"""Mounts and four web servers for the rows of the matrix."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.web import Server
from tests.e2e.matrix.stand import SERVERS, Stand, standing
from tests.support.mounting import temporary_folder


@pytest.fixture(params=SERVERS)
def server_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def start_server(mount: object, place: Path) -> Iterator[Callable[[str], Server]]:
    """``start_server("nginx")``: a server of all that is in *place*, ended before the mounts."""
    with contextlib.ExitStack() as servers:
        yield lambda name: servers.enter_context(SERVERS[name](place, workdir=place))


@pytest.fixture
def all_servers(start_server: Callable[[str], Server]) -> dict[str, Server]:
    """All four at once, for what happens to them all at the same time."""
    return {name: start_server(name) for name in SERVERS}


@pytest.fixture(scope="module")
def stand(fuse: None) -> Iterator[Stand]:
    """One mount behind four servers, for all tests of a module. Each has a game of its own."""
    with temporary_folder() as place:
        library = place / "library"
        (library / "roms").mkdir(parents=True)
        with standing(place, library) as stand:
            yield stand
