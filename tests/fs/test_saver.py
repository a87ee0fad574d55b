"""Saving what changes: nothing is lost, and nothing unexpected ends it."""

from __future__ import annotations

import pytest
import trio

from tests.support.waiting import until
from zipfs.catalog.saver import Saver, drop_saved


async def test_an_error_ends_nothing_and_loses_nothing(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    unsaved = {"a": 1}
    tries: list[dict[str, int]] = []

    async def save() -> None:
        some = dict(unsaved)
        tries.append(some)
        await trio.lowlevel.checkpoint()
        if len(tries) == 1:
            raise RuntimeError("no thread")
        drop_saved(unsaved, some)

    saver = Saver(save, 0.01)
    nursery.start_soon(saver.run)
    saver.changed()
    await until(lambda: len(tries) == 1)
    assert unsaved == {"a": 1}
    unsaved["b"] = 2
    saver.changed()
    await until(lambda: not unsaved)
    assert tries == [{"a": 1}, {"a": 1, "b": 2}]
    assert "unexpected error while saving to the index" in caplog.text


def test_what_has_changed_meanwhile_is_saved_again() -> None:
    unsaved: dict[str, int | None] = {"same": 1, "other": 3, "gone": None}
    drop_saved(unsaved, {"same": 1, "other": 2, "gone": None, "unknown": None})
    assert unsaved == {"other": 3}
