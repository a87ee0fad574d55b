"""The change matrix where old sizes and dates come with new bytes (DESIGN.md R1, R2, V1)."""

from __future__ import annotations

from typing import Final

from tests.e2e.matrix.changes import CHANGES
from tests.e2e.matrix.stand import SERVERS
from tests.e2e.sources.trials import Plan, Trial, cases

# exFAT has no links and no modes.
PLAIN: Final = tuple(name for name in CHANGES if name not in ("swapped for a link", "chmod"))


@cases(Plan("sshfs", tuple(CHANGES), tuple(SERVERS)))
def test_on_sshfs(trial: Trial) -> None:
    assert not trial.failures


@cases(Plan("exfat-fuse", PLAIN, tuple(SERVERS)))
def test_on_exfat(trial: Trial) -> None:
    assert not trial.failures
