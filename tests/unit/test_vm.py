"""`make vm`: its verdicts, its tables and its archive for the kernel, without a machine."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.vm import image, judging, machine, results
from tests.vm.__main__ import choose, main
from tests.vm.guest import library
from tests.vm.guest.exports import EXPORTED
from tests.vm.guest.sources import SOURCES

DATA = {"disc1.bin": b"before" * 5000, "game.cue": b"cue"}
OTHER = {"disc1.bin": b"behind" * 5000, "game.cue": b"cue"}


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as stream:
        for name, data in members.items():
            stream.writestr(name, data)
    return buffer.getvalue()


def sums(members: dict[str, bytes]) -> judging.Members:
    return {name: judging.digest(data) for name, data in members.items()}


def judge(data: bytes, *, complete: bool = True) -> str:
    return judging.judge(data, complete=complete, old=sums(DATA), new=sums(OTHER))


# ---------------------------------------------------------------- verdicts


def test_whole_versions() -> None:
    assert judge(archive(DATA)) == judging.OLD
    assert judge(archive(OTHER)) == judging.NEW


def test_mixed() -> None:
    """The beginning of one version and the end of the other: what must never be."""
    before, behind = archive(DATA), archive(OTHER)
    assert len(before) == len(behind)
    half = len(before) // 2
    assert judge(before[:half] + behind[half:]) == judging.WRONG


@pytest.mark.parametrize("offset", [40, 1000, 29_000])
def test_one_byte(offset: int) -> None:
    data = bytearray(archive(DATA))
    data[offset] ^= 1
    assert judge(bytes(data)) == judging.WRONG


def test_short_and_empty() -> None:
    """A client that takes a part for the whole has been given wrong bytes."""
    assert judge(archive(DATA)[:-1000]) == judging.WRONG
    assert judge(b"") == judging.WRONG


def test_cut_off() -> None:
    assert judge(archive(DATA)[:1000], complete=False) == judging.CUT


def test_a_member_missing() -> None:
    assert judge(archive({"game.cue": b"cue"})) == judging.WRONG


def test_worst() -> None:
    assert judging.worst(["cut", "old"]) == "cut"
    assert judging.worst(["old", "WRONG"]) == judging.WRONG
    assert judging.worst([]) == judging.NONE


# ---------------------------------------------------------------- the library


def test_content_differs_everywhere() -> None:
    one, two = library.content(3 << 20, 1), library.content(3 << 20, 2)
    assert len(one) == 3 << 20
    pages = range(0, len(one), 4096)
    assert all(one[n : n + 4096] != two[n : n + 4096] for n in pages)
    assert len({one[n : n + (1 << 20)] for n in range(0, len(one), 1 << 20)}) == 3


@pytest.mark.parametrize("name", library.CHANGES)
def test_changes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each makes another version; those that keep the date keep it."""
    monkeypatch.setattr(library, "SIZE", 1 << 20)
    change = library.CHANGES[name]
    library.make(tmp_path, change.folder, change.seed)
    before = library.truth(tmp_path, change.folder)
    disc = change.at(tmp_path)
    date = disc.stat().st_mtime_ns
    change.apply(disc, library.content(1 << 20, change.seed + 5))
    assert library.truth(tmp_path, change.folder) != before
    if name in ("dated back", "replaced"):
        assert (disc.stat().st_mtime_ns, disc.stat().st_size) == (date, 1 << 20)


def test_the_tables_have_all_changes() -> None:
    assert tuple(library.CHANGES) == results.CHANGES


# ---------------------------------------------------------------- tables


def changed(**fields: Any) -> dict[str, Any]:
    return {"during": "cut", "then": "new", "noticed": 1.5, "offered": 4.2, **fields}


def row(**fields: Any) -> dict[str, Any]:
    return {
        "changes": {name: changed() for name in results.CHANGES},
        "remount": {"hashed": 0, "of": 72 << 20},
        **fields,
    }


def lines(published: results.Published, table: int = 0) -> list[str]:
    """The lines of the table number *table*, without its head."""
    order = sorted({name for rows in published.values() for name in rows})
    return results.page(published, order).split("\n\n")[table].splitlines()[2:]


def test_kernels_that_differ() -> None:
    """A line for all that differ in seconds only; the names of the others."""
    same, slower = row(), row(changes={name: changed(offered=9) for name in results.CHANGES})
    other = row(changes={name: changed(during="old") for name in results.CHANGES})
    published = {
        "5.10": {"a": same, "b": other},
        "6.1": {"a": same, "b": same, "c": same},
        "6.12": {"a": slower, "b": slower},
    }
    assert [one.split(" | ")[:3:2] for one in lines(published)] == [
        ["| a", "cut, 9 s"],
        ["| b (5.10)", "old, 4 s"],
        ["| b (6.1, 6.12)", "cut, 9 s"],
        ["| c (6.1)", "cut, 4 s"],
    ]


