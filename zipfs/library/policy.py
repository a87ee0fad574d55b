"""The policy of a library: the user's settings, and what is detected where there are none."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from zipfs.errors import ConfigError
from zipfs.library.rules.general import Policy, Selection, Undecided, detect
from zipfs.library.rules.globs import Patterns
from zipfs.library.rules.romm import RommSelection, Rules, Structure, find_structure
from zipfs.library.view import LibraryView
from zipfs.logs import Once
from zipfs.system.syscalls import keep_atime
from zipfs.text import shown

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_SIZE: Final = 1 << 20
"""Maximum size of a ``config.yml``, in bytes; RomM's examples have five thousand."""


class Policies:
    """The current policy for *library*, lists and variants included.

    *globs* say which folders are games; without any, the library's structure is detected.
    *patterns* are what the user excludes and includes. With *rules*, the policy is RomM's.

    Any thread may read :attr:`policy`, which is replaced as a whole. The methods touch the disk.
    """

    def __init__(
        self,
        library: LibraryView,
        globs: tuple[bytes, ...] = (),
        patterns: Patterns = Patterns(),  # noqa: B008 - immutable
        rules: Rules | None = None,
    ) -> None:
        self._library = library
        self._globs = globs
        self._patterns = patterns
        self.rules = rules
        self._once = Once(log)
        self._lock = threading.Lock()
        self._selected: Policy = Undecided(patterns=patterns)
        self.policy = library.extended(self._selected)
        if not library.presence.is_gone:
            self.detect()

    def adopt(self, rules: Rules) -> None:
        """Replace the rules of RomM by *rules*."""
        with self._lock:
            self.rules = rules
        self.detect()

    def detect(self) -> None:
        """Detect the library's structure, and replace the policy if it has changed.

        Nothing is decided by a library that is empty, or can't be listed (DESIGN H6).
        """
        while True:
            rules = self.rules
            try:
                policy = self._romm(rules) if rules else self._general()
            except OSError as error:
                self._once.warning("can't list the library: %s", error.strerror)
                return
            if policy is None:
                return
            with self._lock:
                if rules is self.rules:  # not replaced by another thread meanwhile
                    if policy != self._selected:
                        self._selected = policy
                        self.policy = self._library.extended(policy)
                    return

    @property
    def is_decided(self) -> bool:
        """Whether there ever was anything in the library to decide by."""
        return not isinstance(self._selected, Undecided)

    def _general(self) -> Selection | None:
        globs = self._globs
        if not globs:
            has_folder = self._library.has_folder
            names = self._library.folder
            found = self._decided(
                lambda: detect(has_folder, [name for name, _ in names(b"") if has_folder(name)])
            )
            if found is None:
                return None
            globs = (found,)
            _log_games(globs)
        return Selection(globs, self._patterns)

    def _romm(self, rules: Rules) -> RommSelection | None:
        if self._globs:
            return RommSelection(rules, Structure(self._globs), self._patterns)
        structure = rules.structure or self._decided(
            lambda: find_structure(rules, self._library.has_folder)
        )
        if structure is None:
            return None
        _log_games(structure.templates)
        return RommSelection(rules, structure, self._patterns)

    def _decided(self, decide: Callable[[], T]) -> T | None:
        """What *decide* finds out, while nothing is exchanged; None for an empty library.

        Raises :exc:`OSError`.
        """
        presence = self._library.presence
        while True:
            before = presence.identities()
            if not presence.has_content():
                return None
            found = decide()
            if presence.identities() == before:
                return found


def _log_games(globs: Iterable[bytes]) -> None:
    log.debug("the library's games are %s", " ".join(map(shown, globs)))


def load_rules(path: str) -> Rules:
    """The rules in the file at *path*. Raises :exc:`ConfigError`; touches the disk."""
    # Imported here because YAML and pydantic take memory, and few mounts have a config.
    from zipfs.library.rules.romm_config import read_rules  # noqa: PLC0415

    try:
        with open(path, "rb", opener=_open) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"the RomM config {path} isn't a file")
            data = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise ConfigError(f"can't read the RomM config {path}: {error.strerror}") from None
    if len(data) > MAX_SIZE:
        raise ConfigError(f"the RomM config {path} is larger than {MAX_SIZE} bytes")
    return read_rules(data, path)


def _open(path: str, flags: int) -> int:
    # Opening a FIFO would wait for a writer.
    flags |= os.O_NONBLOCK
    descriptor = os.open(path, flags)
    keep_atime(descriptor, flags)
    return descriptor
