"""The corpus as a library, mounted: what readers are let loose on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.readers.corpus import Case, Mount
from tests.support.mounting import Mounted, Mounts, temporary_folder
from tests.support.users import NOBODY, device_for_everybody, program_for_everybody, run_as

_OPTIONS: Final[Mapping[Mount, Sequence[str]]] = {
    "default": (),
    "portable": ("--portable-names",),
    "fixed": ("--timestamps", "fixed"),
    "execute": ("--execute-bits",),
    "playlists": ("--playlist-platforms", "cases"),
    "unprivileged": (),
}
_TOLD: Final = (
    r"is left out|can't be (read|listed)|symbolic link| is called | have other names"
    r"|can't watch .* for changes"
)
"""What the log says of folders that are hard."""
_SEAL_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Volume:
    """A case as it stands on the shelf: its folder, and its archive in the mount."""

    case: Case
    source: Path
    archive: Path


@contextlib.contextmanager
def shelved(cases: Sequence[Case], program: str | None = None) -> Iterator[list[Volume]]:
    """All *cases*, one mount for each kind of them. That the daemons end well is asserted.

    *program* is a zipfs that every user can run; made if it isn't given.
    """
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(temporary_folder())
        mounts = Mounts(place)
        stack.callback(mounts.end)
        volumes: list[Volume] = []
        for kind in _OPTIONS:
            if chosen := [case for case in cases if case.mount == kind]:
                volumes += _mount(kind, chosen, place, mounts, program, stack)
        order = {case: number for number, case in enumerate(cases)}
        yield sorted(volumes, key=lambda volume: order[volume.case])


def _mount(
    kind: Mount,
    cases: Sequence[Case],
    place: Path,
    mounts: Mounts,
    program: str | None,
    stack: contextlib.ExitStack,
) -> Iterator[Volume]:
    library = place / f"library-{kind}"
    shelf = library / "roms/cases"
    shelf.mkdir(parents=True)
    for case in cases:
        case.build(os.fsencode(shelf / case.name))
    # Whoever isn't root is unprivileged anyway.
    nobody = kind == "unprivileged" and os.geteuid() == 0
    if nobody:
        if program is None:
            program = program_for_everybody(stack.enter_context(temporary_folder()))
        with device_for_everybody():  # not longer: another run may wait for it
            mounted = mounts(library, *_OPTIONS[kind], user=NOBODY, program=[program])
    else:
        mounted = mounts(library, *_OPTIONS[kind])
    mounted.expect_log(_TOLD)
    mounted.wait_sealed(timeout=_SEAL_SECONDS)  # those that are not there fail in their cells
    for case in cases:
        archive = mounted.archive(f"roms/cases/{case.name}")
        if nobody:
            archive = _copy(mounted, archive, place)
        yield Volume(case, shelf / case.name, archive)


def _copy(mounted: Mounted, archive: Path, place: Path) -> Path:
    """An archive of a mount that only its owner may look into."""
    read = run_as(NOBODY, "cat", archive)
    assert read.returncode == 0, read.stderr
    copy = place / archive.name
    copy.write_bytes(read.stdout)
    return copy
