"""Ways to change a member at the server while it is downloaded (DESIGN.md R1, R2)."""

from __future__ import annotations

from typing import Final

from tests.e2e.sources.trials import Plan, Trial, cases

WAYS: Final = ("rewritten", "rewritten, dated", "replaced", "renamed", "truncated", "deleted")
KINDS: Final = ("rclone", "rclone webdav", "mergerfs", "ntfs-3g", "bindfs")


@cases(*(Plan(kind, WAYS, ("nginx",)) for kind in KINDS))
def test_while_a_download_runs(trial: Trial) -> None:
    assert not trial.failures
