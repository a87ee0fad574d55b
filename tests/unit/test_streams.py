"""What is read ahead of whom: windows that grow, and end when a reader seeks."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from zipfs.mount.reading.streams import STREAMS, Stream, Streams

SIZE = 1 << 30
MOST = 16 << 20
PIECE = 1 << 20


def ask(streams: Streams, offset: int, length: int = PIECE, most: int = MOST) -> Stream:
    """A request, after which all is read ahead that is wanted."""
    stream = streams.note(offset, length, most)
    until = streams.wanted(stream)
    assert stream.until <= until <= SIZE
    stream.until = until
    return stream


def test_a_reader_in_order_gets_a_window_that_doubles() -> None:
    streams = Streams(SIZE)
    windows = [ask(streams, n * PIECE).window // PIECE for n in range(8)]
    assert windows == [1, 2, 4, 8, 16, 16, 16, 16]


def test_never_more_ahead_than_the_limit() -> None:
    streams = Streams(SIZE)
    for number in range(100):
        stream = ask(streams, number * PIECE)
        assert stream.until - stream.position <= MOST


def test_the_whole_window_is_kept_ahead() -> None:
    streams = Streams(SIZE)
    for number in range(200):
        stream = ask(streams, number * PIECE)
    assert stream.until - stream.position >= MOST * 3 // 4


def test_it_ends_at_the_end() -> None:
    streams = Streams(5 * PIECE + 17)
    for number in range(6):
        stream = streams.note(number * PIECE, PIECE, MOST)
        stream.until = streams.wanted(stream)
    assert stream.until == 6 * PIECE  # the last request went beyond
    streams = Streams(5 * PIECE + 17)
    stream = streams.note(0, PIECE, MOST)
    stream = streams.note(PIECE, PIECE, MOST)
    stream = streams.note(2 * PIECE, PIECE, MOST)
    assert streams.wanted(stream) == 5 * PIECE + 17


def test_who_seeks_begins_anew_with_nothing() -> None:
    streams = Streams(SIZE)
    for number in range(5):
        ask(streams, number * PIECE)
    stream = ask(streams, 500 * PIECE)
    assert stream.is_new
    assert stream.until == stream.position
    stream = ask(streams, 501 * PIECE)
    assert not stream.is_new
    assert stream.until > stream.position


def test_a_small_read_at_the_beginning_is_nothing_to_go_by() -> None:
    """A header is looked at by many who don't want the rest."""
    stream = ask(Streams(SIZE), 0, 4096)
    assert stream.until == stream.position


def test_random_reads_have_nothing_read_ahead() -> None:
    chance = random.Random(1)
    streams = Streams(SIZE)
    ahead = 0
    for _ in range(1000):
        stream = ask(streams, chance.randrange(SIZE - 4096), 4096)
        ahead += stream.until > stream.position
    assert ahead < 10


def test_two_requests_at_a_time_in_any_order() -> None:
    """As the kernel sends them."""
    streams = Streams(SIZE)
    for number in range(0, 20, 2):
        first = ask(streams, (number + 1) * PIECE)
        second = ask(streams, number * PIECE)
        assert first is second
    assert second.window == MOST


def test_readers_are_told_apart() -> None:
    streams = Streams(SIZE)
    starts = [n * (SIZE // STREAMS) for n in range(STREAMS)]
    seen = {start: ask(streams, start) for start in starts}
    for number in range(1, 6):
        for start in starts:
            assert ask(streams, start + number * PIECE) is seen[start]
    assert all(stream.window == MOST for stream in seen.values())


def test_what_was_given_up_is_wanted_again() -> None:
    streams = Streams(SIZE)
    for number in range(6):
        stream = ask(streams, number * PIECE)
    streams.take_back()
    assert stream.until == stream.position
    assert ask(streams, 6 * PIECE) is stream
    assert stream.until > stream.position


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 600)), max_size=40),
    st.integers(1, 3000),
    st.integers(0, 700),
)
def test_bounds_hold_for_any_requests(
    requests: list[tuple[int, int]], size: int, most: int
) -> None:
    streams = Streams(size)
    for offset, length in requests:
        stream = streams.note(offset, length, most)
        until = streams.wanted(stream)
        assert stream.window <= most
        assert until >= stream.until
        assert until <= max(size, stream.until)
        assert until - stream.position <= max(most, stream.until - stream.position)
        stream.until = until
    assert len(streams._streams) <= STREAMS
