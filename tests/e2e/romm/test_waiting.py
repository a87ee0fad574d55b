"""Downloads before there is an archive, and while there can't be one (DESIGN S1, R3)."""

from __future__ import annotations

import os
import re
import signal
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Final

from tests.e2e.curl import QUIET, Response, get, get_range, head
from tests.e2e.programs import run, running
from tests.e2e.romm.stand import LOGIN, Stand, romm, seen_through, standing
from tests.support.libraries import content, make_game
from tests.support.mounting import Mounts
from tests.support.waiting import poll

GAME: Final = "roms/psx/Game"
OTHER: Final = "roms/psx/Other"
ONE: Final = ("--workers", "1")
BRIEFLY: Final = "3"
"""Seconds: what a call takes on a loaded machine is less."""
HANGS: Final = "disk or mount doesn't answer"
NOT_YET: Final = "no archive yet"


def _check_old_way(answer: Response, folder: Path, reason: str) -> None:
    """All files of *folder* and the playlist; it can't be resumed, and says so and why."""
    assert answer.status == 200
    assert answer.headers["x-zipfs"] == reason
    assert answer.headers["accept-ranges"] == "none"
    assert not {"content-length", "etag", "last-modified"} & answer.headers.keys()
    with zipfile.ZipFile(BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        sizes = {one.filename: one.file_size for one in archive.infolist()}
    assert sizes.pop(f"{folder.name}.m3u")
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert sizes == {str(file.relative_to(folder)): file.stat().st_size for file in files}


def test_sixteen_first_requests_at_once(library: Path, place: Path, mount: Mounts) -> None:
    """Of a game of 3,000 files, for which RomM blocks its loop; each worker is asked once."""
    make_game(library, GAME, {f"{number % 10}/{number}": b"%d" % number for number in range(3000)})
    with standing(library, place, mounts=mount, options=("--selection=romm",)) as stand:
        stand.mounted.wait_archive(GAME)  # hashed; of the list nobody knows
        url = stand.romm.game(GAME)

        def part(number: int) -> Response:
            return get_range(url, f"{number * 5000}-{number * 5000 + 4999}", *LOGIN)

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(part, range(16)))
        assert [answer.status for answer in answers] == [206] * 16
        assert len({answer.headers["etag"] for answer in answers}) == 1
        assert 1 <= len(stand.romm.asked()) <= 2
        whole = get(url, *LOGIN).body
        assert b"".join(answer.body for answer in answers) == whole[: 16 * 5000]
        assert len(list(stand.lists.iterdir())) == 1


@contextmanager
def _changing(file: Path) -> Iterator[None]:
    """*file* gets other bytes of the same size all the time, until the block ends."""
    end = threading.Event()
    size = file.stat().st_size

    def change() -> None:
        number = 0
        while not end.wait(0.02):
            number += 1
            with file.open("r+b") as opened:
                opened.write(content(size, number))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_a_game_that_changes(library: Path, place: Path, mount: Mounts) -> None:
    """It comes the old way, whole whatever is asked for; and from its archive once it is still."""
    folder = make_game(library, GAME, {"a": content(30_000), "b": content(20_000, 1)})
    with standing(library, place, mounts=mount, settings={"ZIPFS_WAIT": BRIEFLY}) as stand:
        url = stand.romm.game(GAME)
        with _changing(folder / "a"):
            # Its archive of before goes with the first change that is noticed.
            poll("the old way", lambda: get(url, *LOGIN).headers.get("x-zipfs") == NOT_YET)
            _check_old_way(get(url, *LOGIN), folder, NOT_YET)
            _check_old_way(get_range(url, "1000-1999", *LOGIN), folder, NOT_YET)
            told = head(url, *LOGIN)
            assert (told.status, told.headers["x-zipfs"]) == (200, NOT_YET)
            # A program that resumes isn't given what doesn't fit.
            file = place / "file"
            file.write_bytes(b"x" * 1000)
            no_ranges = 33
            run(*QUIET, "-C", "-", "-o", file, *LOGIN, url, status=(no_ranges,))
            assert file.stat().st_size == 1000
        poll("the archive", lambda: get_range(url, "0-9", *LOGIN).status == 206)
        whole = get(url, *LOGIN)
        assert "etag" in whole.headers
        assert get_range(url, "1000-1999", *LOGIN).body == whole.body[1000:2000]
    log = stand.romm.backend.log.read_text()
    told = re.findall(r"\[(\d+)\] \[WARNING\] zipfs: not from an archive: (.*) \(list \w+\)", log)
    assert len(set(told)) == len(told), "more than a line a minute from one process"
    assert {reason for _, reason in told} == {NOT_YET}


def test_a_mount_that_hangs(library: Path, place: Path, mount: Mounts) -> None:
    """Downloads wait for it, each in a thread; what else RomM is asked meanwhile it answers."""
    make_game(library, GAME, {"a": content(30_000), "b": content(20_000, 1)})
    with standing(library, place, mounts=mount, arguments=ONE) as stand:
        stand.mounted.wait_sealed()
        url = stand.romm.game(GAME)
        with _stopped(stand), running(*QUIET, "-i", "-r", "0-9", *LOGIN, url) as download:
            poll("the list", lambda: list(stand.lists.glob("*.list")))
            for _ in range(5):
                assert get(f"{stand.romm.url}/api/heartbeat").status == 200
            assert download.poll() is None
            os.kill(stand.mounted.process.pid, signal.SIGCONT)
            assert download.stdout
            assert download.stdout.read().startswith(b"HTTP/1.1 206 ")


