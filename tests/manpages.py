"""The man pages ``zipfs(1)`` and ``mount.zipfs(8)``, in roff, out of click and the manual.

man(7) says how. Text is that of ``--help``; what stands between backquotes is bold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import click

from zipfs import __version__
from zipfs.cli.cli import cli
from zipfs.errors import EXIT_CODES

_OF_LIBRARIES = "archive options"

_ARGUMENTS = {
    "mount": "LIBRARY MOUNTPOINT",
    "unmount": "MOUNTPOINT",
    "index": "LIBRARY",
    "inspect": "[LIBRARY] GAME",
    "status": "MOUNTPOINT",
    "doctor": "[LIBRARY] [MOUNTPOINT]",
    "verify": "LIBRARY",
    "front": "romm|nginx.js|nginx.conf",
    "help": "[TOPIC]",
    "prepare": "",
    "tune": "MOUNTPOINT",
}


def escaped(text: str) -> str:
    """*text* for roff: no character of it means anything else than itself."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return text.replace("~", "\\(ti").replace("^", "\\(ha").replace("…", "...")


def prose(text: str) -> str:
    """A paragraph, `code` in bold. No line begins with what would be a request."""
    pieces = " ".join(text.split()).split("`")
    done = "".join(
        f"\\fB{escaped(piece)}\\fR" if number % 2 else escaped(piece)
        for number, piece in enumerate(pieces)
    )
    return f"\\&{done}" if done.startswith(".") else done


def paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        yield prose(paragraph.replace("\b", ""))


def tagged(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Paragraphs with a tag, which is bold but for its placeholders in capitals."""
    for tag, text in rows:
        yield ".TP"
        yield tag
        yield prose(text)


def flags(option: click.Option) -> str:
    done = ", ".join(f"\\fB{escaped(flag)}\\fR" for flag in option.opts)
    if option.is_flag:
        return done
    metavar = option.metavar
    if metavar is None and isinstance(option.type, click.Choice):
        metavar = "|".join(option.type.choices)
    return f"{done} \\fI{escaped(metavar or 'VALUE')}\\fR"


def _options(options: Iterable[click.Option]) -> Iterator[str]:
    return tagged((flags(option), option.help or "") for option in options)


def _head(name: str, section: int, title: str, what: str) -> Iterator[str]:
    yield '.\\" Made by `make manual`; changes here are lost.'
    yield f'.TH {name} {section} "" "zipfs {__version__}" "{title}"'
    yield ".SH NAME"
    yield f"{escaped(name.lower())} \\- {what}"


def zipfs_1(options_of: Callable[[str], list[click.Option]]) -> str:
    """``zipfs(1)``; *options_of* gives the options of a command."""
    mount, index = options_of("mount"), options_of("index")
    shared = {option.name for option in index}
    lines = [
        *_head("ZIPFS", 1, "User Commands", "show each game folder as one virtual .zip file"),
        ".SH SYNOPSIS",
    ]
    for number, (name, arguments) in enumerate(_ARGUMENTS.items()):
        words = " ".join(f"\\fI{escaped(word)}\\fR" for word in arguments.split())
        lines += [".br"] if number else []
        lines += [f"\\fBzipfs {name}\\fR [\\fIoptions\\fR] {words}".rstrip()]
    lines += [".SH DESCRIPTION", *paragraphs(cli.help or ""), ".PP"]
    lines += [prose("`zipfs help` is the manual: `zipfs help --list` lists its topics.")]
    lines += [".SH COMMANDS"]
    for name, arguments in _ARGUMENTS.items():
        command = cli.commands[name]
        words = " ".join(f"\\fI{escaped(word)}\\fR" for word in arguments.split())
        lines += [f".SS \\fBzipfs {name}\\fR {words}".rstrip()]
        lines += [*paragraphs(command.help or "")]
        own = [option for option in options_of(name) if option.name not in shared]
        if name not in ("mount", "index", "inspect", "verify"):
            own = options_of(name)
        lines += [*_options(own)]
    lines += [".SH OPTIONS ABOUT ARCHIVES"]
    lines += [
        prose(
            "Of `mount`, `index`, `inspect` and `verify`. They decide on the bytes of archives, so"
            " give the same to all of them, or the same `--config`."
        ),
        *_options(option for option in mount if option.name in shared),
        ".SH EXIT STATUS",
        *tagged((f"\\fB{code}\\fR", text) for code, text in EXIT_CODES.items()),
        ".SH SIGNALS",
        *tagged(
            (
                ("\\fBSIGINT\\fR, \\fBSIGTERM\\fR", "Unmount, and exit with 0."),
                ("\\fBSIGHUP\\fR", "Scan the library again, and read `--romm-config` again."),
                ("\\fBSIGUSR1\\fR", "Print all stacks to stderr."),
            )
        ),
        ".SH ENVIRONMENT",
        *tagged(
            (
                (
                    "\\fBSTATE_DIRECTORY\\fR",
                    "The folder of the index, instead of `~/.local/state/zipfs`.",
                ),
                (
                    "\\fBRUNTIME_DIRECTORY\\fR, \\fBXDG_RUNTIME_DIR\\fR",
                    "The folder of the socket that answers `zipfs status`.",
                ),
                ("\\fBPAGER\\fR", "What `zipfs help` shows its pages with on a terminal."),
            )
        ),
        ".SH FILES",
        *tagged(
            (
                (
                    "\\fI/etc/zipfs/NAME.toml\\fR",
                    "The config of the service `zipfs@NAME`: the options of `zipfs mount` by name.",
                ),
                ("\\fI/var/lib/zipfs/NAME\\fR", "Its index of checksums."),
                ("\\fI/run/zipfs/NAME\\fR", "Its socket."),
            )
        ),
        ".SH EXAMPLES",
        ".EX",
        "zipfs mount \\-\\-allow\\-other /srv/games /srv/www/games",
        "zipfs doctor \\-\\-web\\-user www\\-data /srv/games /srv/www/games",
        "zipfs help romm",
        ".EE",
        ".SH SEE ALSO",
        "\\fBmount.zipfs\\fR(8), \\fBfuse\\fR(4), \\fBsystemd.unit\\fR(5)",
    ]
    return "\n".join(lines) + "\n"


def mount_zipfs_8() -> str:
    """``mount.zipfs(8)``."""
    lines = [
        *_head(
            "MOUNT.ZIPFS", 8, "System Administration", "mount a game library for mount(8) and fstab"
        ),
        ".SH SYNOPSIS",
        (
            "\\fBmount \\-t zipfs\\fR \\fILIBRARY\\fR \\fIMOUNTPOINT\\fR"
            " [\\fB\\-o\\fR \\fIoptions\\fR]"
        ),
        ".PP",
        "In \\fI/etc/fstab\\fR:",
        ".PP",
        ".EX",
        "/srv/games  /srv/www/games  zipfs  allow_other,nofail  0  0",
        ".EE",
        ".SH DESCRIPTION",
        prose(
            "`mount.zipfs` is what mount(8) runs. It returns when the mount can be used, and leaves"
            " the daemon in the background; umount(8) ends it. Its log is in the journal, or in"
            " syslog. No one starts it again if it dies: for that use the systemd service"
            " `zipfs@NAME`."
        ),
        ".SH OPTIONS",
        prose(
            "Each option of `zipfs mount` can be given as `name=value`, with `_` for `-`, several"
            " times where the option can be repeated (`exclude=*.nfo,exclude=extras`). A value with"
            ' a comma is quoted, `games="a,b"`. Besides these:'
        ),
        *tagged(
            (
                (
                    "\\fBsetuid=\\fIUSER\\fR[:\\fIGROUP\\fR]",
                    (
                        "The daemon is USER, without any right; else it is root. Its index is in"
                        " `/var/lib/zipfs/user-UID`, unless `index=` says otherwise."
                    ),
                ),
                (
                    (
                        "\\fBnoauto\\fR, \\fBnofail\\fR, \\fB_netdev\\fR, \\fBuser\\fR,"
                        " \\fBx\\-systemd.automount\\fR, ..."
                    ),
                    "As for all file systems: mount(8), systemd.mount(5).",
                ),
                (
                    "\\fBx\\-systemd.requires\\-mounts\\-for=\\fIPATH\\fR",
                    "Wait for the disk of the library.",
                ),
                (
                    "\\fBnoexec\\fR, \\fBnosymfollow\\fR, \\fBcontext=\\fR...",
                    "As for all file systems.",
                ),
                (
                    "\\fBro\\fR, \\fBnosuid\\fR, \\fBnodev\\fR, \\fBnoatime\\fR",
                    "Always on; `rw`, `dev` and the like change nothing.",
                ),
            )
        ),
        ".PP",
        prose(
            "With `user` or `users`, the user who mounts must own the mount point, and the daemon"
            " runs as that user. `uid=`, `gid=` and `umask=` set the owner and permissions that all"
            " files are shown with."
        ),
        ".SH EXIT STATUS",
        *tagged(
            (
                ("\\fB0\\fR", "The mount can be used."),
                ("\\fB1\\fR", "Wrong usage."),
                ("\\fB32\\fR", "The mount failed; one line on stderr says why."),
            )
        ),
        ".SH EXAMPLES",
        ".EX",
        "mount \\-t zipfs /srv/games /srv/www/games \\-o allow_other,settle=5",
        "journalctl ZIPFS_MOUNTPOINT=/srv/www/games",
        ".EE",
        ".SH SEE ALSO",
        "\\fBzipfs\\fR(1), \\fBmount\\fR(8), \\fBfstab\\fR(5), \\fBsystemd.mount\\fR(5)",
    ]
    return "\n".join(lines) + "\n"
