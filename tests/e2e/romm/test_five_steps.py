"""The manual's five steps for RomM, as somebody follows them, without an engine for containers."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from bench.mount import zipfs_program
from tests.e2e.romm.shelf import CUE, make_shelf
from tests.e2e.romm.stand import HOOK, LOGIN, Romm, romm
from tests.support import documents
from tests.support.mounting import Mounted, Mounts, environment
from tests.support.users import needs_root
from tests.support.waiting import poll

STEPS: Final = "romm#in-five-steps"
HOST: Final = "/srv/romm"
TOKEN: Final = LOGIN[1].rpartition(" ")[2]
URLS: Final = (
    "http://localhost/api/roms/7/content/Game",
    "http://romm:8080/api/roms/7/content/Game",
)


def services() -> dict[str, Any]:
    found = yaml.safe_load(documents.block(STEPS, "services:"))
    assert set(found["services"]) == {"romm", "zipfs"}
    services: dict[str, Any] = found["services"]
    return services


def volumes(service: str) -> dict[str, str]:
    """What *service* has of the host: the path there by the path in its container."""
    found = {}
    for volume in services()[service]["volumes"]:
        if isinstance(volume, dict):
            found[volume["target"]] = volume["source"]
        else:
            source, target = volume.split(":")[:2]
            found[target] = source
    return found


def on_host(service: str, path: str) -> str:
    """Where the host has what is at *path* in the container of *service*."""
    for target, source in volumes(service).items():
        if path == target or path.startswith(f"{target}/"):
            return source + path.removeprefix(target)
    raise AssertionError(f"{service} has no {path}")


def command() -> list[str]:
    words = shlex.split(services()["zipfs"]["command"])
    assert words[0] == "mount"
    return words[1:]


def option(name: str) -> str:
    return command()[command().index(name) + 1]


def test_both_have_the_same_folders() -> None:
    """Where they are in each container, they lead to one place of the host."""
    settings = services()["romm"]["environment"]
    mountpoint = command()[-1]
    assert on_host("romm", settings["ZIPFS_SHOWN"]) == f"{on_host('zipfs', mountpoint)}/.lists"
    # RomM's nginx has /romm/cache/ as /cache/.
    assert settings["ZIPFS_SHOWN"] == f"/romm{settings['ZIPFS_LOCATION']}"
    assert on_host("romm", "/zipfs/lists") == on_host("zipfs", option("--lists"))
    assert on_host("romm", "/backend/gunicorn.conf.py").startswith(HOST)
    assert on_host("zipfs", command()[-2]) == f"{HOST}/library"
    # Mounted below what is shared, and seen by both whoever starts first.
    shared = {
        (service, volume["source"]): volume["bind"]["propagation"]
        for service in services()
        for volume in services()[service]["volumes"]
        if isinstance(volume, dict)
    }
    above = os.path.dirname(on_host("zipfs", mountpoint))
    assert shared == {("romm", above): "rslave", ("zipfs", above): "rshared"}


def typed(text: str, place: Path, **more: str) -> str:
    """Have a shell run *text* on a host whose folders are below *place*; what it prints."""
    programs = Path(zipfs_program()).parent
    text = text.replace("docker run --rm zipfs ", "zipfs ")
    text = text.replace("docker compose exec -e ZIPFS_ROMM_TOKEN zipfs ", "")
    for url in URLS:
        text = text.replace(url, more.get("url", url))
    for folder in ("/srv/romm/", "/srv/lists", "/srv/www/games", "/srv/games"):
        text = text.replace(folder, more.get(folder, f"{place}{folder}"))
    done = subprocess.run(
        ["sh", "-eu", "-c", text],
        env=environment(
            {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "ZIPFS_ROMM_TOKEN": TOKEN}
        ),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode in (0, 9), done.stderr
    return done.stdout


def settings_of(place: Path) -> Mapping[str, str]:
    """RomM's container is the host here; ``/romm/cache`` and ``/zipfs`` are in *place*."""
    shown = services()["romm"]["environment"]
    return {
        "ZIPFS_SHOWN": str(place) + shown["ZIPFS_SHOWN"].removeprefix("/romm"),
        "ZIPFS_LOCATION": shown["ZIPFS_LOCATION"],
        "ZIPFS_LISTS": f"{place}{HOST}/zipfs/lists",
        "ZIPFS_WAIT": "200",
    }