def test_names_of_kernels() -> None:
    found = results.kernels({"6.12": {"a": {"error": "x"}}, "5.10": {"a": row(kernel="5.10.0-1")}})
    assert found == ["5.10.0-1", "6.12"]


def test_patience() -> None:
    rows = {"a": row(patience=150), "b": row(patience=60), "c": {"error": "x"}}
    assert results.patience({"6.1": rows}) == 60
    assert results.patience({}) == 0


def test_cells() -> None:
    rows = {
        "a": row(
            changes={
                "in place": changed(),
                "dated back": changed(during="WRONG", then="old", offered=None),
                "replaced": changed(then="WRONG"),
                "renamed": changed(during="old", offered=0.3),
                "truncated": changed(offered=None),
                "deleted": changed(during="new"),
            }
        )
    }
    [line] = lines({"6.1": rows})
    assert line == (
        "| a | state | cut, 4 s | **WRONG**, never | cut, never | **WRONG**, 4 s | old, <1 s"
        " | new, 4 s |"
    )
    assert results.failed(rows["a"])


def test_servers() -> None:
    hung = row(
        remount={"hashed": 6 << 20, "of": 72 << 20},
        hang={
            "list": {"seconds": 0.2, "said": "right"},
            "read": {"seconds": 10.4, "said": "Input/output error"},
            "status": True,
        },
        back={"seconds": 2.0, "then": "old"},
    )
    never = row(
        hang={"list": {"seconds": None, "said": "no answer"}, "read": hung["hang"]["read"]},
        back={"seconds": None, "then": "cut"},
    )
    assert [results.failed(one) for one in (row(), hung, never)] == [False, False, True]
    assert lines({"6.1": {"a": row(), "b": hung, "c": never}}, table=1) == [
        "| a | no | - | - | - |",
        "| b | 6 of 72 MiB | right, <1 s | Input/output error, 10 s | right, 2 s |",
        "| c | no | no answer | Input/output error, 10 s | never |",
    ]


def test_exports() -> None:
    rows = {
        "export-nfs3": {
            "right": "new",
            "forgotten": "Stale file handle",
            "changed": {"seconds": 7.0, "seen": ["cut", "new"]},
        }
    }
    assert lines({"6.1": rows}) == ["| export-nfs3 | right | Stale file handle | 7 s |"]
    assert not results.failed(rows["export-nfs3"])


def test_a_source_that_could_not_be_tried() -> None:
    rows = {"a": row(), "b": {"error": "ProgramError: mount: unknown filesystem type"}}
    assert results.failed(rows["b"])
    assert results.failures(rows) == ["b: ProgramError: mount: unknown filesystem type"]
    assert "| b |" not in results.page({"6.1": rows}, ["a", "b"])


def test_publish_keeps_the_others(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    results.publish("6.1", {"a": row(), "b": row()}, file)
    results.publish("5.10", {"a": row()}, file)
    results.publish("6.1", {"b": {"error": "x"}}, file)
    known = results.load(file)
    assert set(known["6.1"]) == {"a", "b"}
    assert known["6.1"]["b"] == {"error": "x"}
    assert set(known["5.10"]) == {"a"}


def test_what_is_published_is_known() -> None:
    """No source or kernel of the manual's table that isn't tried any more."""
    for kernel, rows in results.load().items():
        assert kernel in image.KERNELS
        assert set(rows) <= {*SOURCES, *EXPORTED}
        assert json.loads(results.RESULTS.read_text())[kernel] == rows


# ---------------------------------------------------------------- the machine


@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="no bsdtar")
def test_cpio(tmp_path: Path) -> None:
    data = image.cpio(["bin"], {"init": b"#!/bin/sh\n", "bin/tool": b"x" * 4097}, {"sh": b"init"})
    subprocess.run(["bsdtar", "-xf", "-"], input=data, cwd=tmp_path, check=True)
    assert (tmp_path / "bin/tool").read_bytes() == b"x" * 4097
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "sh").readlink() == Path("init")


def test_command(tmp_path: Path) -> None:
    """Without a network, and without leaving anything in the images."""
    kernel = image.Kernel(name="6.1", folder=tmp_path / "6.1")
    command = machine.command(kernel, tmp_path / "disk", tmp_path / "share", tmp_path / "console")
    drives = [one for one in command if one.startswith("file=")]
    assert any("snapshot=on" in one for one in drives)
    assert any("readonly=on" in one for one in drives)
    assert "-nodefaults" in command
    assert not any("netdev" in one for one in command)


def test_choose() -> None:
    assert choose(["nfs4"], "6.1") == ["nfs4.2", "nfs4.2-noatime", "export-nfs4.2"]
    assert choose(["cifs", "sshfs"], "6.1") == ["cifs", "sshfs"]
    assert choose(None, "6.12") == [*SOURCES, *EXPORTED]
    assert "ntfs3" not in choose(None, "6.1")


def test_unknown_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--kernel", "2.4"])
    assert "invalid choice" in capsys.readouterr().err
