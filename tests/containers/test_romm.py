"""RomM and zipfs as the manual has them: who writes and who sees what, in which container.

RomM is a container without RomM: what its hook does is tried in tests/e2e/romm. Here it is the
folders, their owners and what propagates.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
import yaml

from tests.containers.conftest import GAME
from tests.containers.engine import Engine
from tests.containers.site import mounted
from tests.e2e.expected import Expected
from tests.support import documents
from tests.support.lists import expected_of, text_of
from tests.support.waiting import poll

STEPS: Final = "romm#in-five-steps"
FOLDER: Final = "/root/romm"
FILES: Final = f"docker compose --project-directory {FOLDER} -f romm.yml -f more.yml"
ROMM: Final = """
services:
  romm:
    image: nginx
    user: "1000:1000"
    entrypoint: [sleep, infinity]
"""


@pytest.mark.usefixtures("image")
def test_the_five_steps(machine: Engine, games: Expected) -> None:
    more = documents.block(STEPS, "services:")
    services: dict[str, Any] = yaml.safe_load(more)["services"]
    shown = services["romm"]["environment"]["ZIPFS_SHOWN"]
    library = machine.folder / "srv/games"
    machine.shell(
        f"rm -rf {FOLDER} /srv/romm; mkdir -p {FOLDER} /srv/romm; cp -a /srv/games"
        " /srv/romm/library"
    )
    (machine.folder / FOLDER.lstrip("/") / "romm.yml").write_text(ROMM)
    (machine.folder / FOLDER.lstrip("/") / "more.yml").write_text(more)

    def compose(words: str) -> str:
        return machine.shell(f"cd {FOLDER}; {FILES} {words} 2>/dev/null")

    def in_romm(script: str) -> str:
        return compose(f"exec -T romm sh -ec '{script}'")

    try:
        machine.type(STEPS, "mkdir")
        compose("up -d")
        members = [("b.bin", f"{GAME}/b.bin"), ("a.bin", f"{GAME}/a.bin")]
        text = text_of(library, members).decode()
        lists = services["romm"]["volumes"][1].partition(":")[2]
        in_romm(f'printf %s "{text}" > {lists}/.x.tmp; mv {lists}/.x.tmp {lists}/x.list')
        poll("the list's archive", lambda: "x.zip" in in_romm(f"ls {shown} || true"), 300)
        found = in_romm(f"sha256sum {shown}/x.zip").split()[0]
        assert found == expected_of(library, members).sha256()
        assert mounted(machine) == ["/srv/romm/zipfs/shown/games"]
        assert "gunicorn" in in_romm("cat /backend/gunicorn.conf.py")
        name = compose("ps --format json zipfs")
        container = json.loads(name.splitlines()[0])["Name"]
        compose("restart zipfs")
        poll("it to be back", lambda: "x.zip" in in_romm(f"ls {shown} || true"), 300)
        poll(
            "it to be healthy",
            lambda: (
                "healthy"
                in machine.shell(f"docker inspect -f '{{{{.State.Health.Status}}}}' {container}")
            ),
            300,
        )
    finally:
        compose("down --volumes")
    assert mounted(machine) == []
