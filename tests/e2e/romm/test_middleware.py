"""The manual's page about middleware, as it is typed there."""

from __future__ import annotations

import re
import socket
import sys
import threading
from pathlib import Path

from bench.mount import zipfs_program
from bench.web import serving
from tests.e2e.curl import get, get_range
from tests.e2e.programs import run
from tests.e2e.romm.stand import FILES, before, nginx_with
from tests.support import documents
from tests.support.libraries import content, make_game
from tests.support.lists import expected_of, text_of
from tests.support.mounting import Mounts

_APPLICATION = """
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def download(request):
    with open({list!r}, "rb") as file:
        return Response(file.read(), headers={{"X-Archive-Files": "zip"}})

app = Starlette(routes=[Route("/download/{{id}}", download)])
"""


def test_in_the_application(library: Path, place: Path, mount: Mounts) -> None:
    make_game(library, "roms/x/Game", {"a": content(300_000), "b": b"b"})
    members = [("a", "roms/x/Game/a"), ("b", "roms/x/Game/b")]
    lists = place / "lists"
    lists.mkdir()
    mounted = mount(library, "--allow-other", "--lists", lists)
    mounted.wait_sealed()
    (place / "text").write_bytes(text_of(library, members))
    middleware = documents.replaced(
        documents.block("middleware#in-the-application", "import"),
        {"/srv/lists": str(lists), "/srv/www/games": str(mounted.path)},
    )
    middleware = middleware.replace("settings = Settings(", "settings = Settings(wait=200,")
    program = _APPLICATION.format(list=str(place / "text")) + middleware
    (place / "application.py").write_text(program)

    def application(_: Path, port: int) -> list[str | Path]:
        return [
            *(sys.executable, "-m", "uvicorn", "--app-dir", place, "--port", str(port)),
            *("--log-level", "warning", "application:app"),
        ]

    with serving("uvicorn", application, None, place) as behind:
        location = documents.replaced(
            documents.block("middleware#in-the-application", "internal;"),
            {"/srv/www/games": str(mounted.path)},
        )

        def nginx(prefix: Path, port: int) -> list[str | Path]:
            to = f"location / {{ proxy_pass http://127.0.0.1:{behind.port}; }}"
            site = f"server {{ listen 127.0.0.1:{port}; {to}\n{location} }}"
            return nginx_with(site, prefix)

        with serving("nginx", nginx, None, place) as server:
            wanted = expected_of(library, members)
            whole = wanted.read(0, wanted.size)
            answer = get_range(f"{server.url}/download/1", "1000-1999")
            assert (answer.status, answer.body) == (206, whole[1000:2000])
            assert get(f"{server.url}/download/1").body == whole
            assert get(f"{server.url}/download/x").headers["x-archive-files"] == "zip"
            assert get(f"{server.url}/zipfs/.lists/").status == 404


def test_before_the_application(place: Path) -> None:
    """What the commands write is what the other tests use; and what there is to be changed."""
    block = documents.block("middleware#before-the-application-with-nginx")
    commands = documents.replaced(
        block, {"/etc/nginx/conf.d": str(place), "zipfs front": f"{zipfs_program()} front"}
    )
    run("sh", "-ec", commands)
    for written, file in (("zipfs.js", "nginx.js"), ("zipfs.conf", "nginx.conf")):
        assert (place / written).read_bytes() == (FILES / file).read_bytes()
    assert len(re.findall("# >>> ", (FILES / "nginx.conf").read_text())) == 6


def test_what_the_application_is_asked(place: Path) -> None:
    """By nginx: as by the client itself, but for all of it, and told whom it is for."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(2):  # what is no list is asked for again, as it was
                connection, _ = listener.accept()
                with connection:
                    asked.append(connection.recv(1 << 16).decode())
                    connection.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        with before(port, port, place, lists=place) as server:
            path = "/api/roms/1/content/Pok%C3%A9%20'x%27?a=%22b&c=+"
            headers = {
                "Host": "games.example.org:8080",
                "Cookie": "a=b; c=d",
                "X-Forwarded-For": "192.0.2.1",
                "X-Own": "1",
                "If-Range": '"x"',
            }
            options = [word for one in headers.items() for word in ("-H", ": ".join(one))]
            assert get(f"{server.url}{path}", "-r", "0-9", "--compressed", *options).status == 401
        thread.join()
    first, second = (_request(one) for one in asked)
    assert first[0] == second[0] == f"GET {path}"
    forwarded = {**headers, "X-Forwarded-For": "192.0.2.1, 127.0.0.1", "X-Forwarded-Proto": "http"}
    for name, value in forwarded.items():
        assert first[1].get(name.lower()) == (None if name == "If-Range" else value)
        assert second[1].get(name.lower()) == value
    assert not {"range", "accept-encoding"} & first[1].keys()
    assert second[1]["range"] == "bytes=0-9"


def _request(text: str) -> tuple[str, dict[str, str]]:
    """Method and target, and the headers, none of which is there twice."""
    line, *fields = text.partition("\r\n\r\n")[0].split("\r\n")
    pairs = [(name.lower(), value) for name, _, value in (one.partition(": ") for one in fields)]
    assert len(dict(pairs)) == len(pairs)
    return line.rpartition(" ")[0], dict(pairs)
