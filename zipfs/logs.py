"""The log: lines on a terminal, entries with fields in the journal, or syslog(3).

An entry of the journal has, besides the fields of systemd.journal-fields(7),

- ``ZIPFS_MESSAGE``: the message without its arguments, with ``%s`` in place of each;
- ``MESSAGE_ID``: an id made of that, so that ``journalctl MESSAGE_ID=...`` finds all messages of
  a kind;
- ``ZIPFS_ARG_1``, ``ZIPFS_ARG_2``, ...: the arguments, paths for the most part;
- ``ZIPFS_MOUNTPOINT``, once it is known.
"""

from __future__ import annotations

import errno
import logging
import logging.handlers
import os
import sys
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

try:
    from logging_journald import JournaldTransport, check_journal_stream
except ImportError:  # not Linux

    def check_journal_stream() -> bool:
        return False


_SOCKET: Final = "/run/systemd/journal/socket"
_SYSLOG: Final = "/dev/log"
_NAMESPACE: Final = uuid.UUID("0b6a5a0e-5c3c-4c86-9a53-5d7a1f3b6f0d")  # chosen once, at random
_PLAIN: Final = "%(asctime)s %(levelname)s: %(message)s"
# syslog(3)
_PRIORITIES: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


def message_id(message: str) -> str:
    """The id of *message*, without its arguments."""
    return uuid.uuid5(_NAMESPACE, message).hex


class JournalHandler(logging.Handler):
    """Sends records to the journal at *socket*, by its native protocol."""

    def __init__(self, socket: str = _SOCKET) -> None:
        super().__init__()
        # Unconnected, as a restarted journal has a new socket.
        self._transport = JournaldTransport(socket, connected=False)
        self.mountpoint: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._transport.send(self._fields(record))
        except Exception:  # noqa: BLE001 - as all handlers of logging do
            self.handleError(record)

    def close(self) -> None:
        self._transport.socket.close()
        super().close()

    def _fields(self, record: logging.LogRecord) -> Iterator[tuple[str, str | int]]:
        yield "MESSAGE", _printable(self.format(record))
        yield "PRIORITY", _PRIORITIES.get(record.levelno, 6)
        yield "SYSLOG_IDENTIFIER", "zipfs"
        yield "CODE_FILE", record.pathname
        yield "CODE_LINE", record.lineno
        yield "CODE_FUNC", record.funcName or ""
        if isinstance(record.msg, str):
            yield "MESSAGE_ID", message_id(record.msg)
            yield "ZIPFS_MESSAGE", _printable(record.msg)
        if isinstance(record.args, tuple):
            for number, argument in enumerate(record.args, 1):
                yield f"ZIPFS_ARG_{number}", _printable(str(argument))
        if self.mountpoint is not None:
            yield "ZIPFS_MOUNTPOINT", _printable(self.mountpoint)


def _printable(text: str) -> str:
    """*text*, in which bytes of a name that aren't UTF-8 are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def to_stderr(level: str) -> None:
    """Log to stderr from *level* up; with fields, if stderr is the journal."""
    handler = _journal() if check_journal_stream() else None
    if handler:
        _log_to(handler, level, "%(message)s")
    else:
        _log_to(logging.StreamHandler(sys.stderr), level, _PLAIN)


def to_system(level: str) -> None:
    """Log to the journal, without one to syslog, without either nowhere."""
    if handler := _journal():
        _log_to(handler, level, "%(message)s")
    elif os.path.exists(_SYSLOG):
        syslog = logging.handlers.SysLogHandler(
            _SYSLOG, facility=logging.handlers.SysLogHandler.LOG_DAEMON
        )
        _log_to(syslog, level, f"zipfs[{os.getpid()}]: %(message)s")
    else:
        _log_to(logging.NullHandler(), level, _PLAIN)


def _journal() -> JournalHandler | None:
    """A handler for the journal; None without a journal or without permission."""
    if not os.path.exists(_SOCKET):
        return None
    try:
        return JournalHandler()
    except OSError:  # a sandbox without sockets
        return None


def about(mountpoint: str) -> None:
    """Add *mountpoint* to all later entries of the journal."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, JournalHandler):
            handler.mountpoint = mountpoint


def _log_to(handler: logging.Handler, level: str, text: str) -> None:
    handler.setFormatter(logging.Formatter(text))
    root = logging.getLogger()
    for other in list(root.handlers):
        root.removeHandler(other)
        other.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Messages of these packages below warning don't help a user.
    for name in ("pyfuse3", "trio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("pyfuse3").addFilter(is_of_a_request)


def is_of_a_request(record: logging.LogRecord) -> bool:
    """Whether pyfuse3 says something else than that nobody waits for an answer any more.

    Once a mount has ended, by force or just before the answer, the kernel knows of no request and
    says ``ENOENT`` to the reply. libfuse keeps silent about that, too.
    """
    is_reply = str(record.msg).endswith("fuse_reply_* failed with %s")
    return not (is_reply and record.args == (os.strerror(errno.ENOENT),))


REMEMBERED = 10_000
"""Messages that a :class:`Once` remembers; the least recently logged is dropped first."""


class Once:
    """A logger that logs each distinct message once."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._logged: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._lock = threading.Lock()

    def warning(self, message: str, *arguments: object, of: bytes = b"") -> None:
        """Log the message, unless it was logged before with the same *of*."""
        text = message % arguments
        key = (text, of)
        with self._lock:
            if key in self._logged:
                self._logged.move_to_end(key)
                return
            self._logged[key] = None
            if len(self._logged) > REMEMBERED:
                self._logged.popitem(last=False)
        self._logger.warning(message, *arguments)
