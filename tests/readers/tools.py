"""Where what the readers need is kept: all of it below ``.readers/``, which git ignores."""

from __future__ import annotations

from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
READERS: Final = REPOSITORY / ".readers"
NODE_MODULES: Final = READERS / "node_modules"
"""The packages of drivers/node/package.json."""
READERS_VENV: Final = READERS / "venv"
READERS_PYTHON: Final = READERS_VENV / "bin" / "python"
"""Has the packages of requirements.txt, apart from zipfs's own environment."""
BUILD: Final = READERS / "build"
"""Drivers that have to be compiled."""
DRIVERS: Final = Path(__file__).resolve().parent / "drivers"
COMMONS_COMPRESS: Final = Path("/usr/share/java/commons-compress.jar")
"""Debian's libcommons-compress-java."""
