"""`make endure`: what it calls flat, how it does a day's work, and what it takes for right."""

from __future__ import annotations

import io
import random
import re
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import BenchError
from bench.endure.day import Day, Kind
from bench.endure.findings import Course, judge, read, tables, write
from bench.endure.flat import Point, is_flat, judge_memory, judge_quiet, theil_sen, windowed
from bench.endure.library import EXCUSED, Library
from bench.endure.probe import Probe, Process, Sample
from tests.model.versions import ModelError
from tests.support.waiting import poll
from zipfs.archive.validators import nginx_etag

HOUR = 3600.0


def course_of(mib_a_day: float = 0.0, *, bursts: bool = True) -> list[Point]:
    """An hour's samples of a process of 80 MiB with bursts, which leaks so much."""
    rng = random.Random(3)
    points = []
    for when in range(0, 3600, 5):
        burst = 30 * rng.random() ** 6 if bursts else 0.0
        points.append((float(when), 80 + burst + mib_a_day * when / HOUR))
    return points


# -- Flat ------------------------------------------------------------------------


def test_windows_are_medians() -> None:
    points = [(0.0, 1.0), (1.0, 9.0), (2.0, 2.0), (10.0, 5.0), (31.0, 7.0)]
    assert windowed(points, 10) == [(1.0, 2.0), (10.0, 5.0), (31.0, 7.0)]


def test_the_slope_is_that_of_most_pairs() -> None:
    points = [(float(x), 2.0 * x) for x in range(20)]
    assert theil_sen(points) == 2
    for outlier in (3, 11, 12):
        points[outlier] = (float(outlier), 1e6)
    assert theil_sen(points) == pytest.approx(2)
    assert theil_sen(points[:1]) is None


@pytest.mark.parametrize(
    ("mib_a_day", "flat"), [(0, True), (2, True), (6, False), (20, False), (-20, True)]
)
def test_a_leak_is_found_among_bursts(mib_a_day: float, flat: bool) -> None:
    verdict = judge_memory("memory", course_of(mib_a_day), run=HOUR)
    assert verdict.met is flat
    assert verdict.figure == pytest.approx(mib_a_day, abs=1)


def test_a_cache_that_fills_and_empties_is_flat() -> None:
    points = [(when, 80 + 10 * (when % 700 / 700)) for when, _ in course_of()]
    assert judge_memory("memory", points, run=HOUR).met is True


def test_a_step_in_the_middle_is_not_flat() -> None:
    points = [(when, value + 15 * (when > HOUR / 2)) for when, value in course_of()]
    assert judge_memory("memory", points, run=HOUR).met is False


def test_of_too_few_samples_nothing_is_told() -> None:
    verdict = judge_memory("memory", course_of()[:3], run=HOUR)
    assert verdict.met is None
    assert is_flat([verdict])
    assert judge_quiet("threads", [(700.0, 4)], 600).met is None


@pytest.mark.parametrize(
    ("counts", "flat"),
    [([9, 4, 4, 4], True), ([3, 4, 4, 3], True), ([4, 4, 5, 4], False), ([4, 4, 4, 5], False)],
)
def test_quiet_moments_are_compared_with_the_first_after_the_warm_up(
    counts: list[int], flat: bool
) -> None:
    moments = [(300.0 * (1 + number), float(count)) for number, count in enumerate(counts)]
    assert judge_quiet("threads", moments, 500.0).met is flat


# -- What was found --------------------------------------------------------------


def sample(when: float, phase: str, threads: int, uss: float = 80.0) -> Sample:
    process = Process(
        rss=uss + 17, pss=uss + 1, uss=uss, threads=threads, descriptors=16, cpu=when / 10
    )
    return Sample(
        when=when, phase=phase, daemon=process, hasher=None, index=1 << 20, wal=0, done=1,
        received=1000,
    )  # fmt: skip


