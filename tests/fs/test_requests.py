"""Taking the kernel's requests: quick while there are some, and fair to all other tasks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
import trio

from zipfs.mount.pyfuse3_loop import IN_A_ROW, Loop, _Lock, install


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A descriptor to wait for, and one that makes it readable."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


async def settled() -> None:
    """All other tasks have come as far as they can by themselves."""
    for _ in range(5):
        await trio.lowlevel.checkpoint()


async def test_the_lock_is_held_by_one() -> None:
    lock = _Lock()
    inside = 0
    entered = []

    async def enter(number: int) -> None:
        nonlocal inside
        async with lock:
            inside += 1
            assert inside == 1
            entered.append(number)
            await settled()
            inside -= 1

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(enter, number)
    assert sorted(entered) == list(range(10))
    assert not lock.waiting


async def test_who_has_it_back_before_resting_keeps_it() -> None:
    """No other task is woken for nothing."""
    lock = _Lock()
    order = []

    async def often() -> None:
        for _ in range(3):
            async with lock:
                order.append("often")
        async with lock:
            await settled()
            order.append("rested")

    async def once() -> None:
        async with lock:
            order.append("once")

    async with trio.open_nursery() as nursery:
        async with lock:
            nursery.start_soon(once)
            await settled()
            assert len(lock.waiting) == 1
        await often()
    assert order == ["often"] * 3 + ["rested", "once"]


async def test_a_waiting_task_goes_on_when_the_holder_rests_outside() -> None:
    lock = _Lock()
    done = trio.Event()

    async def wait() -> None:
        async with lock:
            done.set()

    async with trio.open_nursery() as nursery:
        async with lock:
            nursery.start_soon(wait)
            await settled()
        await done.wait()


async def test_waiting_for_the_lock_can_be_cancelled() -> None:
    lock = _Lock()
    async with lock:
        with trio.move_on_after(0.01) as scope:
            async with lock:
                pytest.fail("it was held")
        assert scope.cancelled_caught
        assert not lock.waiting
    async with lock:
        pass


async def test_nothing_to_read_is_waited_for(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    loop = Loop()
    loop.make_lock()
    ready = False

    async def wait() -> None:
        nonlocal ready
        await loop.wait_readable(reading)
        ready = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await settled()
        assert not ready
        os.write(writing, b"x")


async def test_other_tasks_get_their_turn(pipe: tuple[int, int]) -> None:
    """However many requests there are."""
    reading, writing = pipe
    os.write(writing, b"x")  # readable, for ever
    loop = Loop()
    lock = loop.make_lock()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async def next_one() -> None:
        async with lock:
            pass

    async with trio.open_nursery() as nursery:
        async with lock:
            nursery.start_soon(next_one)
            nursery.start_soon(other)
            await settled()
            before = turns
            for _ in range(IN_A_ROW):
                await loop.wait_readable(reading)
            assert turns == before  # none of these was a pass through trio
            for _ in range(10 * (IN_A_ROW + 1)):
                await loop.wait_readable(reading)
            # Ten passes through trio; in two of them each task has its turn at least once.
            assert turns >= before + 5
        nursery.cancel_scope.cancel()


async def test_the_first_requests_let_another_task_come(pipe: tuple[int, int]) -> None:
    """pyfuse3 starts the next task at each request for which none is waiting."""
    reading, writing = pipe
    os.write(writing, b"x")
    loop = Loop()
    lock = loop.make_lock()
    came = False

    async def next_one() -> None:
        nonlocal came
        async with lock:
            came = True

    async with trio.open_nursery() as nursery, lock:
        nursery.start_soon(next_one)
        for _ in range(2):  # trio runs those whose turn it is in any order
            await loop.wait_readable(reading)
        assert len(lock.waiting) == 1
    assert came


async def test_closing_ends_the_wait(pipe: tuple[int, int]) -> None:
    reading, _ = pipe
    loop = Loop()
    loop.make_lock()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await loop.wait_readable(reading)

        nursery.start_soon(wait)
        await settled()
        trio.lowlevel.notify_closing(reading)


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """pyfuse3 is what it was before, when the test is over."""
    before = pyfuse3.trio  # type: ignore[attr-defined]
    yield
    pyfuse3.trio = before  # type: ignore[attr-defined]


def replaced() -> Any:
    return pyfuse3.trio  # type: ignore[attr-defined]


@pytest.mark.usefixtures("as_it_was")
def test_two_functions_are_replaced_and_all_else_is_trio() -> None:
    for _ in range(2):  # a process may mount a second time
        assert install()
        assert isinstance(replaced().Lock.__self__, Loop)
        assert isinstance(replaced().lowlevel.wait_readable.__self__, Loop)
        assert replaced().open_nursery is trio.open_nursery
        assert replaced().ClosedResourceError is trio.ClosedResourceError
        assert replaced().lowlevel.notify_closing is trio.lowlevel.notify_closing
        with pytest.raises(AttributeError):
            _ = replaced().nothing_of_this_name


def test_pyfuse3_uses_the_two_as_expected() -> None:
    """A newer pyfuse3 may not: then this fails, and not the first mount."""
    folder = os.path.dirname(pyfuse3.__file__)
    if not os.path.exists(os.path.join(folder, "__init__.pyx")):
        pytest.skip("this pyfuse3, older than 3.5, comes without its source")
    code = ""
    for file in ("__init__.pyx", "internal.pxi"):
        with open(os.path.join(folder, file), encoding="utf-8") as text:
            code += "".join(line for line in text if not line.lstrip().startswith("#"))
    assert re.findall(r"\btrio\.Lock\b.*", code) == ["trio.Lock()"]
    assert re.findall(r".*\bread_lock:", code) == ["        async with worker_data.read_lock:"]
    assert "read_lock." not in code
    assert re.findall(r".*wait_readable.*", code) == [
        "            await trio.lowlevel.wait_readable(session_fd)"
    ]


async def other_wait(descriptor: int) -> bool:
    return True


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trio", None),
        ("trio", SimpleNamespace(Lock=trio.Lock)),
        ("trio", pyfuse3),  # any other module, as pyfuse3.asyncio is
        ("_wait_fuse_readable", None),
        ("_wait_fuse_readable", 7),
        ("_wait_fuse_readable", other_wait),
    ],
)
@pytest.mark.usefixtures("as_it_was")
def test_a_pyfuse3_made_otherwise_is_left_as_it_is(
    name: str, value: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    if value is None:
        monkeypatch.delattr(pyfuse3, name)
    else:
        monkeypatch.setattr(pyfuse3, name, value)
    before = dict(vars(pyfuse3))
    assert not install()
    assert vars(pyfuse3) == before
    (line,) = caplog.records
    assert line.levelname == "INFO"
    assert name in line.getMessage()
