"""The way of a download through RomM, link by link (``zipfs doctor --romm URL``).

One download is asked for twice, whole and by a range, and only the beginning of it is read. A
range comes second: without the hook, RomM copies the game to its disk for one. The links are

    RomM lets us in > its hook takes the answer > writes the list > zipfs has the archive
    > nginx sends that > and ranges of it

and the first that is broken is told, with what mends it. Where lists and mount are those of this
machine, it is seen in them what RomM has done.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from zipfs.archive.validators import nginx_etag
from zipfs.errors import UnansweredError
from zipfs.library.decorators.lists import SUFFIX
from zipfs.ops.doctor.findings import Finding
from zipfs.ops.doctor.romm_client import Answer, Download
from zipfs.system.subprocesses import ask
from zipfs.text import printable, quoted

_ROMM: Final = "RomM"
_HOOK: Final = "RomM: hook"
_LIST: Final = "RomM: list"
_ARCHIVE: Final = "RomM: archive"
_NGINX: Final = "RomM: nginx"
_RANGE: Final = "RomM: range"
_SUFFIX: Final = os.fsdecode(SUFFIX)
_END: Final = 22
"""Bytes of the record at the end of an archive."""
_SHARED: Final = (
    "give RomM's container the folder of --lists as /zipfs/lists, and the folder above the mount"
    " point, with `propagation: rslave`, as /romm/cache/zipfs (`zipfs help romm`)"
)
_AGAIN: Final = "restart zipfs, and then RomM's container, so that it sees the new mount"


@dataclass(frozen=True, slots=True)
class Here:
    """The folder of lists and that of their archives, if they are on this machine."""

    lists: str | None
    shown: str | None

    def dates(self) -> dict[str, int]:
        """When each list was last written or dated, by its name; nothing if none can be seen."""
        try:
            found: dict[str, int] = ask(_dates, self.lists) if self.lists else {}
        except (OSError, UnansweredError):
            return {}
        return found

    def archive(self, name: str) -> dict[str, Any]:
        """ETag and end of the archive of the list *name*, or why there is none."""
        return _seen(self.shown, name) if self.shown else {"unknown": "no mount point is given"}

    def archive_with(self, etag: str) -> str:
        """The name of the list whose archive nginx would send with *etag*; empty: of none."""
        try:
            return str(ask(_named, self.shown, etag)) if self.shown else ""
        except (OSError, UnansweredError):
            return ""


def check(url: str, here: Here) -> Iterator[Finding]:
    """Check the way of the download at *url*. Raises :exc:`zipfs.errors.ConfigError`."""
    download = Download(url)
    before = here.dates()
    try:
        answer = download.ask()
    except (OSError, http.client.HTTPException) as error:
        yield Finding(
            _ROMM,
            "problem",
            f"{printable(download.host)} doesn't answer: {_why(error)}",
            "copy the address of a download from the browser; it begins with http",
        )
        return
    now = here.dates()
    fresh = [name for name, date in now.items() if before.get(name) != date]
    if broken := _refused(answer, download, fresh):
        yield broken
        return
    reason = answer.header("x-zipfs")
    if answer.status == 200 and not (reason or fresh or answer.header("etag")):
        yield Finding(
            _HOOK,
            "problem",
            "RomM builds the archive while sending, as without zipfs: its hook isn't loaded",
            "mount gunicorn.conf.py into RomM's container as /backend/gunicorn.conf.py and"
            " restart it; its log then has a line that begins with `zipfs:`",
        )
        return
    if reason:
        yield Finding(_HOOK, "ok", "it is loaded")
        yield from _fell_back(reason, fresh, here)
        return
    yield from _sent(answer, download, fresh, here)


def _refused(answer: Answer, download: Download, fresh: list[str]) -> Finding | None:
    """What is wrong if the download isn't to be had from RomM itself."""
    status = answer.status
    if fresh or answer.header("x-zipfs") or status in (200, 206):
        return None
    if status in (301, 302, 303, 307, 308):
        where = printable(answer.header("location"))
        what = f"the address leads on to {where}"
        return Finding(_ROMM, "problem", what, "give that address, or one of a download there")
    if "json" not in answer.header("content-type") and status in (403, 404):
        return None  # nginx's own
    remedies = {
        401: "set ZIPFS_ROMM_TOKEN, or ZIPFS_ROMM_USER and ZIPFS_ROMM_PASSWORD, or write the"
        " login into ~/.netrc",
        403: "use the login of somebody who may download",
        404: "copy the address of a download from the browser once more",
    }
    said = "with the login that is set" if download.has_login else "without a login"
    what = f"RomM answers {status} {said}"
    return Finding(_ROMM, "problem", what, remedies.get(status, "look into RomM's log"))


