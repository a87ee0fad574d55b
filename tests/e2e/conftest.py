"""Web servers in front of mounts, what the readers of archives need, and the matrix as a table."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from bench.web import Server
from tests.e2e import downloads
from tests.e2e.matrix.stand import SERVERS as COLUMNS
from tests.e2e.programs import run
from tests.e2e.site import SERVERS, Serve, Site
from tests.support.mounting import MARKER, temporary_folder

Seen = Callable[[str, str], None]

_FIELD: Final = "field of the matrix"


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
        fields = dict.fromkeys(COLUMNS, "-") | table[row] if row else {n: n for n in COLUMNS}
        line = " | ".join(f"{fields[name]:<8}" for name in COLUMNS)
        terminalreporter.write_line(f"| {row:<{width}} | {line} |")
        if not row:
            terminalreporter.write_line(f"|{'-' * (width + 2)}|{('-' * 10 + '|') * len(COLUMNS)}")
