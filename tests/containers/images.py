"""Base images made of Debian 13's packages, under the names of the images that they stand for.

No registry of images need be reachable. Where Python's image has its own interpreter they have
Debian's, and nginx is Debian's with the folders, the user and the command of nginx's image.
"""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from pathlib import Path
from typing import Final

from tests.containers.machine import Machine, install
from tests.distros import Root

_NGINX_CONF: Final = """\
user nginx;
error_log stderr;
pid /run/nginx.pid;
events {}
http {
    include mime.types;
    default_type application/octet-stream;
    access_log off;
    client_body_temp_path /var/cache/nginx/client_temp;
    fastcgi_temp_path /var/cache/nginx/fastcgi_temp;
    proxy_temp_path /var/cache/nginx/proxy_temp;
    scgi_temp_path /var/cache/nginx/scgi_temp;
    uwsgi_temp_path /var/cache/nginx/uwsgi_temp;
    include conf.d/*.conf;
}
"""
_NGINX: Final = (
    "useradd --system --uid 101 nginx; rm -f /etc/nginx/sites-enabled/*; mkdir -p /var/cache/nginx;"
    f" printf %s {shlex.quote(_NGINX_CONF)} >/etc/nginx/nginx.conf"
)
BASES: Final = {
    # Name of an image: its packages, further commands, changes for `docker import`.
    "python:3.13-slim": ("python3 python3-venv python3-dev", "true", ()),
    "nginx": (
        "nginx-light",
        _NGINX,
        ('CMD ["nginx", "-g", "daemon off;"]', "STOPSIGNAL SIGQUIT"),
    ),
}
_SYSTEM: Final = "debian13"


def pack(place: Path, name: str) -> Path:
    """The files of the base image *name* as a tar archive, which is made once below *place*."""
    packages, further, _ = BASES[name]
    made = hashlib.sha256(f"{packages}{further}".encode()).hexdigest()[:16]
    archive = place / f"{name.replace(':', '-')}-{made}.tar"
    if not archive.exists():
        base = Root(place, _SYSTEM)
        base.copy = place / "image"
        draft = archive.with_suffix(".draft")
        try:
            base.renew()
            install(base, packages, further)
            tar = ["tar", "-C", str(base.copy), "--one-file-system", "-cf", str(draft), "."]
            subprocess.run(tar, stdin=subprocess.DEVNULL, check=True)
            draft.rename(archive)
        finally:
            base.remove()
            draft.unlink(missing_ok=True)
    return archive


def bring(machine: Machine, place: Path, name: str) -> None:
    """Let the Docker of *machine* have the base image *name*."""
    archive = pack(place, name)
    inside = "var/tmp/base.tar"
    target = machine.folder / inside
    try:
        subprocess.run(["cp", archive, target], check=True)
        options = [f"--change={change}" for change in BASES[name][2]]
        machine.run("docker", "import", *options, f"/{inside}", name, seconds=600)
    finally:
        target.unlink(missing_ok=True)
