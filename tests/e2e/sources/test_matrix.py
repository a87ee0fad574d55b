"""The change matrix where old sizes and dates come with new bytes (DESIGN.md R1, R2, V1)."""

from __future__ import annotations

from typing import Final

from tests.e2e.matrix.changes import CHANGES
from tests.e2e.matrix.stand import SERVERS
from tests.e2e.sources.trials import Plan, Trial, cases

# exFAT has no links and no modes.
PLAIN: Final = tuple(name for name in CHANGES if name not in ("swapped for a link", "chmod"))


# Beside many other changes, sshfs 3.7.3 answers readlink(2) of that link with EPERM, though its
# server has told it where the link leads (seen by strace). zipfs leaves it out then, and says so.
ON_SSHFS: Final = tuple(name for name in CHANGES if name != "swapped for a link")


@cases(Plan("sshfs", ON_SSHFS, tuple(SERVERS)))
def test_on_sshfs(trial: Trial) -> None:
    assert not trial.failures


@cases(Plan("exfat-fuse", PLAIN, tuple(SERVERS)))
def test_on_exfat(trial: Trial) -> None:
    assert not trial.failures
