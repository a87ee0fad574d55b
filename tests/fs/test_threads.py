"""Threads for calls that may hang: who waits for whom, and what comes back (DESIGN R3)."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Iterator

import pytest
import trio

from tests.fs.lab import until
from zipfs.system import lanes as module
from zipfs.system.lanes import LANE, MAX_STUCK_IN_LANE, Threads, timed_out

PATIENCE = 0.05
LONG = 10.0
"""Seconds that nothing here takes unless it is broken."""


class Hang:
    """A function that doesn't return before it is released; knows who is in it."""

    def __init__(self) -> None:
        self._released = threading.Event()
        self._lock = threading.Lock()
        self.entered = 0
        self.most = 0
        self.inside = 0

    def __call__(self, result: object = None) -> object:
        with self._lock:
            self.entered += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
        self._released.wait(LONG)
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


async def test_result_and_error() -> None:
    threads = Threads(2, LONG)
    main = threading.get_ident()
    assert await threads.run(threading.get_ident) != main
    assert await threads.run(divmod, 7, 2, lane="a", item="b") == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 1, 0, lane="a", item="b")
    assert not threads.is_stuck("a", "b")


async def test_given_up_and_found(hang: Hang) -> None:
    threads = Threads(2, PATIENCE)
    with pytest.raises(TimeoutError) as raised:
        await threads.run(hang, lane="a", item=1)
    assert raised.value.errno == errno.ETIMEDOUT
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


async def test_stuck_threads_are_made_up_for(hang: Hang) -> None:
    threads = Threads(2, PATIENCE)
    for item in range(6):
        with pytest.raises(TimeoutError):
            await threads.run(hang, lane="a", item=item)
    assert threads._limiter.total_tokens == 8
    assert await threads.run(int, lane="b") == 0
    hang.release()
    await until(lambda: threads.stuck == 0)
    assert threads._limiter.total_tokens == 2
    assert threads._limiter.borrowed_tokens == 0
    assert not threads._limiters


async def test_spare_threads_are_few(hang: Hang) -> None:
    threads = Threads(2, PATIENCE, spare=1)
    for item in range(3):
        with pytest.raises(TimeoutError):
            await threads.run(hang, lane="a", item=item)
    assert (hang.entered, threads._limiter.total_tokens) == (3, 3)
    # Nobody is left; to wait is limited all the same, and counts for nobody as stuck.
    with pytest.raises(TimeoutError):
        await threads.run(hang, lane="b")
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


async def test_lane_with_too_many_stuck_items_is_given_up(hang: Hang) -> None:
    threads = Threads(2, PATIENCE)
    async with trio.open_nursery() as nursery:
        for item in range(MAX_STUCK_IN_LANE):
            nursery.start_soon(_given_up, threads, hang, item)
    with trio.fail_after(LONG):
        while threads.stuck < MAX_STUCK_IN_LANE:  # some waited in vain for a thread
            await _given_up(threads, hang, object())
    with pytest.raises(TimeoutError):
        await threads.run(int, lane="a", item="another")
    assert await threads.run(int, lane="b", item="another") == 0


async def _given_up(threads: Threads, hang: Hang, item: object) -> None:
    with pytest.raises(TimeoutError):
        await threads.run(hang, lane="a", item=item)


async def test_waiting_for_a_stuck_lane_ends_with_it(hang: Hang) -> None:
    """Who waits in a lane when it is found to be stuck doesn't send in another thread."""
    threads = Threads(64, PATIENCE)
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(_given_up, threads, hang, 1)
    assert hang.entered == 1
    assert threads.stuck == 1


async def test_discard_and_ended(hang: Hang) -> None:
    threads = Threads(2, PATIENCE)
    discarded: list[tuple[object, int]] = []
    ended: list[int] = []

    def discard(result: object) -> None:
        discarded.append((result, threading.get_ident()))

    def note() -> None:
        ended.append(threading.get_ident())

    with pytest.raises(TimeoutError):
        await threads.run(hang, "late", lane="a", discard=discard, ended=note)
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


async def test_ended_is_told_of_what_never_began(hang: Hang) -> None:
    threads = Threads(1, PATIENCE, spare=0)
    with pytest.raises(TimeoutError):
        await threads.run(hang, lane="a")
    ended: list[str] = []
    with pytest.raises(TimeoutError):  # its lane is stuck
        await threads.run(int, lane="a", ended=lambda: ended.append("a"))
    with pytest.raises(TimeoutError):  # no thread is free
        await threads.run(int, lane="b", ended=lambda: ended.append("b"))
    assert ended == ["a", "b"]


async def test_late_error_is_nobodys(hang: Hang) -> None:
    threads = Threads(2, PATIENCE)

    def fail() -> None:
        hang()
        raise OSError(errno.EIO, "late")

    with pytest.raises(TimeoutError):
        await threads.run(fail, lane="a", discard=lambda _: pytest.fail("of what?"))
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

    for start in range(0, 800, 8):
        async with trio.open_nursery() as nursery:
            for number in range(start, start + 8):
                nursery.start_soon(call, number)
    await until(lambda: threads.stuck == 0)
    assert sorted(got + discarded) == sorted(made)
    assert sorted(ended) == list(range(800))
    assert got
    assert threads._limiter.total_tokens == 8


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
        await trio.sleep(0.1)
        assert threads.stuck == 0
        hang.release()


# ---------------------------------------------------------------- map


async def test_map() -> None:
    threads = Threads(2, LONG)
    assert await threads.map(str, range(1000), lane="a", key=int) == [*map(str, range(1000))]
    assert await threads.map(str, [], lane="a", key=int) == []
    with pytest.raises(ZeroDivisionError):
        await threads.map(lambda n: 1 // n, [2, 1, 0], lane="a", key=int)


async def test_map_goes_around_what_hangs(hang: Hang) -> None:
    threads = Threads(4, PATIENCE)

    def look(number: int) -> int:
        if number in (2, 5):
            hang()
        return number

    wanted = [0, 1, None, 3, 4, None, 6]
    assert await threads.map(look, range(7), lane="a", key=int) == wanted
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


async def test_map_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is for one thing; a big folder on a slow disk is many."""
    monkeypatch.setattr(module, "_CHUNK", 0.05)
    threads = Threads(1, 0.5)

    def look(number: int) -> int:
        time.sleep(0.02)
        return number

    started = time.monotonic()
    assert await threads.map(look, range(60), lane="a", key=int) == list(range(60))
    assert time.monotonic() - started > 0.5


async def test_map_takes_an_error_of_the_source_for_no_answer() -> None:
    threads = Threads(1, LONG)

    def look(number: int) -> int:
        if number == 1:
            raise timed_out()  # as a soft NFS mount does
        return number

    assert await threads.map(look, range(4), lane="a", key=int) == [0, None, 2, 3]
    assert threads.stuck == 0


async def test_map_with_no_thread_to_be_had(hang: Hang) -> None:
    threads = Threads(1, PATIENCE, spare=0)
    with pytest.raises(TimeoutError):
        await threads.run(hang, lane="b")
    with trio.fail_after(LONG):  # once, and not for each of them
        assert await threads.map(str, range(1000), lane="a", key=int) == [None] * 1000
