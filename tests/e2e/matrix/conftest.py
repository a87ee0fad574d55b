"""Mounts and four web servers for the rows of the matrix, and the table at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from bench.web import Server, apache, caddy, lighttpd, nginx
from tests.e2e.matrix.stand import Stand
from tests.support.mounting import Mounts, temporary_folder

SERVERS: Final = {"nginx": nginx, "caddy": caddy, "apache": apache, "lighttpd": lighttpd}

Seen = Callable[[str, str], None]

_FIELD: Final = "field of the matrix"


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
    with temporary_folder() as place, contextlib.ExitStack() as servers:
        library = place / "library"
        (library / "roms").mkdir(parents=True)
        mounts = Mounts(place)
        # Apache, started by root, serves as somebody else.
        mounted = mounts(library, "--allow-other", settle=0.1)
        mounted.expect_log("reading .* ended in an error: a file of it has changed")
        try:
            yield Stand(
                place=place,
                mounted=mounted,
                servers={
                    name: servers.enter_context(server(place, workdir=place))
                    for name, server in SERVERS.items()
                },
            )
        finally:
            servers.close()
            mounts.end()


# ---------------------------------------------------------------- the table at the end


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Seen:
    """``seen(row, server)``: a test is about this field of the table."""
    # In the report, since that comes to whoever prints the table, be it another process.
    return lambda row, server: request.node.user_properties.append((_FIELD, (row, server)))


def _table(stats: Mapping[str, Sequence[object]]) -> dict[str, dict[str, str]]:
    table: dict[str, dict[str, str]] = {}
    for outcome, word in (("passed", "yes"), ("failed", "NO"), ("error", "NO")):
        for report in stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []):
                if name == _FIELD:
                    row, server = value
                    table.setdefault(row, {})[server] = word
    return table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    table = _table(terminalreporter.stats)
    if not table:
        return
    terminalreporter.section("never a wrong byte")
    width = max(map(len, table))
    for row in ("", *table):
        fields = dict.fromkeys(SERVERS, "-") | table[row] if row else {n: n for n in SERVERS}
        line = " | ".join(f"{fields[name]:<8}" for name in SERVERS)
        terminalreporter.write_line(f"| {row:<{width}} | {line} |")
        if not row:
            terminalreporter.write_line(f"|{'-' * (width + 2)}|{('-' * 10 + '|') * len(SERVERS)}")
