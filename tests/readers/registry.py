"""All readers of the gate."""

from __future__ import annotations

from typing import Final

from tests.readers import languages, native, shown
from tests.readers.gate import Reader

READERS: Final[tuple[Reader, ...]] = (*native.READERS, *shown.READERS, *languages.READERS)
"""In the order of the matrix."""
