"""``zipfs-generator``: adds to each ``zipfs@NAME.service`` the mounts that it needs.

It is a systemd.generator(7), run early at boot and at each reload, with a folder for the units
that it writes. Library and mount point are in the config file and not in the unit, which would
otherwise start before the library's disk is mounted.

It imports little and never fails: the daemon reports a config that can't be read.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from typing import Final

CONFIGS: Final = "/etc/zipfs"
_UNITS: Final = ("zipfs", "zipfs-verify")
_PATHS: Final = ("library", "mountpoint", "lists", "romm-config", "index")


def drop_in(config: Mapping[str, object]) -> str:
    """The drop-in for the unit of a mount with this *config*; may be empty."""
    paths = [config.get(key) for key in _PATHS]
    wanted = [_quoted(path) for path in paths if isinstance(path, str) and path.startswith("/")]
    return f"[Unit]\nRequiresMountsFor={' '.join(wanted)}\n" if wanted else ""


def _quoted(path: str) -> str:
    """*path* as one word of a unit file: systemd.syntax(7), "Specifiers" in systemd.unit(5)."""
    plain = b"-._/+=:,@"
    escaped = "".join(
        chr(byte) if (chr(byte).isalnum() and byte < 0x80) or byte in plain else f"\\x{byte:02x}"
        for byte in os.fsencode(path)
    )
    return f'"{escaped}"'


def instance(name: str) -> str | None:
    """The unit instance of the config file *name*, systemd-escape(1); None for other files."""
    stem, extension = os.path.splitext(name)
    # Only characters that a unit's name may have.
    fits = stem and all(c.isascii() and (c.isalnum() or c in ":-_.\\@") for c in stem)
    return stem if extension == ".toml" and fits else None


def generate(folder: str, configs: str = CONFIGS) -> None:
    """Write a drop-in to *folder* for each of *configs*."""
    try:
        names = sorted(os.listdir(configs))
    except OSError:
        return
    for name in names:
        path = os.path.join(configs, name)
        if not os.path.isfile(path):
            continue  # opening a FIFO would block
        try:
            with open(path, "rb") as file:
                text = drop_in(tomllib.load(file))
        except (OSError, ValueError, RecursionError):
            continue
        if text and (of := instance(name)):
            for unit in _UNITS:
                place = os.path.join(folder, f"{unit}@{of}.service.d")
                os.makedirs(place, exist_ok=True)
                with open(os.path.join(place, "50-mounts.conf"), "w", encoding="utf-8") as file:
                    file.write(f"# Made by zipfs-generator from {CONFIGS}/{of}.toml\n{text}")


def main() -> None:
    """``zipfs-generator NORMAL [EARLY LATE]``, as systemd calls it."""
    if len(sys.argv) > 1:
        generate(sys.argv[1])


if __name__ == "__main__":
    main()
