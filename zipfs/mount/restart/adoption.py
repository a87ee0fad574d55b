"""Taking over the connection with the kernel that an earlier daemon had.

Somebody else, the service manager or :mod:`.holder`, keeps ``/dev/fuse`` of the mount open. So the
kernel keeps the mount when the daemon dies, and requests wait. The next daemon only has to go on
answering, but libfuse begins each session with FUSE_INIT, which the kernel sends once. So libfuse
gets one end of a pair of sockets, by the name ``/dev/fd/N``, and there

1. it reads FUSE_INIT: the kernel's own at the first time, which is kept in the state; and what is
   kept there later;
2. it writes its answer, which is passed on to the kernel the first time, and kept. Later it has to
   be the same in all that matters, since the kernel goes by the first one: another libfuse with
   smaller buffers couldn't read the kernel's requests;
3. before it waits for the next request, the real descriptor takes the place of the socket, by
   dup2(2). Nothing stands between libfuse and the kernel from then on, and no time is lost.

What a daemon had taken when it died, the kernel would await for ever. By FUSE_NOTIFY_RESEND (Linux
6.9) it sends all of it again. An earlier kernel refuses, and then only what was handed over, with
all that was taken answered, can be adopted.

``O_NONBLOCK`` must not be set on the descriptor: it is shared, and pyfuse3 takes EAGAIN for an
error. Structures are those of <linux/fuse.h>.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import struct
from typing import Final

from zipfs.errors import NotAdoptedError
from zipfs.mount.restart.state import State

_IN: Final = struct.Struct("<IIQQIIII")  # fuse_in_header
_OUT: Final = struct.Struct("<IiQ")  # fuse_out_header
_INIT_OUT: Final = struct.Struct("<IIIIHHIIHHI")  # fuse_init_out, without what follows flags2
_INIT: Final = 26
_RESEND: Final = 7  # FUSE_NOTIFY_RESEND
_LARGEST: Final = (1 << 20) + (1 << 16)
"""Bytes of the buffer for the first request; the kernel wants room for the largest one."""
_PATIENCE: Final = 1000
"""Milliseconds to wait for FUSE_INIT, which is there as soon as the mount is."""


def can_ask_again(release: str = os.uname().release) -> bool:
    """Whether a kernel of this *release* knows FUSE_NOTIFY_RESEND."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= (6, 9)


class Connection:
    """The connection with the kernel on *device*, whose past is in *state*.

    :attr:`descriptor` is what libfuse gets. Blocks for at most two seconds. Raises
    :exc:`NotAdoptedError` if it can't be taken over.
    """

    def __init__(self, device: int, state: State) -> None:
        self._device = device
        self._state = state
        self.resent = False
        """Whether the kernel was made to send again what was taken and not answered."""
        if not state.init:
            state.set_init(self._first_request())
        self._ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self._ours.send(state.init)
        self.descriptor = its.detach()

    def _first_request(self) -> bytes:
        waiting = select.poll()
        waiting.register(self._device, select.POLLIN)
        if not waiting.poll(_PATIENCE):
            self._resend()  # a daemon before us died with it in its hands
            if not waiting.poll(_PATIENCE):
                raise NotAdoptedError("the kernel doesn't begin to talk")
        try:
            request = os.read(self._device, _LARGEST)
        except OSError as error:
            raise NotAdoptedError(f"the mount is gone ({error.strerror})") from None
        if len(request) < _IN.size or _IN.unpack_from(request)[1] != _INIT:
            raise NotAdoptedError("somebody has begun to serve it already")
        return request

    def exchange(self) -> bool:
        """Put the kernel in the place of the socket, once libfuse has answered; then it is True.

        To be called before each wait for a request, when nobody waits for one. Raises
        :exc:`NotAdoptedError`.
        """
        try:
            answer = self._ours.recv(_LARGEST)
        except BlockingIOError:
            return False
        try:
            self._pass_on(answer)
            os.dup2(self._device, self.descriptor, inheritable=False)
        finally:
            self._ours.close()
        self._state.start()
        return True

    def _pass_on(self, answer: bytes) -> None:
        """Give libfuse's *answer* to the kernel, or compare it with what that got before."""
        if len(answer) < _OUT.size or _OUT.unpack_from(answer)[1]:
            raise NotAdoptedError("libfuse and the kernel have no protocol in common")
        if self._state.answer:
            if _terms(answer) != _terms(self._state.answer):
                raise NotAdoptedError("libfuse is another one than the mount was made with")
            if not self._resend() and self._state.handed_over is None:
                raise NotAdoptedError("this kernel can't ask again (Linux 6.9 and later can)")
            return
        try:
            os.write(self._device, answer)
        except OSError as error:
            # ENOENT: a daemon before us was killed between this write and the next line.
            if error.errno != errno.ENOENT:
                raise NotAdoptedError(f"the mount is gone ({error.strerror})") from None
        self._state.set_answer(answer)

    def _resend(self) -> bool:
        """Have the kernel ask again what was asked and not answered; False if it can't."""
        try:
            os.write(self._device, _OUT.pack(_OUT.size, _RESEND, 0))
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            raise NotAdoptedError(f"the mount is gone ({error.strerror})") from None
        self.resent = True
        return True


def _terms(answer: bytes) -> tuple[int, ...]:
    """What kernel and libfuse have agreed upon by *answer*: version, flags, size of requests."""
    body = answer[_OUT.size :].ljust(_INIT_OUT.size, b"\0")
    major, minor, _, flags, _, _, max_write, granularity, max_pages, _, more = (
        _INIT_OUT.unpack_from(body)
    )
    return major, minor, flags, max_write, granularity, max_pages, more
