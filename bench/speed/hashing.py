"""zipfs' checksums of a cached file, beside the two programs that compute the same ones."""

from __future__ import annotations

import os
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import xxhash

from bench import BenchError
from bench.process import find_program
from bench.session import Stop
from bench.speed.case import Case, Sample
from bench.speed.results import ZIPFS, About
from bench.synthetic import read_through
from zipfs.index.hash_file import hash_file
from zipfs.library.filestate import FileState

PROGRAMS: Final = "programs"


def about(stop: Stop) -> About:
    # xxhsum names itself on standard error or output, as its version wants.
    xxhsum = stop.run("sh", "-c", 'exec "$0" --version 2>&1', _xxhsum()).split()[1]
    rhash = stop.run(_rhash(), "--version").split()[-1]
    return About(
        name="xxhsum -H2 and rhash --crc32",
        version=f"xxhsum {xxhsum}, rhash {rhash.removeprefix('v')}",
        settings="one after the other, their times added, as each reads the file",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Hashing:
    file: Path
    stop: Stop

    def case(self) -> Case:
        return Case(
            key="hashing",
            what="hashing a cached file",
            unit="GB/s",
            contenders={PROGRAMS: None, ZIPFS: None},
            measure=self._measure,
        )

    def _measure(self, who: str) -> Sample:
        read_through(self.file, self.stop)
        size = self.file.stat().st_size
        start = time.monotonic()
        if who == ZIPFS:
            checksums = hash_file(os.fsencode(self.file), FileState.of(self.file.stat()))
            seconds = time.monotonic() - start
            found = f"{checksums.crc32:08x}", checksums.digest.hex()
        else:
            xxh = self.stop.run(_xxhsum(), "-H2", str(self.file)).split()[0]
            crc = self.stop.run(_rhash(), "--crc32", "--simple", str(self.file)).split()[0]
            seconds = time.monotonic() - start
            found = crc.lower(), xxh
        if found != _expected(self.file):
            raise BenchError(f"{who}: wrong checksums: {found}")
        return Sample(value=size / 1e9 / seconds)


def _expected(file: Path) -> tuple[str, str]:
    data = file.read_bytes()
    return f"{zlib.crc32(data):08x}", xxhash.xxh3_128_hexdigest(data)


def _xxhsum() -> str:
    return find_program("xxhsum", package="xxhash")


def _rhash() -> str:
    return find_program("rhash", package="rhash")
