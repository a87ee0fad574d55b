"""By which policy a library is looked at: chosen by the user, and found out where he didn't."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from zipfs.globs import Patterns
from zipfs.library import Library
from zipfs.once import Once, shown
from zipfs.romm import RommSelection, Rules, Structure, find_structure
from zipfs.selection import Policy, Selection, detect

log = logging.getLogger(__name__)


class Policies:
    """The policy for *library*, as it is now.

    *globs* say which folders are games; without any, the library's structure is found out.
    *patterns* are what the user wants left out or taken in. With *rules*, the policy is
    RomM's.

    Any thread may ask for :attr:`policy`. The methods touch the disk.
    """

    def __init__(
        self,
        library: Library,
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
        self.policy: Policy = Selection(globs, patterns)
        self.detect()

    def adopt(self, rules: Rules) -> None:
        """Go by other *rules* from now on."""
        with self._lock:
            self.rules = rules
        self.detect()

    def detect(self) -> None:
        """Find out the library's structure, again if need be."""
        while True:
            rules = self.rules
            try:
                policy = self._romm(rules) if rules else self._general()
            except OSError as error:
                self._once.warning("can't list the library: %s", error.strerror)
                return
            with self._lock:
                if rules is self.rules:  # and wasn't replaced by another thread meanwhile
                    if policy != self.policy:
                        self.policy = policy
                    return

    def _general(self) -> Selection:
        globs = self._globs
        if not globs:
            has_folder = self._library.has_folder
            folders = [name for name, _ in self._library.folder(b"") if has_folder(name)]
            globs = (detect(has_folder, folders),)
            _say(globs)
        return Selection(globs, self._patterns)

    def _romm(self, rules: Rules) -> RommSelection:
        structure = Structure(self._globs)
        if not self._globs:
            self._library.names(b"")  # an unplugged disk changes nothing
            structure = find_structure(rules, self._library.has_folder)
            _say(structure.templates)
        return RommSelection(rules, structure, self._patterns)


def _say(globs: Iterable[bytes]) -> None:
    log.debug("the library's games are %s", " ".join(map(shown, globs)))
