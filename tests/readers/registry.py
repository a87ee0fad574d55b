"""All readers of the gate."""

from __future__ import annotations

from typing import Final

from tests.readers import native, shown
from tests.readers.gate import Reader

READERS: Final[tuple[Reader, ...]] = (*native.READERS, *shown.READERS)
"""In the order of the matrix. With :mod:`tests.readers.languages`' ones."""
