"""The hook for RomM: what gunicorn calls, with the paths of RomM's downloads."""

from __future__ import annotations

import os
from typing import Any

from zipfs.front.asgi import FromZipfs
from zipfs.front.settings import Settings

PATHS = r"/api/roms/(?:[0-9]+/content/[^/]+|download)"


def post_worker_init(worker: Any) -> None:
    """Called by gunicorn in each worker, when it has loaded the application."""
    settings = Settings.from_environment(
        os.environ, lambda wrong: worker.log.error("zipfs: %s", wrong)
    )
    worker.wsgi = FromZipfs(worker.wsgi, paths=PATHS, settings=settings, logger=worker.log)
    worker.log.info(
        "zipfs: downloads of several files come from %s; lists go to %s; wait %g s, reuse %g s",
        settings.shown, settings.lists, settings.wait, settings.reuse,
    )  # fmt: skip
