"""One booted system for all tests of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.service.container import Container, container, missing
from tests.support.mounting import temporary_folder

_NGINX = """
server {
    listen 8080;
    root /srv/www;
    sendfile on;
    open_file_cache max=1000 inactive=10s;
    open_file_cache_valid 2s;
    open_file_cache_errors off;
    autoindex on;
}
"""


@pytest.fixture(scope="module")  # or tests of other things would find its processes
def system(fuse: None) -> Iterator[Container]:
    """A booted system with zipfs installed and nginx running."""
    if why := missing():
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)  # a laptop
    with temporary_folder(in_memory=True) as place, container(place) as made:
        made.write("/etc/nginx/conf.d/games.conf", _NGINX)
        made.boot()
        # What `make install` does where it isn't for a package.
        made.run("systemd-sysusers", "/usr/local/lib/sysusers.d/zipfs.conf")
        made.run("systemctl", "daemon-reload")
        made.run("systemctl", "start", "nginx")
        yield made