def _fell_back(reason: str, fresh: list[str], here: Here) -> Iterator[Finding]:
    """Why the hook has let RomM go its old way."""
    said = f"RomM's hook says: {printable(reason)}"
    if reason.startswith("the list can't be written"):
        remedy = "let the user of RomM's processes write into the folder of --lists"
        yield Finding(_LIST, "problem", said, remedy)
        return
    if reason.startswith("there is no folder"):
        is_shown = bool(fresh)
        yield Finding(_ARCHIVE if is_shown else _LIST, "problem", said, _SHARED)
        return
    if reason != "no archive yet":
        can_read = "can't be read" in reason
        remedy = (
            "mount with --allow-other, and let RomM's user read the library's files"
            if can_read
            else f"`zipfs status` tells whether zipfs runs; {_AGAIN}"
        )
        yield Finding(_ARCHIVE, "problem", said, remedy)
        return
    if here.lists is None:
        remedy = "give --lists and the mount point, and it can be said which link is missing"
        yield Finding(_ARCHIVE, "problem", said, remedy)
        return
    if not fresh:
        what = f"RomM's hook writes its lists elsewhere: none has come to {quoted(here.lists)}"
        yield Finding(_LIST, "problem", what, _SHARED)
        return
    yield Finding(_LIST, "ok", f"RomM's hook has written {fresh[0]}{_SUFFIX}")
    found = here.archive(fresh[0])
    if "etag" in found:
        what = "the archive is there, and RomM's container doesn't see it"
        yield Finding(_ARCHIVE, "problem", what, f"{_SHARED}; then restart it")
    else:
        yield Finding(
            _ARCHIVE,
            "problem",
            f"{said}; {found.get('missing') or found.get('unknown')}",
            f"`zipfs inspect LIBRARY .lists/{fresh[0]}.zip --lists FOLDER` says whether the list is"
            " wrong, `zipfs status` whether its files are still being hashed",
        )


