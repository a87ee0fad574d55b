"""slowfs.c: a source that is far, as a folder on a server or on a disk that seeks.

Compiled here as nullfs is. Waits can be changed and calls be counted while it runs, without a call
of its own: by a file that both have mapped.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal

from bench.peers.fusefs import compiled, mounted_by
from bench.session import Stop
from bench.speed.results import About

SOURCE: Final = Path(__file__).with_suffix(".c")
# As many as an NFS client has in flight to a server that grants it what it asks for.
CALLS_AT_ONCE: Final = 64
# What mount.nfs sets for acregmin.
NAME_SECONDS: Final = 3.0
# What the kernel reads ahead on such a mount, unless somebody changes it.
READ_AHEAD_KIB: Final = 128

Data = Literal["keep", "drop", "direct"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Calls:
    """How many of each kind, or the microseconds that each waits. The order is slowfs.c's."""

    stat: int = 0
    open: int = 0
    read: int = 0
    opendir: int = 0
    readdir: int = 0
    readlink: int = 0
    statfs: int = 0

    @classmethod
    def all(cls, each: int) -> Calls:
        return cls(**{field.name: each for field in fields(cls)})

    def values(self) -> tuple[int, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    @property
    def total(self) -> int:
        return sum(self.values())

    def __sub__(self, before: Calls) -> Calls:
        names = (field.name for field in fields(self))
        differences = (mine - its for mine, its in zip(self.values(), before.values(), strict=True))
        return Calls(**dict(zip(names, differences, strict=True)))


_NUMBERS: Final = struct.Struct(f"={len(fields(Calls))}Q")


class Slow:
    """A running slowfs; made by :func:`slowfs`."""

    def __init__(self, control: mmap.mmap, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._control = control

    def wait(self, microseconds: int | Calls) -> None:
        """From now on, each call waits so long, or each kind as *microseconds* has it."""
        waits = microseconds if isinstance(microseconds, Calls) else Calls.all(microseconds)
        _NUMBERS.pack_into(self._control, 0, *waits.values())

    def calls(self) -> Calls:
        """All so far; a part of the work is the difference of two."""
        values = _NUMBERS.unpack_from(self._control, _NUMBERS.size)
        return Calls(**{f.name: value for f, value in zip(fields(Calls), values, strict=True)})


def build(folder: Path, stop: Stop) -> tuple[Path, About]:
    """The program, compiled into *folder*; raises :exc:`BenchError` if it can't be."""
    program, libfuse = compiled(SOURCE, folder, stop)
    about = About(
        name="a source that waits in each call",
        version=f"bench/peers/slowfs.c, libfuse {libfuse}",
        settings=f"{CALLS_AT_ONCE} calls at once; names kept for {NAME_SECONDS:.0f} s, data until"
        f" it changes; read-ahead {READ_AHEAD_KIB} KiB",
    )
    return program, about


@contextlib.contextmanager
def slowfs(
    program: Path,
    source: Path,
    mountpoint: Path,
    control: Path,
    *,
    calls_at_once: int = CALLS_AT_ONCE,
    name_seconds: float = NAME_SECONDS,
    data: Data = "keep",
    read_ahead_kib: int = READ_AHEAD_KIB,
) -> Iterator[Slow]:
    """Show *source* at *mountpoint* until the block ends; nothing waits yet.

    *control* is a file that is made, outside of both.
    """
    control.write_bytes(bytes(2 * _NUMBERS.size))
    command: list[str | Path] = [program, source, mountpoint, control]
    command += [str(calls_at_once), str(name_seconds), data]
    with (
        control.open("r+b") as file,
        contextlib.closing(mmap.mmap(file.fileno(), 2 * _NUMBERS.size)) as mapped,
        mounted_by(command, mountpoint, read_ahead_kib) as process,
    ):
        yield Slow(mapped, process)
