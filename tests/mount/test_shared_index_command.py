"""``zipfs index`` with a shared index, beside others who hash the same library (DESIGN K1).

The library is shown by a file system that counts, and that holds up reads until it is told not to.
"""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from bench.mount import zipfs_program
from tests.mount.test_shared import check_same, game, games, hashed, heads_of
from tests.support.faultfs import Faults
from tests.support.mounting import Mounts, environment
from tests.support.postgresql import Shared
from tests.support.waiting import SECONDS, poll
from zipfs.config import Settings
from zipfs.errors import INTERRUPTED

GAMES: Final = 100
SMALLEST: Final = f"{game(0)}/b.bin"
"""The file that comes first."""

Index = Callable[..., "Run"]


class Run:
    """A ``zipfs index`` that runs."""

    def __init__(self, config: Path, index: Path) -> None:
        self.process = subprocess.Popen(
            [zipfs_program(), "index", "--config", config, "--index", index],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.errors = ""
        self.hashed = self.others = 0
        """Bytes that it has hashed, and others meanwhile; after its end."""

    def end(self, status: int = 0) -> None:
        """Wait until it ends with *status*."""
        out, self.errors = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == status, self.errors
        if status == 0:
            assert f"{GAMES} archives sealed" in out
            told = re.search(r"\(([\d,]+) bytes hashed now(?:, ([\d,]+) bytes by others)?", out)
            assert told, out
            self.hashed, self.others = (int((n or "0").replace(",", "")) for n in told.groups())

    def send(self, number: int) -> None:
        self.process.send_signal(number)


@pytest.fixture
def total(library: Path) -> int:
    """Bytes of the library, which has two files in each game.

    All games are settled: else, on a slow machine, only the last are when a run looks at them.
    """
    size = games(library, GAMES, 200_000)
    newest = (library / game(GAMES - 1)).stat().st_ctime
    settle = Settings.model_fields["settle"].default
    poll("the library to settle", lambda: time.time() > newest + settle)
    return size


@pytest.fixture
def index(faulty: tuple[Path, Faults], shared: Shared, place: Path, total: int) -> Iterator[Index]:
    """Starts ``zipfs index``, with an index of its own unless one is given."""
    seen, faults = faulty
    runs: list[Run] = []
    numbers = itertools.count()

    def start(*, address: str = shared.address, file: str = "") -> Run:
        number = next(numbers)
        config = place / f"config-{number}"
        config.write_text(
            f'library = "{seen}"\nprove = "never"\n'
            f'shared-index = "{address}"\nshared-name = "games"\n'
        )
        runs.append(Run(config, place / (file or f"index-{number}")))
        return runs[-1]

    yield start
    faults.clear()
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


@pytest.fixture
def faults(faulty: tuple[Path, Faults]) -> Faults:
    return faulty[1]


def check_opened_once(faults: Faults) -> None:
    for number in range(GAMES):
        for name in ("a.bin", "b.bin"):
            assert faults.count(f"{game(number)}/{name}", "open") == 1


def hung(index: Index, faults: Faults) -> Run:
    """A run that has claimed some files, and doesn't get on with the first of them."""
    faults.hang(SMALLEST)
    run = index()
    poll("it to read", lambda: faults.waiting(SMALLEST, "read"))
    return run


def wait_for_claims(shared: Shared, heads: int) -> None:
    """Until so many have claimed files, so that they know of none that another one has hashed."""
    claims = "SELECT count(DISTINCT head) FROM zipfs.queue"
    poll("claims", lambda: shared.ask(claims) == [(heads,)])


def wait_for_rest(shared: Shared) -> None:
    """Until all is hashed but what one who hangs has claimed."""

    def is_left() -> bool:
        ((queued, claimed, heads),) = shared.ask(
            "SELECT count(*), count(DISTINCT head), (SELECT count(*) FROM zipfs.heads)"
            " FROM zipfs.queue WHERE head = (SELECT min(id) FROM zipfs.heads)"
        )
        done = shared.count("files")
        return bool(claimed == 1 and heads == 2 and done + queued == 2 * GAMES)

    poll("the rest to be hashed", is_left)


def test_two_at_once_read_each_file_once(
    index: Index, faults: Faults, shared: Shared, total: int
) -> None:
    faults.hang("*")
    two = [index(), index()]
    wait_for_claims(shared, 2)
    faults.release()
    for run in two:
        run.end()
    assert all(run.hashed for run in two)
    assert sum(run.hashed for run in two) == total
    assert all(run.hashed + run.others == total for run in two)
    check_opened_once(faults)


def test_beside_a_mounted_head_each_file_is_read_once(
    index: Index,
    faulty: tuple[Path, Faults],
    mount: Mounts,
    shared: Shared,
    place: Path,
    library: Path,
    total: int,
) -> None:
    seen, faults = faulty
    faults.hang("*")
    head = heads_of(mount, shared, place, library)("--prove=never", of=seen)
    poll("it to read", lambda: faults.waiting("*", "read"))
    run = index()
    wait_for_claims(shared, 2)
    faults.release()
    run.end()
    head.wait_sealed(GAMES)
    assert run.hashed
    assert hashed(head) + run.hashed == total
    check_opened_once(faults)
    check_same(library, 7, head)


def test_what_a_partner_had_who_was_killed_is_hashed(
    index: Index, faults: Faults, shared: Shared, total: int
) -> None:
    partner = hung(index, faults)
    run = index()
    wait_for_rest(shared)
    partner.send(signal.SIGKILL)
    faults.release()  # before, not even that ends it
    partner.end(-signal.SIGKILL)
    run.end()
    assert run.hashed == total


def test_who_waits_for_a_partner_gets_what_he_hashes(
    index: Index, faults: Faults, shared: Shared, total: int
) -> None:
    partner = hung(index, faults)
    run = index()
    wait_for_rest(shared)
    assert run.process.poll() is None
    faults.release()
    for one in (partner, run):
        one.end()
    assert partner.hashed == run.others > 0
    assert partner.hashed + run.hashed == total
    check_opened_once(faults)


def test_an_interrupted_run_gives_back_what_it_has_claimed(
    index: Index, faults: Faults, shared: Shared, total: int
) -> None:
    first = hung(index, faults)
    first.send(signal.SIGINT)
    faults.release()
    first.end(INTERRUPTED)
    assert shared.count("heads") == 0
    run = index()
    run.end()
    assert run.hashed <= total


def test_the_database_stops_amid(index: Index, faults: Faults, shared: Shared, total: int) -> None:
    """Both go on by themselves, say so, and tell what they have hashed afterwards."""
    two = [hung(index, faults), index()]
    wait_for_rest(shared)
    shared.server.stop()
    try:
        poll("the other one to read it, too", lambda: faults.waiting(SMALLEST, "read") == 2)
        faults.release()
        for run in two:
            run.end()
            assert "is away: " in run.errors
            assert "the next run, or a mount, tells it of this" in run.errors
    finally:
        shared.server.start()
    again = index(file="index-0")
    again.end()
    assert (again.hashed, again.errors) == (0, "")
    assert shared.count("files") == 2 * GAMES
    later = index()
    later.end()
    assert later.hashed == 0


def test_the_database_answers_nothing_for_a_while(
    index: Index, faults: Faults, shared: Shared, total: int
) -> None:
    partner = hung(index, faults)
    run = index()
    wait_for_rest(shared)
    with shared.server.frozen():
        poll("the other one to read it, too", lambda: faults.waiting(SMALLEST, "read") == 2)
    faults.release()
    for one in (partner, run):
        one.end()
    assert shared.count("files") == 2 * GAMES


def test_who_may_only_read_hashes_all_and_says_so(index: Index, shared: Shared, total: int) -> None:
    index().end()
    shared.ask("DELETE FROM zipfs.files WHERE size < 150000")
    shared.ask("CREATE ROLE only_reads LOGIN")
    try:
        shared.ask("GRANT USAGE ON SCHEMA zipfs TO only_reads")
        shared.ask("GRANT SELECT ON ALL TABLES IN SCHEMA zipfs TO only_reads")
        run = index(address=shared.server.address(shared.name, "only_reads"))
        run.end()
    finally:
        shared.ask("DROP OWNED BY only_reads CASCADE")
        shared.ask("DROP ROLE only_reads")
    assert 0 < run.hashed < total
    assert "can only be read (this role may not write): it isn't told of this" in run.errors
    assert shared.count("files") == GAMES