def _sent(answer: Answer, download: Download, fresh: list[str], here: Here) -> Iterator[Finding]:
    """The links behind the hook, which has answered with an archive, or with one file."""
    etag = answer.header("etag")
    name = here.archive_with(etag) if etag else ""
    if answer.status not in (200, 206) or (fresh and answer.first != b"PK\3\4"):
        yield Finding(_HOOK, "ok", "it is loaded")
        remedies = {
            403: "let the user of RomM's nginx in: --allow-other, and the library's files readable"
            " for all",
            404: "RomM before 5.1.0 has no `location /cache/`: use the configuration for nginx in"
            " `zipfs help romm`; later ones have it, and don't see the mount: restart the"
            " container",
        }
        what = f"RomM's nginx doesn't send the archive: it answers {answer.status}"
        if answer.status == 200:
            what = "RomM's nginx sends something else than the archive"
        status = 404 if answer.status == 200 else answer.status
        yield Finding(_NGINX, "problem", what, remedies.get(status, "look into RomM's log"))
        return
    if "text/html" in answer.header("content-type"):
        what = "the address is that of a page, and of no download"
        yield Finding(_ROMM, "problem", what, "copy that of a download from the browser")
        return
    if answer.first != b"PK\3\4" or not _is_archive(answer):
        yield Finding(
            _HOOK,
            "problem",
            "the download is one file, which RomM sends as it is",
            "give the address of a game of several files",
        )
        return
    yield Finding(_HOOK, "ok", "it is loaded")
    if fresh or name:
        yield Finding(_LIST, "ok", f"RomM's hook has written {(name or fresh[0])}{_SUFFIX}")
    elif here.lists:
        what = f"an archive comes, but no list has come to {quoted(here.lists)}: it is another's"
        yield Finding(_LIST, "warning", what, "give the --lists and the mount that RomM uses")
    found: dict[str, Any] = {}
    if name or fresh:
        found = here.archive(name or fresh[0])
        if "missing" in found:
            yield Finding(_ARCHIVE, "problem", found["missing"], _AGAIN)
            return
        if "etag" in found:
            yield Finding(_ARCHIVE, "ok", "zipfs shows its archive")
        else:
            yield Finding(_ARCHIVE, "note", f"it can't be looked at here: {found['unknown']}")
        if found.get("etag", etag) != etag:
            what = "RomM's nginx sends another file than zipfs shows"
            yield Finding(_NGINX, "problem", what, f"nginx may keep an old mount: {_AGAIN}")
            return
    yield Finding(_NGINX, "ok", f"it sends the archive, with the ETag {printable(etag)}")
    yield _range(answer, download, found.get("end"))


def _is_archive(answer: Answer) -> bool:
    named = answer.header("content-disposition").lower()
    return ".zip" in named or not named


def _range(answer: Answer, download: Download, end: str | None) -> Finding:
    """Whether a range of it is answered with its bytes; *end* are those, in hex, if known."""
    length = answer.header("content-length")
    proxies = "what stands before RomM has to pass `Range` on, and must not change the answer"
    if not length.isdecimal() or int(length) < _END:
        return Finding(_RANGE, "problem", "the answer has no Content-Length", proxies)
    size = int(length)
    try:
        part = download.ask(f"bytes={size - _END}-{size - 1}", _END)
    except (OSError, http.client.HTTPException) as error:
        return Finding(_RANGE, "problem", f"a range isn't answered: {_why(error)}", proxies)
    if part.status != 206:
        what = f"a range is answered with {part.status} instead of 206"
        return Finding(_RANGE, "problem", what, proxies)
    if part.header("etag") != answer.header("etag"):
        return Finding(_RANGE, "problem", "a range has another ETag than the whole", proxies)
    if part.first[:4] != b"PK\5\6" or end not in (None, part.first.hex()):
        return Finding(_RANGE, "problem", "a range has other bytes than the archive", proxies)
    return Finding(_RANGE, "ok", "206, with the right bytes: downloads can be resumed")


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


# -- In a subprocess ---------------------------------------------------------------------


def _dates(folder: str) -> dict[str, int]:
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(_SUFFIX):
                status = entry.stat(follow_symlinks=False)
                date = max(status.st_mtime_ns, status.st_ctime_ns)
                found[entry.name.removesuffix(_SUFFIX)] = date
    return found


def _seen(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, f"{name}.zip")
    try:
        found: dict[str, Any] = ask(_look, path)
    except FileNotFoundError:
        return {"missing": f"there is no {quoted(path)}"}
    except OSError as error:
        return {"unknown": error.strerror or str(error)}
    except UnansweredError as error:
        return {"missing": f"{quoted(path)} doesn't answer: {error}"}
    return found


def _look(path: str) -> dict[str, str]:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        file.seek(-_END, os.SEEK_END)
        end = file.read(_END).hex()
    return {"etag": nginx_etag(int(status.st_mtime), status.st_size), "end": end}


def _named(folder: str, etag: str) -> str:
    with os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat()
            if nginx_etag(int(status.st_mtime), status.st_size) == etag:
                return entry.name.removesuffix(".zip")
    return ""
