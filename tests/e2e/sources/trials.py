"""Many changes of the matrix at once, on one source, while each server sends each game.

A source shows a change late: sshfs after twenty seconds. So all games change together, and what
came of each is kept until a test asks for it.
"""

from __future__ import annotations

import contextlib
import time
import zipfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from tests.e2e.expected import HIDDEN
from tests.e2e.matrix.changes import CHANGES, After, Change, make
from tests.e2e.matrix.client import Download, Received, fetch, head
from tests.e2e.matrix.stand import BEGINNING, check_resuming, standing, wait_announced
from tests.e2e.matrix.versions import Line, Version, state_of
from tests.support.mounting import Mounted, temporary_folder
from tests.support.sources import Source, evict, source
from tests.support.waiting import poll
from zipfs.library.proven import MEMORY

SIZE: Final = 4 << 20
"""Of the members ``a`` and ``b``: several blocks, and more than what is on its way to a client."""

_FILLER: Final = "roms/y/filler"
"""A game as large as all that zipfs keeps of what it has read."""
_PAUSE: Final = 0.2
"""Seconds from asking for all archives to asking for them again, which takes its time, too."""

Step = Literal["at once", "later", "offered", "resumed"]
"""What is looked at: a download that goes on at once after the change, one that goes on when the
new version is there, whether that comes to be there, and what a client with a part gets then."""

TestFunction = Callable[..., Any]


@dataclass(eq=False, kw_only=True)
class Trial:
    """One change while one server sends the game."""

    change: Change
    server: str
    game: Path
    """At the server of the source."""
    members: Path
    """The same, as zipfs sees it."""
    library: Path
    archive: Path
    inode: int = 0
    """Of the archive as it was."""
    line: Line
    old: Version
    new: Version | None = None
    hidden: bool = False
    """Whether names, sizes and dates in whole seconds are after the change what they were."""
    completed: set[Step] = field(default_factory=set)
    """The downloads that came to their end."""
    failures: dict[Step, str] = field(default_factory=dict)
    """What was wrong."""

    @contextlib.contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """Keep what fails here for the test that asks for it."""
        try:
            yield
        except AssertionError as error:
            self.failures.setdefault(step, str(error)[:2000])

    def finish(self, download: Download, step: Step) -> None:
        """Read *download*, which began with the old version, to its end."""
        with self.step(step):
            received = download.rest()
            self.line.versions.check(received)
            assert received.etag == self.old.etag
            if received.whole:
                self.completed.add(step)

    def is_over(self, in_use: Collection[str]) -> bool:
        """Whether the state after the change is served, or something wrong was.

        *in_use* are the files of the source that zipfs has open.
        """
        # Where no size and no date tells of the change, only a reader can come upon it, and only
        # one who opens the file: as long as anybody has it open, the old bytes are there. nginx
        # lets go of what nobody asked for in ten seconds, when it is asked for something else.
        if self.hidden and self.is_in_use(in_use):
            _ask_all_workers(self.line.versions.stand_in)
            return False
        with self.step("offered"):
            announced = head(self.line.url)
            if self.new is None:
                return announced.status == 404
            if announced.status != 200:
                return False
            if self.new is not self.old and announced.headers["etag"] == self.old.etag:
                # What of the old version is in the kernel's memory, the download that goes on
                # later would get from there. So nothing is read of it, if it isn't needed.
                if not self.hidden:
                    return False
                self.evict()
            answer = fetch(self.line.url)
            self._check(answer)
            return answer.whole and answer.etag == self.new.etag
        return True

    def is_in_use(self, files: Collection[str]) -> bool:
        """Whether the old version, which is there, can be read from what is open."""
        try:
            old = self.archive.stat().st_ino == self.inode
        except OSError:
            old = False
        # A folder that was moved away has another path.
        return old and any(
            Path(path).parent == self.members or not Path(path).is_relative_to(self.library)
            for path in files
        )

    def evict(self) -> None:
        """Have the kernel forget what it has read of the archive, and of its members."""
        with contextlib.suppress(OSError):  # the archive may be gone at any moment
            for file in (self.archive, *self.members.iterdir()):
                evict(file)

    def _check(self, received: Received) -> None:
        """Any answer: of a version, or of its content with dates that are a cache's."""
        if received.etag is None or self.line.versions.knows(received.etag):
            self.line.versions.check(received)
        elif received.whole:
            wanted = [_members(version.data) for version in (self.old, self.new) if version]
            assert _members(received.response.body) in wanted, "members of no version"

    def resume(self) -> None:
        with self.step("resumed"):
            check_resuming(self.line, self.server, self.old, self.new)