def mounted_as_told(place: Path, mount: Mounts) -> Mounted:
    """What the service does, with other paths."""
    *options, library, mountpoint = [
        f"{place}{word}" if word.startswith(HOST) else word for word in command()
    ]
    at = options.index("--index")
    index = place / "state" / os.path.basename(options[at + 1])
    index.parent.mkdir()
    del options[at : at + 2]
    # tests/containers has the daemon's own user; here our Python need not be everybody's.
    at = options.index("--setuid")
    del options[at : at + 2]
    return mount(Path(library), *options, mountpoint=Path(mountpoint), index=index)


@pytest.fixture
def steps(place: Path) -> Path:
    """The host after the first step; RomM's cache is beside it, and leads to what is shown."""
    (place / "srv/romm").mkdir(parents=True)
    make_shelf(place / "srv/romm/library")
    typed(documents.block(STEPS, "mkdir"), place)
    (place / "cache").mkdir()
    (place / "cache/zipfs").symlink_to(place / "srv/romm/zipfs/shown")
    return place


@needs_root
def test_as_somebody_follows_them(steps: Path, mount: Mounts) -> None:
    hook = steps / "srv/romm/zipfs/gunicorn.conf.py"
    assert hook.read_bytes() == HOOK.read_bytes()
    mounted = mounted_as_told(steps, mount)
    mounted.wait_sealed()
    with romm(mounted.library, steps, settings=settings_of(steps), hook=hook) as running:
        told = "zipfs: downloads of several files come from"
        assert told in documents.section(STEPS).replace("\n", " ")
        poll("the hook", lambda: told in running.backend.log.read_text())
        url = running.game(CUE)

        check = documents.block(STEPS, "curl").replace(
            "-nI", f"-sI -H 'Authorization: Bearer {TOKEN}'"
        )
        names = {
            line.partition(":")[0] for line in typed(check, steps, url=f"'{url}'").splitlines()
        }
        promised = documents.block(STEPS, "Content-Length:").splitlines()
        assert {line.partition(":")[0] for line in promised} - {promised[0]} <= names

        for place in ("romm#when-it-doesnt-work", "doctor#romm"):
            doctor = documents.block(place, "--romm")
            folders = {
                "/srv/lists": f"{steps}{HOST}/zipfs/lists",
                "/srv/www/games": str(mounted.path),
                "/srv/games": str(mounted.library),
            }
            said = typed(doctor, steps, url=f"'{url}'", **folders)
            for link in ("hook", "list", "archive", "nginx", "range"):
                assert f"ok      RomM: {link}: " in said, said
    assert_reasons_are_told(running)


def assert_reasons_are_told(running: Romm) -> None:
    """Each reason in the table is one that the hook gives."""
    table = documents.section("romm#when-it-doesnt-work")
    text = HOOK.read_text()
    for line in table.splitlines():
        reason = line.split("|")[1].strip() if line.startswith("| `") else ""
        if reason:
            assert reason.strip("`").rstrip("… ") in text, reason


def test_before_5_1_0(steps: Path) -> None:
    """tests/e2e/romm/ has this server, too; here the files are there, with what is to be set."""
    typed(documents.block("romm#romm-before-510", "zipfs front"), steps)
    folder = steps / "srv/romm/zipfs"
    assert "js_content zipfs.download" in (folder / "zipfs.conf").read_text()
    text = (folder / "zipfs.conf").read_text()
    assert "set $zipfs_shown " in text
    assert "listen 8081;" in text
    assert "server 127.0.0.1:8080;" in text
    assert "export default" in (folder / "zipfs.js").read_text()
