"""How hard hypothesis tries: the same cases each time in CI, other ones elsewhere."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile(
    "zipfs",
    deadline=None,  # the machine may be busy, and no test here is about time
    max_examples=200,
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("zipfs")