def found(last_threads: int, minutes: float = 60) -> Course:
    samples = []
    for second in range(0, int(minutes * 60), 5):
        in_block = second % 360
        phase = "judged" if in_block >= 350 else "quiet" if in_block >= 315 else "load"
        threads = 12 if phase == "load" else 4
        if phase != "load" and second >= minutes * 60 - 45:
            threads = last_threads
        elif in_block == 350:  # something is looked at now and then, even if nobody asks
            threads += second // 360 % 3
        samples.append(sample(float(second), phase, threads))
    return Course(
        date="2026-01-01", linux="6.1", python="3.11", cpus=2, seed=1, minutes=minutes,
        warm=minutes * 10, work=[("listings", 5, 5)], answers={"bodies compared": 7}, received=1000,
        marks=[(5.0, "find")], samples=samples,
    )  # fmt: skip


@pytest.mark.parametrize(("last", "flat"), [(4, True), (5, False)])
def test_one_thread_more_in_the_last_quiet_moment_is_told(last: int, flat: bool) -> None:
    course = found(last)
    judge(course)
    assert is_flat(course.verdicts) is flat
    assert [verdict.what for verdict in course.verdicts if verdict.met is False] == (
        [] if flat else ["threads"]
    )


def test_of_a_short_run_memory_is_not_judged() -> None:
    course = found(4, minutes=12)
    judge(course)
    assert {verdict.met for verdict in course.verdicts if "memory" in verdict.what} == {None}


def test_what_was_found_can_be_read_again(tmp_path: Path) -> None:
    course = found(4)
    course.fail("something")
    judge(course)
    path = tmp_path / "endure.json"
    write(course, path)
    assert read(path) == course
    assert len(list(tables(read(path)))) == 4
    path.write_text("{}")
    with pytest.raises(BenchError, match=re.escape(str(path))):
        read(path)


def test_the_probe_sees_a_process_as_it_is(tmp_path: Path) -> None:
    probe = Probe(pid=1 << 30, index=tmp_path / "none", start=time.monotonic())
    probe.take("load", 0, 0)
    assert probe.samples == []  # no such process

    # Not ourselves: other tests may have left threads behind that come to their ends.
    with (tmp_path / "file").open("w") as file:
        other = subprocess.Popen(["sleep", "60"], pass_fds=[file.fileno()])
        fewer = subprocess.Popen(["sleep", "60"])
    try:
        for process in (other, fewer):
            probe.pid = process.pid
            wait_until_it_sleeps(process.pid)
            probe.take("load", 0, 0)
    finally:
        for process in (other, fewer):
            process.kill()
            process.wait()
    first, second = (one.daemon for one in probe.samples)
    assert first.descriptors == second.descriptors + 1
    assert first.threads == 1
    assert 0 < first.uss <= first.pss <= first.rss


def wait_until_it_sleeps(pid: int) -> None:
    def sleeps() -> bool:
        # While it is loaded its libraries are open.
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return "Name:\tsleep" in lines and "State:\tS (sleeping)" in lines

    poll("the program to run", sleeps)


# -- A day's work ----------------------------------------------------------------


@pytest.fixture
def days() -> Iterator[list[Day]]:
    made: list[Day] = []
    yield made
    for day in made:
        day.end(10)


def wait_until_done(day: Day) -> None:
    until = time.monotonic() + 30
    while day.unfinished or day.busy:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_day_is_done_to_the_last_thing(days: list[Day]) -> None:
    kinds = [
        Kind("many", "many", 1000, turn=7, lanes=3),
        Kind("one", "one", 1),
    ]
    jobs = {kind.key: lambda rng, count: count for kind in kinds}
    day = Day(kinds, jobs, active=0.3, share=1.0, seed=1)
    days.append(day)
    day.start()
    time.sleep(0.1)
    assert not day.done  # nobody begins before it is opened
    began = time.monotonic()
    day.open()
    wait_until_done(day)
    assert time.monotonic() - began > 0.2  # spread over the time, and not at once
    assert day.done == {"many": 1000, "one": 1}
    assert day.short() == []


