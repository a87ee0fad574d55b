"""The buffers of reads: kept while they are in use, given up when they aren't."""

from __future__ import annotations

from zipfs.mount.reading.buffers import _MOST, BUFFER, Buffers


def use(buffers: Buffers, count: int) -> None:
    """Have so many in use at a time."""
    for view in [buffers.take() for _ in range(count)]:
        buffers.give(view[:10])


def test_those_in_use_are_used_again() -> None:
    buffers = Buffers()
    view = buffers.take()
    assert len(view) == BUFFER
    buffers.give(view[:100])
    assert buffers.take().obj is view.obj


def test_a_limit_to_those_kept() -> None:
    buffers = Buffers()
    use(buffers, 3 * _MOST)
    assert len(buffers) == _MOST


def test_a_larger_one_is_not_kept() -> None:
    buffers = Buffers()
    buffers.give(memoryview(bytearray(2 * BUFFER))[:BUFFER])
    assert len(buffers) == 0


def test_those_not_in_use_are_given_up_one_by_one() -> None:
    buffers = Buffers()
    use(buffers, 9)
    kept = []
    for _ in range(12):
        use(buffers, 3)
        buffers.trim()
        kept.append(len(buffers))
    assert kept == [9, 8, 7, 6, 5, 4, 3, 3, 3, 3, 3, 3]
    for left in (2, 1, 0, 0):
        buffers.trim()
        assert len(buffers) == left
