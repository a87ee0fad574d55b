"""Threads for calls that may hang: who waits for whom, and what comes back (DESIGN R3)."""

from __future__ import annotations

import contextlib
import errno
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.fs.lab import until
from zipfs.system.measuring.width import Width
from zipfs.system.threads import calls as module
from zipfs.system.threads import lanes
from zipfs.system.threads.lanes import LANE, MAX_STUCK_IN_LANE, Threads, timed_out
from zipfs.system.threads.patience import PatientLimiter

PATIENCE = 0.05
"""Seconds on a clock that the tests move: a machine with much to do may take any time."""
LONG = 60.0
"""Seconds that nothing here takes unless it is broken."""


class Hang:
    """A function that doesn't return before it is released; knows who is in it."""

    def __init__(self) -> None:
        self._released = threading.Event()
        self._lock = threading.Lock()
        self.entered = 0
        self.most = 0
        self.inside = 0

    def has(self, number: int) -> Callable[[], bool]:
        """Whether so many have entered."""
        return lambda: self.entered == number

    def __call__(self, result: object = None) -> object:
        with self._lock:
            self.entered += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
        self._released.wait(2 * LONG)
        with self._lock:
            self.inside -= 1
        return result

    def release(self) -> None:
        self._released.set()


@pytest.fixture
def hang() -> Iterator[Hang]:
    hang = Hang()
    yield hang
    hang.release()


@pytest.fixture
def clock() -> MockClock:
    """A clock that only moves when a test says so: no patience ends before its time."""
    return MockClock()


async def given_up(
    clock: MockClock, call: Callable[[], Awaitable[object]], begun: Callable[[], bool]
) -> OSError:
    """The error of *call*, whose patience ends once it has *begun*."""
    errors = []

    async def run() -> None:
        with pytest.raises(TimeoutError) as raised:
            await call()
        errors.append(raised.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await end(clock, begun)
    return errors[0]


async def end(clock: MockClock, begun: Callable[[], bool]) -> None:
    """The patience of all that waits ends, once it has *begun*."""
    await until(begun)
    await wait_all_tasks_blocked()
    clock.jump(PATIENCE)


async def test_result_and_error() -> None:
    threads = Threads(2, LONG)
    main = threading.get_ident()
    assert await threads.run(threading.get_ident) != main
    assert await threads.run(divmod, 7, 2, lane="a", item="b") == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 1, 0, lane="a", item="b")
    assert not threads.is_stuck("a", "b")


async def test_given_up_and_found(hang: Hang, clock: MockClock) -> None:
    threads = Threads(2, PATIENCE)
    error = await given_up(clock, lambda: threads.run(hang, lane="a", item=1), hang.has(1))
    assert error.errno == errno.ETIMEDOUT
    assert threads.stuck == 1
    assert threads.is_stuck("a", 1)
    assert threads.is_stuck("a")
    assert not threads.is_stuck("a", 2)
    assert not threads.is_stuck("b", 1)
    # At once, and without another thread in it.
    with pytest.raises(TimeoutError):
        await threads.run(hang, lane="a", item=1)
    with pytest.raises(TimeoutError):
        await threads.run(hang, lane="a")
    assert hang.entered == 1
    assert await threads.run(int, lane="a", item=2) == 0
    hang.release()
    await until(lambda: threads.stuck == 0)
    assert not threads.is_stuck("a", 1)
    assert await threads.run(int, lane="a", item=1) == 0


async def get_stuck(threads: Threads, hang: Hang, clock: MockClock, count: int) -> None:
    """So many threads hang in lane a, each in an item of its own."""
    for item in range(count):
        await given_up(clock, lambda: threads.run(hang, lane="a", item=item), hang.has(item + 1))  # noqa: B023 - called before the next


async def test_stuck_threads_are_made_up_for(hang: Hang, clock: MockClock) -> None:
    threads = Threads(2, PATIENCE)
    await get_stuck(threads, hang, clock, 6)
    assert threads._limiter.limiter.total_tokens == 8
    assert await threads.run(int, lane="b") == 0
    hang.release()
    await until(lambda: threads.stuck == 0)
    assert threads._limiter.limiter.total_tokens == 2
    await until(lambda: threads._limiter.limiter.borrowed_tokens == 0)  # given back a little later
    assert not threads._limiters