@contextmanager
def _stopped(stand: Stand) -> Iterator[None]:
    os.kill(stand.mounted.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stand.mounted.process.pid, signal.SIGCONT)


def test_a_mount_that_hangs_for_longer(library: Path, place: Path, mount: Mounts) -> None:
    folder = make_game(library, GAME, {"a": content(30_000), "b": content(20_000, 1)})
    make_game(library, OTHER, {"a": b"a", "b": b"b"})
    settings = {"ZIPFS_WAIT": BRIEFLY}
    with standing(library, place, mounts=mount, arguments=ONE, settings=settings) as stand:
        stand.mounted.wait_sealed()
        poll("one", lambda: get_range(stand.romm.game(OTHER), "0-9", *LOGIN).status == 206)
        url = stand.romm.game(GAME)  # of which the kernel hasn't heard yet
        with _stopped(stand):
            _check_old_way(get(url, *LOGIN), folder, HANGS)
            _check_old_way(get_range(url, "1000-", *LOGIN), folder, HANGS)
        poll("the mount to be tried again", lambda: get_range(url, "0-9", *LOGIN).status == 206)


def test_workers_come_and_go(library: Path, place: Path, mount: Mounts) -> None:
    """gunicorn replaces each after a few requests, as it does to bound their memory."""
    make_game(library, GAME, {"a": content(30_000), "b": content(20_000, 1)})
    few = ("--workers", "2", "--max-requests", "3")
    with standing(library, place, mounts=mount, arguments=few) as stand:
        url = stand.romm.game(GAME)

        def renewed() -> bool:
            assert get_range(url, "0-9", *LOGIN).status == 206
            return stand.romm.backend.log.read_text().count("zipfs: downloads of several") > 5

        poll("new workers", renewed)


def test_without_zipfs(library: Path, place: Path) -> None:
    """No mount, or no folder for lists: RomM serves as before; or says when to come back."""
    folder = make_game(library, GAME, {"a": b"a", "b": b"b"})
    lists = place / "lists"
    settings = {"ZIPFS_WAIT": BRIEFLY, "ZIPFS_LISTS": str(lists)}
    with romm(library, place, settings=settings, arguments=ONE) as running:
        url = running.game(GAME)
        _check_old_way(get(url, *LOGIN), folder, f"there is no folder {lists}")
        lists.mkdir()
        shown = place / "cache/zipfs/.lists"
        _check_old_way(get(url, *LOGIN), folder, f"there is no folder {shown}")


def test_without_zipfs_before_romm(library: Path, place: Path) -> None:
    """The same with nginx's JavaScript: RomM is asked once more, by its own nginx."""
    folder = make_game(library, GAME, {"a": b"a", "b": b"b"})
    lists = place / "lists"
    with romm(library, place, hook=None, cache=False, arguments=ONE) as behind:
        with seen_through(behind, place, lists=lists, wait="0.1") as running:
            url = running.game(GAME)
            for answer in (get(url, *LOGIN), get_range(url, "5-", *LOGIN)):
                assert "No such file or directory" in answer.headers["x-zipfs"]
                _check_old_way(answer, folder, answer.headers["x-zipfs"])
            lists.mkdir(mode=0o777)
            lists.chmod(0o777)
            _check_old_way(get(url, *LOGIN), folder, NOT_YET)
            (written,) = lists.iterdir()
            assert written.suffix == ".list"
        with seen_through(behind, place, lists=lists, largest="50") as running:
            answer = get(running.game(GAME), *LOGIN)
            assert zipfile.ZipFile(BytesIO(answer.body)).namelist() == ["a", "b", "Game.m3u"]
            assert "x-zipfs" not in answer.headers
            assert list(lists.iterdir()) == [written]
        with seen_through(behind, place, lists=lists, wait="0.1", fallback="503") as running:
            url = running.game(GAME)
            for answer in (get(url, *LOGIN), head(url, *LOGIN), get_range(url, "5-", *LOGIN)):
                assert (answer.status, answer.headers["retry-after"]) == (503, "5")
                assert answer.headers["x-zipfs"] == NOT_YET


def test_not_the_old_way_either(library: Path, place: Path) -> None:
    make_game(library, GAME, {"a": b"a", "b": b"b"})
    settings = {"ZIPFS_LISTS": str(place / "none"), "ZIPFS_FALLBACK": "503", "ZIPFS_WAIT": "soon"}
    with romm(library, place, settings=settings, arguments=ONE) as running:
        url = running.game(GAME)
        for answer in (get(url, *LOGIN), head(url, *LOGIN), get_range(url, "5-", *LOGIN)):
            assert (answer.status, answer.headers["retry-after"], answer.body) == (503, "5", b"")
        assert get(url).status == 401
        log = running.backend.log.read_text()
    wrong = "ZIPFS_WAIT='soon' isn't a number of seconds up to 3600; it is 5.0 now"
    assert log.count(wrong) == 1
    assert log.count("not from an archive") == 1
