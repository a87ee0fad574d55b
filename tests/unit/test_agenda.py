"""The agenda: what waits goes on when it should, in few tasks, and lanes don't hold each other."""

from __future__ import annotations

import math
from collections.abc import Hashable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from zipfs.system.threads.agenda import WORKERS, Agenda, Stage, Waiter


class Thing(Waiter):
    """Waits as *plans* say, one after the other, and then is over."""

    def __init__(self, agenda: Agenda[Thing], name: str, *plans: float) -> None:
        super().__init__(agenda)
        self.name = name
        self.plans = iter(plans)


class Lab:
    def __init__(self) -> None:
        self.agenda: Agenda[Thing] = Agenda(self.plan, self.work, self.lane)
        self.planned: list[str] = []
        self.begun = ""
        self.worked: list[tuple[str, float]] = []
        """Which, and when; seconds since the start."""
        self.closed: set[Hashable] = set()
        """Lanes in which work doesn't end."""
        self.at_work = 0
        self.started = trio.current_time()

    @property
    def done(self) -> str:
        return "".join(name for name, _ in self.worked)

    def lane(self, thing: Thing) -> Hashable:
        return thing.name[0].isupper()

    def plan(self, thing: Thing) -> float | None:
        self.planned.append(thing.name)
        after = next(thing.plans, None)
        return None if after is None else self.started + after

    async def work(self, thing: Thing) -> None:
        assert thing.stage is Stage.AT_WORK
        self.at_work += 1
        self.begun += thing.name
        if self.lane(thing) in self.closed:
            await trio.sleep_forever()
        await trio.sleep(1)
        self.at_work -= 1
        self.worked.append((thing.name, trio.current_time() - self.started))

    def add(self, name: str, *plans: float) -> Thing:
        thing = Thing(self.agenda, name, *plans)
        self.agenda.begin(thing)
        return thing


@pytest.fixture
def clock() -> MockClock:
    return MockClock()


@pytest.fixture
async def lab() -> Lab:
    return Lab()


@pytest.fixture
async def running(lab: Lab, nursery: trio.Nursery) -> Lab:
    nursery.start_soon(lab.agenda.run)
    return lab


NOW = -math.inf


async def pass_time(clock: MockClock, seconds: float) -> None:
    """Let so many *seconds* pass, and everything happen that does meanwhile."""
    clock.autojump_threshold = 0
    await trio.sleep(seconds)


async def test_each_goes_on_when_its_time_has_come(running: Lab, clock: MockClock) -> None:
    running.add("b", 20)
    running.add("a", 10)
    running.add("c", NOW, 30)
    running.add("nothing")
    await pass_time(clock, 50)
    assert running.worked == [("c", 1), ("a", 11), ("b", 21), ("c", 31)]
    assert len(running.agenda) == 0
    assert running.agenda.workers == 0


async def test_what_came_before_it_runs(lab: Lab, nursery: trio.Nursery, clock: MockClock) -> None:
    lab.add("a", NOW)
    late = lab.add("b", math.inf)
    await pass_time(clock, 5)
    assert lab.worked == []
    assert late.stage is Stage.WOKEN
    nursery.start_soon(lab.agenda.run)
    await pass_time(clock, 5)
    assert lab.done == "a"
    assert late.stage is Stage.WAITING


async def test_what_it_waits_for_comes(running: Lab, clock: MockClock) -> None:
    thing = running.add("a", math.inf)
    await pass_time(clock, 5)
    assert running.worked == []
    running.agenda.ready(thing)
    running.agenda.ready(thing)
    assert thing.stage is Stage.READY
    await pass_time(clock, 5)
    assert running.worked == [("a", 6)]
    assert thing.stage is Stage.OVER
    running.agenda.ready(thing)
    thing.wake()
    running.agenda.wait_less(thing, NOW)
    assert len(running.agenda) == 0


async def test_a_wait_is_shortened_and_not_lengthened(running: Lab, clock: MockClock) -> None:
    short = running.add("a", 20)
    forever = running.add("b", math.inf)
    same = running.add("c", 30)
    await pass_time(clock, 5)
    running.agenda.wait_less(short, running.started + 10)
    running.agenda.wait_less(forever, running.started + 12)
    running.agenda.wait_less(same, running.started + 40)
    await pass_time(clock, 50)
    assert running.worked == [("a", 11), ("b", 13), ("c", 31)]


async def test_who_is_woken_is_planned_anew(running: Lab, clock: MockClock) -> None:
    thing = running.add("a", math.inf, 10)
    over = running.add("b", 7)
    await pass_time(clock, 5)
    thing.wake()
    thing.wake()
    over.wake()
    await pass_time(clock, 1)
    assert running.planned == ["a", "b", "a", "b"]
    assert over.stage is Stage.OVER
    await pass_time(clock, 20)
    assert running.worked == [("a", 11)]


async def test_few_tasks_work_in_a_lane(running: Lab, clock: MockClock) -> None:
    for _ in range(10 * WORKERS):
        running.add("a", NOW)
    await pass_time(clock, 0.5)
    assert running.agenda.workers == running.at_work == WORKERS
    await pass_time(clock, 9)
    assert running.agenda.workers == running.at_work == WORKERS
    await pass_time(clock, 1)
    assert running.agenda.workers == 0
    assert running.done == 10 * WORKERS * "a"


async def test_a_lane_that_hangs_holds_no_other(running: Lab, clock: MockClock) -> None:
    """DESIGN R3."""
    running.closed.add(True)
    for _ in range(10 * WORKERS):
        running.add("A", NOW)
        running.add("b", NOW)
    await pass_time(clock, 11)
    assert running.done == 10 * WORKERS * "b"
    assert len(running.agenda) == 10 * WORKERS


async def test_whoever_is_asked_for_comes_first(running: Lab, clock: MockClock) -> None:
    first = [running.add("a", math.inf) for _ in range(WORKERS)]
    b, c, d, e = (running.add(name, math.inf) for name in "bcde")
    await pass_time(clock, 1)
    for thing in first:
        running.agenda.ready(thing)
    await pass_time(clock, 0.5)
    running.agenda.hurry(e)  # before it is ready
    for thing in (b, c, d):
        running.agenda.ready(thing)
    running.agenda.hurry(d)  # and after
    running.agenda.ready(e)
    running.agenda.hurry(first[0])  # too late, and no harm
    await pass_time(clock, 5)
    assert running.begun == WORKERS * "a" + "edbc"
    assert len(running.agenda) == 0


async def test_very_many_leave_others_their_turn(running: Lab, clock: MockClock) -> None:
    """Whether they are planned, or their time has come."""
    for _ in range(1000):
        running.add("a", 10)
    turns = 0
    while len(running.planned) < 1000:
        await trio.lowlevel.checkpoint()
        turns += 1
    assert turns > 10
    await pass_time(clock, 10)
    await wait_all_tasks_blocked()
    assert running.agenda.workers == WORKERS
    await pass_time(clock, 1000)
    assert len(running.worked) == 1000