async def test_spare_threads_are_few(hang: Hang, clock: MockClock) -> None:
    threads = Threads(2, PATIENCE, spare=1)
    await get_stuck(threads, hang, clock, 3)
    assert (hang.entered, threads._limiter.limiter.total_tokens) == (3, 3)
    # Nobody is left; to wait is limited all the same, and counts for nobody as stuck.
    await given_up(clock, lambda: threads.run(hang, lane="b"), hang.has(3))
    assert hang.entered == 3
    assert not threads.is_stuck("b")
    hang.release()
    await until(lambda: threads.stuck == 0)
    assert await threads.run(int, lane="b") == 0


async def test_lane_leaves_room_for_others(hang: Hang) -> None:
    threads = Threads(LANE + 1, LONG)
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(lambda: threads.run(hang, lane="a"))
        await until(lambda: hang.inside == LANE)
        with trio.fail_after(LONG / 2):
            assert await threads.run(int, lane="b") == 0
        hang.release()
    assert (hang.entered, hang.most) == (50, LANE)


async def test_item_leaves_room_in_its_lane(hang: Hang) -> None:
    threads = Threads(64, LONG)
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(lambda: threads.run(hang, lane="a", item=1))
        await until(lambda: hang.inside == 1)
        with trio.fail_after(LONG / 2):
            assert await threads.run(int, lane="a", item=2) == 0
        hang.release()
    assert (hang.entered, hang.most) == (50, 1)


async def test_lane_with_too_many_stuck_items_is_given_up(hang: Hang, clock: MockClock) -> None:
    threads = Threads(2, PATIENCE)
    await get_stuck(threads, hang, clock, MAX_STUCK_IN_LANE)
    assert threads.stuck == MAX_STUCK_IN_LANE
    with pytest.raises(TimeoutError):
        await threads.run(int, lane="a", item="another")
    assert await threads.run(int, lane="b", item="another") == 0


async def test_waiting_for_a_stuck_lane_ends_with_it(hang: Hang, clock: MockClock) -> None:
    """Who waits in a lane when it is found to be stuck doesn't send in another thread."""
    threads = Threads(64, PATIENCE)

    async def run() -> None:
        with pytest.raises(TimeoutError):
            await threads.run(hang, lane="a", item=1)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(run)
        await end(clock, hang.has(1))
    assert hang.entered == 1
    assert threads.stuck == 1


async def test_discard_and_ended(hang: Hang, clock: MockClock) -> None:
    threads = Threads(2, PATIENCE)
    discarded: list[tuple[object, int]] = []
    ended: list[int] = []

    def discard(result: object) -> None:
        discarded.append((result, threading.get_ident()))

    def note() -> None:
        ended.append(threading.get_ident())

    await given_up(
        clock,
        lambda: threads.run(hang, "late", lane="a", discard=discard, ended=note),
        hang.has(1),
    )
    assert not discarded
    assert not ended, "what it was lent is still in use"
    hang.release()
    await until(lambda: bool(ended))
    assert [result for result, _ in discarded] == ["late"]
    assert discarded[0][1] != threading.get_ident() == ended[0]
    # In time: the caller has the result, and ended is told before it goes on.
    assert await threads.run(str, "now", lane="b", discard=discard, ended=note) == "now"
    assert len(ended) == 2
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 1, 0, lane="b", ended=note)
    assert len(ended) == 3
    assert len(discarded) == 1


async def test_ended_is_told_of_what_never_began(hang: Hang, clock: MockClock) -> None:
    threads = Threads(1, PATIENCE, spare=0)
    await given_up(clock, lambda: threads.run(hang, lane="a"), hang.has(1))
    ended: list[str] = []
    with pytest.raises(TimeoutError):  # its lane is stuck
        await threads.run(int, lane="a", ended=lambda: ended.append("a"))
    # No thread is free.
    await given_up(
        clock, lambda: threads.run(int, lane="b", ended=lambda: ended.append("b")), hang.has(1)
    )
    assert ended == ["a", "b"]


async def test_late_error_is_nobodys(hang: Hang, clock: MockClock) -> None:
    threads = Threads(2, PATIENCE)

    def fail() -> None:
        hang()
        raise OSError(errno.EIO, "late")

    await given_up(
        clock,
        lambda: threads.run(fail, lane="a", discard=lambda _: pytest.fail("of what?")),
        hang.has(1),
    )
    hang.release()
    await until(lambda: threads.stuck == 0)