def _members(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@dataclass(frozen=True)
class Plan:
    """What is tried on one source."""

    source: str
    changes: tuple[str, ...]
    servers: tuple[str, ...]

    def __str__(self) -> str:
        return self.source


def cases(*plans: Plan) -> Callable[[TestFunction], TestFunction]:
    """Parametrise a test by all that *plans* try, which is the same for each source."""
    first = plans[0]

    def decorate(test: TestFunction) -> TestFunction:
        test = pytest.mark.parametrize("server", first.servers)(test)
        test = pytest.mark.parametrize("change", first.changes)(test)
        by_source = pytest.mark.parametrize(
            "carried_out", plans, ids=str, indirect=True, scope="module"
        )
        return by_source(test)

    return decorate


@contextlib.contextmanager
def trials(plan: Plan) -> Iterator[dict[tuple[str, str], Trial]]:
    """What came of *plan*, by the names of change and server."""
    with (
        temporary_folder(in_memory=True) as place,
        source(plan.source, place, place / "share") as shared,
    ):
        library = shared.at_server / "library"
        games = {name: f"roms/x/{_plain(name)}" for name in plan.changes}
        for game in games.values():
            # Blocks that were proven are kept by their content: those of one game are no other's.
            make(library, game, SIZE, seed=game)
        make(library, _FILLER, MEMORY // 2)
        with standing(place, shared.library / "library", plan.servers) as stand:
            stand.mounted.expect_log("reading .* ended in an error")
            made = {}
            for name, game in games.items():
                state = state_of(library / game)
                for server in plan.servers:
                    line = stand.line(server, game)
                    made[name, server] = Trial(
                        change=CHANGES[name],
                        server=server,
                        game=library / game,
                        members=shared.library / "library" / game,
                        library=shared.library / "library",
                        archive=stand.mounted.archive(game),
                        line=line,
                        old=line.versions.add_state(state),
                    )
            for trial in made.values():
                wait_announced(trial.line, trial.old)
                trial.inode = trial.archive.stat().st_ino
            _carry_out(shared, stand.mounted, made)
        yield made


def _ask_all_workers(url: str) -> None:
    """Ask a server with several processes at once so often that each of them gets something."""
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(head, [url] * 16))


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def _carry_out(shared: Source, mounted: Mounted, made: dict[tuple[str, str], Trial]) -> None:
    with contextlib.ExitStack() as downloads:
        begun = [
            [(trial, downloads.enter_context(Download(trial.line.url))) for trial in made.values()]
            for _ in range(2)
        ]
        for _, download in (*begun[0], *begun[1]):
            download.read(BEGINNING)
        games = {trial.game: trial.change for trial in made.values()}
        before = {game: _seen_of(game) for game in games}
        for game, change in games.items():
            spare = shared.at_server / "spare" / game.name
            spare.mkdir(parents=True)
            change.apply(game, spare)
        for trial, download in begun[0]:
            trial.finish(download, "at once")
        for game, change in games.items():
            if change.after is not After.NONE:
                state = state_of(game)
                for trial in made.values():
                    if trial.game == game:
                        trial.new = trial.line.versions.add_state(state)
                        trial.hidden = _seen_of(game) == before[game]
        for trial, download in begun[1]:
            if trial.hidden:
                trial.finish(download, "later")
                download.close()
        shared.forget()
        _wait(made.values(), mounted)
        for trial, download in begun[1]:
            if not trial.hidden:
                trial.finish(download, "later")
    for trial in made.values():
        if not trial.failures:
            trial.resume()


def _seen_of(game: Path) -> dict[str, tuple[int, int]]:
    """What the coarsest source tells of a game: names, sizes, and dates in seconds."""
    return {
        path.name: (path.stat().st_size, int(path.stat().st_mtime))
        for path in (game.iterdir() if game.is_dir() else ())
        if not path.name.startswith(HIDDEN)
    }


def _wait(made: Collection[Trial], mounted: Mounted) -> None:
    """Until each game is served as it is now."""
    waiting = list(made)
    root = f"{mounted.library.parent}/"

    def none_left() -> bool:
        in_use = [path for path in mounted.descriptors().values() if path.startswith(root)]
        if any(trial.hidden and not trial.is_in_use(in_use) for trial in waiting):
            evict(mounted.archive(_FILLER))
            mounted.archive(_FILLER).read_bytes()
        waiting[:] = [trial for trial in waiting if not trial.is_over(in_use)]
        if waiting:
            time.sleep(_PAUSE)
        return not waiting

    try:
        poll("the new versions", none_left)
    except AssertionError as error:
        for trial in waiting:
            trial.failures["offered"] = str(error)
