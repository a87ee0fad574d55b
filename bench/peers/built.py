"""A ZIP written to disk by zipfile, and then served as a file: how a front end answers a range.

`python -m bench.peers.built FOLDER FILE` is the part that builds; it says what it took.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.session import Stop
from bench.speed.results import About
from bench.usage import Usage, peak_memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """What it took to build an archive."""

    seconds: float
    cpu_seconds: float
    memory: int
    written: int
    size: int

    @classmethod
    def run(cls, folder: Path, file: Path, members: int, stop: Stop) -> Self:
        """Build *file* out of the first *members* of *folder*, in a process of its own."""
        command = (sys.executable, "-m", __name__, str(folder), str(file), str(members))
        return cls(**json.loads(stop.run(*command)))


def about() -> About:
    return About(
        name="a ZIP built on disk first",
        version=f"zipfile of Python {platform.python_version()}",
        settings="ZIP_STORED, in a process of its own, not synced to disk; then the same nginx",
    )


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("members", type=int)
    arguments = parser.parse_args()
    # The interpreter's own start doesn't count: a front end is running already.
    start, before = time.monotonic(), Usage.of(os.getsid(0))
    files = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(arguments.file, "w", zipfile.ZIP_STORED) as archive:
        for path in files[: arguments.members]:
            archive.write(path, path.relative_to(arguments.folder))
    used = Usage.of(os.getsid(0)) - before
    build = {
        "seconds": time.monotonic() - start,
        "cpu_seconds": used.cpu_seconds,
        "memory": peak_memory(os.getsid(0)),
        "written": used.to_disk,
        "size": arguments.file.stat().st_size,
    }
    print(json.dumps(build))


if __name__ == "__main__":
    _main()