async def test_ending_just_when_given_up() -> None:
    """The result isn't lost: it is the caller's, or discarded, and never both."""
    threads = Threads(8, 0.002)
    made: list[int] = []
    discarded: list[int] = []
    got: list[int] = []
    ended: list[int] = []

    def make(number: int, seconds: float) -> int:
        time.sleep(seconds)
        made.append(number)
        return number

    async def call(number: int) -> None:
        seconds = 0.001 + number % 40 * 0.00005
        with trio.move_on_after(LONG):
            with contextlib.suppress(TimeoutError):
                got.append(
                    await threads.run(
                        make,
                        number,
                        seconds,
                        lane=number,
                        discard=discarded.append,
                        ended=lambda: ended.append(number),
                    )
                )

    count = 0
    while count < 800 or not got:  # on a machine with much to do nearly all may be late
        async with trio.open_nursery() as nursery:
            for number in range(count, count + 8):
                nursery.start_soon(call, number)
        count += 8
    await until(lambda: threads.stuck == 0)
    assert sorted(got + discarded) == sorted(made)
    assert sorted(ended) == list(range(count))
    assert threads._limiter.limiter.total_tokens == 8


async def test_cancelled_from_outside(hang: Hang) -> None:
    """The end of the mount waits for no thread; what it comes back with is put away."""
    threads = Threads(2, LONG)
    discarded: list[object] = []
    with trio.fail_after(LONG / 2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: threads.run(hang, "late", lane="a", discard=discarded.append)
            )
            await until(lambda: hang.inside == 1)
            nursery.cancel_scope.cancel()
    hang.release()
    await until(lambda: discarded == ["late"])
    await until(lambda: threads.stuck == 0)


async def test_without_patience(hang: Hang) -> None:
    threads = Threads(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: threads.run(hang, lane="a"))
        await until(lambda: hang.inside == 1)
        nursery.start_soon(lambda: threads.run(hang, lane="a", item=1))
        nursery.start_soon(lambda: threads.run(hang, lane="a", item=1))
        await trio.sleep(0.1)
        assert threads.stuck == 0
        hang.release()
    assert hang.entered == 3


# ---------------------------------------------------------------- map


