"""The description of an archive: as a table for people, as JSON for programs."""

from __future__ import annotations

from typing import Any

import xxhash
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zipfs.archive import validators
from zipfs.archive.records import FORMAT_VERSION
from zipfs.sealing.outcomes import Version
from zipfs.text import date, shown


def as_json(version: Version) -> dict[str, Any]:
    """The description of *version*; sizes and offsets in bytes."""
    sealed, layout = version.sealed, version.layout
    seconds = sealed.mtime_ns // validators.NANOSECONDS
    return {
        "archive": shown(sealed.path),
        "format_version": FORMAT_VERSION,
        "size": sealed.size,
        "content_id": f"{sealed.content:032x}",
        "mtime": date(seconds),
        "mtime_ns": sealed.mtime_ns,
        "inode": sealed.inode,
        "etag": {
            "nginx": validators.nginx_etag(seconds, sealed.size),
            "caddy 2.7 and older": validators.caddy_etag(seconds, sealed.size),
            "caddy 2.8 and newer": validators.caddy_etag(sealed.mtime_ns, sealed.size),
        },
        "members": [_member(version, number) for number in range(len(layout.members))],
    }


def _member(version: Version, number: int) -> dict[str, Any]:
    """A member: *path* is relative to the game's folder, *source* to the library; both are None if
    zipfs generates the member, and *source* of an empty folder."""
    layout = version.layout
    member = layout.members[number]
    source = layout.source_of(number)
    if source is None:
        folder = version.folders.get(member.name)
        path = None if folder is None else shown(folder)
        file = None
        digest = xxhash.xxh3_128_digest(layout.inline[number])
    else:
        path = shown(version.files[source].path)
        file = shown(version.files[source].source)
        digest = version.digests[source]
    return {
        "name": member.name.decode(),
        "path": path,
        "source": file,
        "offset": layout.header_offset(number),
        "data_offset": layout.data_offset(number),
        "size": member.size,
        "crc32": f"{member.crc32:08x}",
        "xxh3_128": digest.hex(),
        "mtime": date(member.mtime),
        "executable": member.executable,
    }


def print_version(version: Version, console: Console, *, listed: bool = False) -> None:
    """Print the description, members as a table; *listed* if a list defines the archive."""
    named, inline = "in the game's folder", "is made by zipfs"
    if listed:
        named, inline = "in the list", "is in the list itself"
    facts = as_json(version)
    table = Table("offset", "size", "crc-32", "modified", "name", title=None)
    for column in table.columns[:2]:
        column.justify = "right"
    table.columns[-1].overflow = "fold"
    for member in facts["members"]:
        table.add_row(
            str(member["offset"]),
            str(member["size"]),
            member["crc32"],
            member["mtime"],
            # Text, not markup: a name may hold [brackets].
            Text(shown(member["name"].encode())),
        )
    console.print(table)
    for member in facts["members"]:
        name = shown(member["name"].encode())
        is_listed = listed and name.endswith("/")
        if member["path"] != name.removesuffix("/") and not is_listed:
            line = f"{name} " + (f"is {member['path']} {named}" if member["path"] else inline)
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    lines = {
        "archive": facts["archive"],
        "size": f"{facts['size']} bytes",
        "content id": f"{facts['content_id']} (format version {facts['format_version']})",
        "mtime": facts["mtime"],
        **{f"ETag, {server}": etag for server, etag in facts["etag"].items()},
    }
    for name, value in lines.items():
        console.print(f"{name}: {value}", markup=False, highlight=False, soft_wrap=True)