def test_nothing_begins_while_it_is_quiet(days: list[Day]) -> None:
    kind = Kind("work", "work", 400)
    day = Day([kind], {"work": lambda rng, count: count}, active=1.0, share=1.0, seed=1)
    days.append(day)
    day.start()
    day.open()
    time.sleep(0.2)
    day.close()
    while day.busy:
        time.sleep(0.01)
    done = day.done["work"]
    time.sleep(0.3)
    assert 0 < day.done["work"] == done < 400
    day.open()
    wait_until_done(day)
    assert day.done["work"] == 400


def test_what_goes_wrong_is_told_and_the_rest_is_done(days: list[Day]) -> None:
    def job(_rng: random.Random, count: int) -> int:
        if day.done["work"] < 2:
            return count
        if day.failed == 0:
            raise ModelError("wrong bytes")
        raise RuntimeError("a defect of ours")

    day = Day([Kind("work", "work", 5)], {"work": job}, active=0.1, share=1, seed=1)
    days.append(day)
    day.start()
    day.open()
    wait_until_done(day)
    assert day.failed == 3
    assert "wrong bytes" in day.failures[0]
    assert "a defect of ours" in day.failures[1]
    assert day.short() == ["work"]


def test_a_shorter_run_has_its_share(days: list[Day]) -> None:
    day = Day([], {}, active=1, share=0.05, seed=1)
    days.append(day)
    assert day.quota(Kind("x", "x", 2000)) == 100
    assert day.quota(Kind("x", "x", 4)) == 1


# -- What is right ---------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path) -> Library:
    (tmp_path / "library").mkdir()
    return Library(tmp_path / "library", tmp_path / "aside")


def test_a_version_is_the_zip_of_its_files(library: Library) -> None:
    """To a reader that has nothing of zipfs or of the model."""
    library.add_game(random.Random(1))
    [archive] = library.changing()
    game = library.all[archive]
    assert game.history.now.version
    with zipfile.ZipFile(io.BytesIO(game.history.now.version.read(0, 1 << 30))) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    assert members == {path.name: path.read_bytes() for path in game.folder.iterdir()}


def test_each_version_of_a_game_is_right_and_no_mixture(library: Library, tmp_path: Path) -> None:
    rng = random.Random(1)
    library.add_game(rng)
    [archive] = library.changing()
    for _ in range(4):
        assert library.change("replace", rng) == library.change("rewrite", rng) == archive
    versions = library.all[archive].history.known
    assert len(versions) > 8
    file = tmp_path / "it.zip"
    for version in versions:
        file.write_bytes(version.read(0, version.size))
        library.check_file(archive, file)
    body = file.read_bytes()
    file.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    with pytest.raises(ModelError, match="no version"):
        library.check_file(archive, file)
    library.verify()


@pytest.mark.parametrize("kind", ["replace", "rewrite", "rename_game", "remove_game"])
def test_a_version_of_long_ago_is_wrong(
    library: Library, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.endure.library.FEWEST", 0)
    for seed in range(3):
        library.add_game(random.Random(seed))
    before = {path: library.all[path].history.now for path in library.changing()}
    library.change(kind, random.Random(4))
    [archive] = [path for path, epoch in before.items() if library.all[path].history.now != epoch]
    version = before[archive].version
    assert version
    etag = nginx_etag(version.first, version.size)
    assert library.identify_http(archive, etag) is version
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + EXCUSED + 1)
    with pytest.raises(ModelError, match="long ago"):
        library.identify_http(archive, etag)


def test_what_was_not_touched_is_not_excused(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.add_game(random.Random(1))
    [archive] = library.changing()
    assert library.is_excused(archive)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + EXCUSED + 1)
    assert not library.is_excused(archive)
    renamed = library.change("rename_game", random.Random(1))
    assert renamed
    assert library.is_excused(renamed)
    now += 2 * EXCUSED
    assert not library.is_excused(renamed)
    assert library.is_excused(archive)  # gone for good