async def test_map() -> None:
    threads = Threads(2, LONG)
    assert await threads.map(str, range(1000), lane="a", key=int) == [*map(str, range(1000))]
    assert await threads.map(str, [], lane="a", key=int) == []
    with pytest.raises(ZeroDivisionError):
        await threads.map(lambda n: 1 // n, [2, 1, 0], lane="a", key=int)


async def test_map_goes_around_what_hangs(hang: Hang, clock: MockClock) -> None:
    threads = Threads(4, PATIENCE)

    def look(number: int) -> int:
        if number in (2, 5):
            hang()
        return number

    wanted = [0, 1, None, 3, 4, None, 6]
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            assert await threads.map(look, range(7), lane="a", key=int) == wanted

        await end(clock, hang.has(1))
        await end(clock, hang.has(2))
    assert [threads.is_stuck("a", number) for number in range(7)] == [n is None for n in wanted]
    # Now that they are known nobody goes in again, by whichever way they are asked for.
    assert await threads.map(look, range(7), lane="a", key=int) == wanted
    with pytest.raises(TimeoutError):
        await threads.run(look, 5, lane="a", item=5)
    assert await threads.run(look, 6, lane="a", item=6) == 6
    assert hang.entered == 2
    hang.release()
    await until(lambda: threads.stuck == 0)
    assert await threads.map(look, range(7), lane="a", key=int) == list(range(7))


async def test_map_may_take_long(clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is for one thing; a big folder on a slow disk is many."""
    monkeypatch.setattr(module, "CHUNK", 0.0)
    threads = Threads(1, PATIENCE)

    def look(number: int) -> int:
        trio.from_thread.run_sync(clock.jump, PATIENCE / 10)
        return number

    assert await threads.map(look, range(60), lane="a", key=int) == list(range(60))
    assert clock.current_time() > 5 * PATIENCE


async def test_map_takes_an_error_of_the_source_for_no_answer() -> None:
    threads = Threads(1, LONG)

    def look(number: int) -> int:
        if number == 1:
            raise timed_out()  # as a soft NFS mount does
        return number

    assert await threads.map(look, range(4), lane="a", key=int) == [0, None, 2, 3]
    assert threads.stuck == 0


async def test_map_with_no_thread_to_be_had(hang: Hang, clock: MockClock) -> None:
    threads = Threads(1, PATIENCE, spare=0)
    await given_up(clock, lambda: threads.run(hang, lane="b"), hang.has(1))
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            assert await threads.map(str, range(1000), lane="a", key=int) == [None] * 1000

        await end(clock, hang.has(1))  # once, and not for each of them


# -- Many at once ------------------------------------------------------------------------------


class Wide(Width):
    """A width that stays what it is."""

    def __init__(self, now: int) -> None:
        super().__init__(fixed=True)
        self.now = now
        self.measurements: list[tuple[int, int]] = []

    def measured(self, width: int, count: int, seconds: float, busy: float) -> None:
        self.measurements.append((width, count))


@pytest.mark.parametrize("now", [1, 3, 32])
@pytest.mark.parametrize("count", [0, 1, 2, 100, 1000])
async def test_a_wide_map(now: int, count: int) -> None:
    """All results in their order, whoever was faster; as many threads as are to be."""
    lock = threading.Lock()
    running = most = 0

    def square(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.0005 * (number % 3))
        with lock:
            running -= 1
        return number * number

    width = Wide(now)
    found = await Threads(64).map(
        square, range(count), lane="lane", key=lambda number: number, width=width
    )
    assert found == [number * number for number in range(count)]
    assert most <= now
    assert most > 1 or now == 1 or count < 100
    assert width.measurements == ([(min(now, count), count)] if count else [])


@pytest.mark.parametrize(("count", "threads"), [(0, 4), (1, 4), (7, 4), (1024, 1), (1024, 16)])
def test_all_threads_of_a_wide_map_end_at_the_same_time(count: int, threads: int) -> None:
    """A thread that has a large share last would keep the others waiting."""
    shares = [range(count)[share] for share in lanes._shares(count, threads)]
    assert [item for share in shares for item in share] == list(range(count))
    sizes = [len(share) for share in shares]
    assert sizes == sorted(sizes, reverse=True)
    if threads == 1:
        assert len(shares) == 1
    else:
        assert set(sizes[-2 * threads :]) <= {1}
        assert len(shares) <= 12 * threads  # each costs a thread's start


async def test_a_wide_map_is_cut_as_long_as_its_width_is_tried() -> None:
    """So that what is slow is asked by many in the middle of it, and not only the next time."""

    class Tried(Wide):
        @property
        def sample(self) -> int | None:
            return 10 if self.now < 4 else None

        def measured(self, width: int, count: int, seconds: float, busy: float) -> None:
            super().measured(width, count, seconds, busy)
            self.now *= 2

    width = Tried(1)
    found = await Threads(64).map(
        str, range(100), lane="lane", key=lambda number: number, width=width
    )
    assert found == [str(number) for number in range(100)]
    assert width.measurements == [(1, 10), (2, 10), (4, 80)]


async def test_a_wide_map_of_which_one_hangs() -> None:
    """It alone has no result, and calls beside it have the lane."""
    threads = Threads(64, patience=5.0)
    release = threading.Event()

    def look(number: int) -> int:
        if number == 77:
            release.wait()
        return number

    width = Wide(8)
    try:
        found = await threads.map(look, range(200), lane="lane", key=lambda n: n, width=width)
        assert [n for n, result in enumerate(found) if result is None] == [77]
        assert threads.stuck == 1
        assert width.measurements == []
        assert await threads.run(look, 78, lane="lane", item=78) == 78
        with pytest.raises(TimeoutError):
            await threads.run(look, 77, lane="lane", item=77)
    finally:
        release.set()
    await until(lambda: not threads.stuck)


async def test_an_error_in_a_wide_map() -> None:
    def fail(number: int) -> int:
        raise LookupError(number)

    with pytest.raises(LookupError):
        await Threads(8).map(fail, range(50), lane="lane", key=lambda n: n, width=Wide(4))


async def test_what_has_much_to_do_is_not_given_up(clock: MockClock) -> None:
    """However long it takes; but once it waits for something, it is."""
    threads = Threads(2, PATIENCE)
    steps = 0
    go_on, end_it = threading.Semaphore(0), threading.Event()

    def work() -> str:
        nonlocal steps
        while steps < 5:
            busy()
            steps += 1
            assert go_on.acquire(timeout=LONG)
        assert end_it.wait(LONG)
        return "done"

    async with trio.open_nursery() as nursery:
        results = []

        async def run() -> None:
            results.append(await threads.run(work, lane="a", item=1))

        nursery.start_soon(run)
        for step in range(5):
            await until(lambda step=step: steps == step + 1)  # type: ignore[misc]  # mypy can't infer a lambda's default
            await wait_all_tasks_blocked()
            clock.jump(PATIENCE)
            await wait_all_tasks_blocked()
            assert threads.stuck == 0
            go_on.release()
        end_it.set()
    assert results == ["done"]
    assert threads.stuck == 0

    hang = Hang()

    def begin() -> None:
        busy()
        hang()

    async def twice() -> None:
        await end(clock, hang.has(1))
        await wait_all_tasks_blocked()
        assert threads.stuck == 0
        clock.jump(PATIENCE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(twice)
        with pytest.raises(TimeoutError):
            await threads.run(begin, lane="a", item=1)
    assert threads.is_stuck("a", 1)
    hang.release()
    await until(lambda: threads.stuck == 0)


# -- Behind others -----------------------------------------------------------------------------


def busy() -> None:
    """Be at work for long enough to be seen."""
    enough = time.thread_time() + 2 * module._BUSY_SECONDS
    while time.thread_time() < enough:
        pass


@pytest.mark.parametrize("behind", ["item", "lane", "threads"])
async def test_who_waits_behind_work_has_time(behind: str, clock: MockClock) -> None:
    """A list of half a million files takes its time, and who asks for that game then has it."""
    threads = Threads(1 if behind == "threads" else 64, PATIENCE)
    count = LANE if behind == "lane" else 1
    begun = threading.Semaphore(0)
    # One for each: else a quick one could have two turns, and another none.
    go_on = [threading.Semaphore(0) for _ in range(count)]
    results: list[object] = []

    def work(number: int) -> int:
        for _ in range(5):
            busy()
            begun.release()
            assert go_on[number].acquire(timeout=LONG)
        return number

    async def run(number: int, lane: str, item: object) -> None:
        results.append(await threads.run(work, number, lane=lane, item=item))

    async def wait() -> None:
        lane = "b" if behind == "threads" else "a"
        item = 0 if behind == "item" else "other"
        results.append(await threads.run(str, "behind", lane=lane, item=item))

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(run, number, "a", number)
        for step in range(5):
            for _ in range(count):
                await trio.to_thread.run_sync(begun.acquire)
            if not step:
                nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            clock.jump(PATIENCE * 0.99)
            await wait_all_tasks_blocked()
            clock.jump(PATIENCE * 0.01)
            await wait_all_tasks_blocked()
            assert threads.stuck == 0
            for each in go_on:
                each.release()
    assert sorted(results, key=str) == [*range(count), "behind"]


async def test_who_waits_behind_many_has_time(clock: MockClock) -> None:
    """Each of them takes less than its time, all of them more."""
    threads = Threads(64, PATIENCE)

    def take(number: int) -> int:
        trio.from_thread.run_sync(clock.jump, PATIENCE / 3)
        return number

    results: list[int] = []

    async def run(number: int) -> None:
        results.append(await threads.run(take, number, lane="a", item=1))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(run, number)
    assert sorted(results) == list(range(20))
    assert clock.current_time() > 6 * PATIENCE
    assert not threads._limiters


async def test_who_waits_behind_what_does_not_answer_has_no_more_time(
    hang: Hang, clock: MockClock
) -> None:
    """A source that says after a while that it doesn't answer isn't at work."""
    threads = Threads(64, PATIENCE)
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        trio.from_thread.run_sync(clock.jump, PATIENCE / 3)
        raise timed_out()  # as a soft NFS mount does

    failures: list[float] = []

    async def run() -> None:
        with pytest.raises(TimeoutError):
            await threads.run(ask, lane="a", item=1)
        failures.append(clock.current_time())

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(run)
    assert len(failures) == 20
    assert asked < 6
    assert max(failures) < 2 * PATIENCE


async def test_cancelled_just_when_it_is_its_turn() -> None:
    """What it had been given goes to the next one."""
    limiter = PatientLimiter(1, LONG)
    await limiter.acquire_on_behalf_of("first", trio.CancelScope())
    scope = trio.CancelScope(deadline=trio.current_time() + LONG)
    took: list[str] = []

    async def wait() -> None:
        with scope:
            await limiter.acquire_on_behalf_of("second", scope)
            took.append("second")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        limiter.limiter.release_on_behalf_of("first")
        assert limiter.limiter.borrowed_tokens == 1
        scope.cancel()
    assert took == []
    assert limiter.is_idle


class Buffer:
    """What a call has in memory."""


@pytest.mark.parametrize("is_wide", [False, True])
async def test_an_error_leaves_no_garbage(*, is_wide: bool) -> None:
    """It has all frames that it went through, with a megabyte to read into, and each read of a
    game that changed ends in one. Garbage is looked for rarely."""
    threads = Threads(4)
    made: list[weakref.ref[Buffer]] = []

    def fail(_: int) -> None:
        buffer = Buffer()
        made.append(weakref.ref(buffer))
        raise OSError(errno.EIO, "Input/output error")

    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(OSError):
            if is_wide:
                width = Wide(2)
                await threads.map(fail, [1], lane="lane", key=lambda n: n, width=width)
            else:
                await threads.run(fail, 1, lane="lane", item="item")
        await until(lambda: made[0]() is None)
    finally:
        gc.enable()
