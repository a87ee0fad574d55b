"""What README and the manual tell people to type about a mount, typed by a shell."""

from __future__ import annotations

import hashlib
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from bench.mount import zipfs_program
from tests.support import documents
from tests.support.libraries import content, make_game
from tests.support.mounting import Mounted, Mounts, environment, run_zipfs

FINAL = "roms/psx/Final Fantasy VII (Disc 1-3)"


class Machine:
    """Folders that stand for those of the documents."""

    def __init__(self, place: Path) -> None:
        self.library = place / "srv/games"
        self.mountpoint = place / "srv/www/games"
        self.lists = place / "srv/lists"
        self.metrics = place / "metrics"
        self.runtime: str | None = None
        """Where the mount's socket is."""
        for folder in (self.library, self.mountpoint, self.lists, self.metrics):
            folder.mkdir(parents=True)
        self._folders = {
            "/var/lib/prometheus/node-exporter": str(self.metrics),
            "/srv/": f"{place}/srv/",
        }

    def here(self, text: str) -> str:
        for folder, ours in self._folders.items():
            text = text.replace(folder, ours)
        return text

    def type(self, place: str, having: str, *, by: str = "sh") -> subprocess.CompletedProcess[str]:
        """Have a shell run the block at *place*; its status is the caller's to look at."""
        path = os.pathsep.join((str(Path(zipfs_program()).parent), os.environ["PATH"]))
        return subprocess.run(
            [by, "-eu", "-c", self.here(documents.block(place, having))],
            env=environment({"PATH": path, "RUNTIME_DIRECTORY": self.runtime}),
            cwd=self.library,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def machine(place: Path) -> Machine:
    machine = Machine(place)
    make_game(machine.library, FINAL, {f"Disc {n}.chd": content(100_000, n) for n in (1, 2, 3)})
    make_game(machine.library, "roms/dc/Ikaruga", {"ikaruga.gdi": b"1", "track 1.bin": b"2"})
    return machine


@pytest.fixture
def mounted(machine: Machine, mount: Mounts) -> Mounted:
    """As "lists" has it, which is all the others need."""
    options = documents.mount_options("lists#write-a-list", "/srv/games")
    options = [machine.here(option) for option in options]
    mounted = mount(machine.library, *options, mountpoint=machine.mountpoint)
    machine.runtime = str(mounted.runtime)
    mounted.wait_sealed(2)
    return mounted


def test_readme(machine: Machine, mount: Mounts) -> None:
    options = documents.mount_options("README#install", "/srv/games")
    mounted = mount(machine.library, *options, mountpoint=machine.mountpoint)
    mounted.wait_sealed(2)
    assert zipfile.ZipFile(mounted.archive(FINAL)).testzip() is None


def test_romm(machine: Machine, mount: Mounts, place: Path) -> None:
    config = place / "config.yml"
    config.write_text("exclude: {roms: {multi_file: {parts: {names: ['Disc 2.chd']}}}}\n")
    options = [
        option.replace("/srv/romm/config/config.yml", str(config))
        for option in documents.mount_options("romm#romms-rules-for-the-mount", "/srv/romm/library")
    ]
    assert str(config) in options
    mounted = mount(machine.library, *options, mountpoint=machine.mountpoint)
    mounted.wait_sealed(2)
    names = zipfile.ZipFile(mounted.archive(FINAL)).namelist()
    assert [name for name in names if name.endswith(".chd")] == ["Disc 1.chd", "Disc 3.chd"]


def test_index_inspect_verify(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))
    done = machine.type("index", "zipfs index")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("2 archives sealed")
    done = machine.type("index#look-at-one-archive", "zipfs inspect")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Disc 3.chd" in done.stdout
    done = machine.type("verify", "zipfs verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert "is damaged at" in documents.section("verify")


def test_a_list_by_a_shell(mounted: Mounted, machine: Machine) -> None:
    done = machine.type("lists#write-a-list", "for file in")
    assert (done.returncode, done.stderr) == (0, "")
    archive = mounted.wait_for(".lists/discs.zip")
    assert zipfile.ZipFile(archive).namelist() == ["roms/dc/Ikaruga/ikaruga.gdi"]
    done = machine.type("lists#one-wrong-line-and-there-is-no-archive", "zipfs inspect")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ikaruga.gdi" in done.stdout
    (machine.lists / "discs.list").unlink()
    mounted.wait_gone(".lists/discs.zip")


def test_a_list_by_python(mounted: Mounted, machine: Machine) -> None:
    paths = [f"{FINAL}/Disc 2.chd", "roms/dc/Ikaruga/track 1.bin"]
    names: dict[str, Any] = {
        "os": os, "hashlib": hashlib, "quote": quote,
        "library": machine.library, "lists": machine.lists, "paths": paths,
    }  # fmt: skip
    exec(documents.block("lists#write-a-list", "hashlib"), names)  # noqa: S102 - our own
    archive = mounted.wait_for(f".lists/{names['name']}.zip")
    assert zipfile.ZipFile(archive).namelist() == paths


def test_the_example_of_a_list(machine: Machine) -> None:
    """It parses; that its files aren't there is all that is wrong."""
    text = documents.block("lists#the-format").partition("\n\n")[2]
    (machine.lists / "x.list").write_text(text)
    done = run_zipfs("inspect", "--lists", machine.lists, machine.library, ".lists/x.zip")
    assert done.returncode == 7
    assert "line 1" in done.stderr


def test_status(mounted: Mounted, machine: Machine) -> None:
    done = machine.type("status", "zipfs status /srv/www/games\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "sealed" in done.stdout
    done = machine.type("status", "--prometheus")
    assert (done.returncode, done.stderr) == (0, "")
    metrics = (machine.metrics / "zipfs.prom").read_text()
    assert "zipfs_archives{" in metrics
    described = documents.section("status#metrics")
    for line in metrics.splitlines():
        if line.startswith("# TYPE "):
            assert f"`{line.split()[2]}`" in described


def test_doctor(mounted: Mounted, machine: Machine) -> None:
    done = machine.type("doctor", "zipfs doctor")
    assert done.returncode in (0, 9), done.stderr
    assert {line.split()[0] for line in documents.block("doctor", "inotify:").splitlines()} >= {
        line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")
    } - {"note", "warning"}


def test_the_config_file(machine: Machine, place: Path) -> None:
    config = place / "games.toml"
    config.write_text(machine.here(documents.block("options#the-config-file")))
    done = run_zipfs("index", "--config", config, "--index", place / "index.sqlite3")
    assert (done.returncode, done.stderr) == (0, "")


def test_shell_completion(machine: Machine) -> None:
    done = machine.type("options#shell-completion", "bash_source", by="bash")
    assert (done.returncode, done.stderr) == (0, "")
