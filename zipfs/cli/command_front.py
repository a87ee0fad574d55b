"""``zipfs front``: prints a file that has a web front end's downloads come from zipfs."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

import click

_FILES: Final = {
    "romm": "gunicorn.conf.py",
    "nginx.js": "nginx.js",
    "nginx.conf": "nginx.conf",
}


def front_file(name: str) -> str:
    """The text of the file for *name*."""
    folder = files("zipfs") / "front" / "files"
    return (folder / _FILES[name]).read_text(encoding="utf-8")


@click.command(short_help="Print the file that has a front end use zipfs.")
@click.argument("name", metavar="romm|nginx.js|nginx.conf", type=click.Choice([*_FILES]))
def front(name: str) -> None:
    """Print a file that has the downloads of a web front end come from zipfs.

    `romm` is the hook for RomM, its `gunicorn.conf.py`. `nginx.js` and `nginx.conf` are for nginx
    with its JavaScript module, in front of any application that answers with lists for nginx's
    ZIP module.
    """
    click.echo(front_file(name), nl=False)
