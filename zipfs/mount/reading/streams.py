"""What is read ahead: a window in front of each reader that goes through a content in order.

Requests come from the kernel, for several readers of one archive, and two at a time for each, in
any order. One that continues where another ended belongs to the same reader; its window doubles
with each, from one request on. One that continues nowhere is a new reader, or an old one that has
sought: nothing is read ahead for it until it goes on, unless it begins at the beginning. Pure.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

STREAMS: Final = 8
"""Most readers of one content that are told apart."""
_SMALL: Final = 64 << 10
"""A request of fewer bytes is that of a reader who picks; its window begins with the second."""


@dataclass(eq=False, slots=True)
class Stream:
    """One reader."""

    position: int
    """End of what was asked for."""
    until: int
    """End of what is read ahead."""
    window: int
    """Most bytes between the two."""
    is_new: bool = True
    """Whether this is its first request."""
    blocks: deque[int] = field(default_factory=deque)
    """Where the blocks begin that are read ahead."""

    def take_back(self) -> None:
        """What was to be read ahead, and hasn't been begun, has been given up."""
        self.until = self.position
        self.blocks.clear()


class Streams:
    """The readers of a content of *size* bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._streams: list[Stream] = []
        """The last one that asked is the last."""

    def note(self, offset: int, length: int, most: int) -> Stream:
        """Note a request; the reader that it is from. The window has at most *most* bytes."""
        end = offset + length
        stream = self._of(offset, length)
        if stream is None:
            begins = offset == 0 and length >= _SMALL
            stream = Stream(end, end, length if begins else 0)
            if len(self._streams) == STREAMS:
                del self._streams[0]
        else:
            self._streams.remove(stream)
            stream.is_new = False
            if end > stream.position:
                stream.position = end
                stream.until = max(stream.until, end)
                while stream.blocks and stream.blocks[0] < end:
                    stream.blocks.popleft()
                stream.window = max(2 * stream.window, length)
        stream.window = min(stream.window, most)
        self._streams.append(stream)
        return stream

    def wanted(self, stream: Stream) -> int:
        """The end of what is to be read ahead of *stream* now, from its :attr:`until` on."""
        until = min(self._size, stream.position + stream.window)
        # In pieces that are worth it; but all that is left at once.
        if until - stream.until < stream.window // 4 and until < self._size:
            return stream.until
        return max(until, stream.until)

    def take_back(self) -> None:
        """The same for all of them."""
        for stream in self._streams:
            stream.take_back()

    def _of(self, offset: int, length: int) -> Stream | None:
        near = 2 * length
        for stream in reversed(self._streams):
            if stream.position - near <= offset <= max(stream.position + near, stream.until):
                return stream
        return None
