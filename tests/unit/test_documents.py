"""README and the manual: what is made is up to date, links lead somewhere, and commands are run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests import manual, newcomer
from tests.support.documents import (
    ROOT,
    Block,
    all_blocks,
    anchor,
    documents,
    headings,
    quoted,
    section,
)
from zipfs.cli.cli import cli
from zipfs.cli.command_help import pages

README_LINES: Final = 300
PAGE_LINES: Final = 300
COLUMNS: Final = 80
KINDS: Final = Path(__file__).parent / "kinds-0.1.0.txt"
"""The kinds of log messages of that version, a line each."""
OTHERS: Final = ("zipfs/DESIGN.md", "tests/README.md", "bench/README.md")
"""Documents for those who work on zipfs; their links are followed as well."""


class NotRun(NamedTuple):
    """Why no test types this."""

    reason: str


BOOTED: Final = NotRun("changes the machine; tests/service does the same in a container of its own")
DEMO: Final = "tests/e2e/test_demo.py"
MOUNTED: Final = "tests/mount/test_documents.py"
ROMM: Final = "tests/e2e/romm/test_middleware.py"
FIVE_STEPS: Final = "tests/e2e/romm/test_five_steps.py"
DOCKER: Final = "tests/containers/test_docker.py"
PODMAN: Final = "tests/containers/test_podman.py"
FRONT_ENDS: Final = "tests/e2e/test_without_front_end.py"

NEWCOMER: Final = "tests/newcomer.py"
HEADS: Final = "tests/e2e/test_heads.py"
SHARED: Final = "tests/fs/test_shared_index.py"

TYPED: Final[dict[tuple[str, str], str | NotRun]] = {
    # Place and beginning of a block: the test that runs it.
    ("README#try-it", "make demo"): DEMO,
    ("README#install", "apt-get install"): NotRun(
        "installs system packages; CI's bare systems do so before all tests"
    ),
    ("README#install", "mkdir -p /srv/www/games"): MOUNTED,
    ("README#serve-it", "server {"): FRONT_ENDS,
    ("containers#zipfs-on-the-host", "docker compose"): DOCKER,
    ("containers#two-containers", "mkdir -p"): DOCKER,
    ("containers#two-containers", "mount --bind"): "tests/e2e/test_propagation.py",
    ("containers#one-container", "docker compose"): DOCKER,
    ("containers#rootless-podman", "mkdir -p"): PODMAN,
    ("containers#rootless-podman", "cd systemd"): PODMAN,
    ("containers#the-image", "docker build"): DOCKER,
    ("containers#when-it-doesnt-work", "docker compose"): "tests/containers/test_messages.py",
    ("doctor", "zipfs doctor"): MOUNTED,
    ("doctor#romm", "zipfs doctor"): FIVE_STEPS,
    ("front-ends#es-de", "mkdir -p"): FRONT_ENDS,
    ("front-ends#es-de", "unzip"): FRONT_ENDS,
    ("front-ends#es-de", "zipfs unmount"): FRONT_ENDS,
    ("front-ends#batocera", "apt-get install"): FRONT_ENDS,
    ("fstab", "/srv/games "): NotRun("tests/service/test_fstab.py has lines of its own"),
    ("fstab", "mount -t zipfs"): NotRun(
        "mount(8) looks for mount.zipfs in /sbin alone; tests/service/test_fstab.py has it there"
    ),
    ("index", "zipfs index"): MOUNTED,
    ("index#look-at-one-archive", "zipfs inspect"): MOUNTED,
    ("library-use", "import zipfs"): "tests/e2e/test_as_library.py",
    ("lists#write-a-list", "zipfs mount"): MOUNTED,
    ("lists#write-a-list", "cd /srv/games"): MOUNTED,
    ("lists#write-a-list", "lines = "): MOUNTED,
    ("lists#one-wrong-line-and-there-is-no-archive", "zipfs inspect"): MOUNTED,
    ("log", "journalctl"): NotRun(
        "there is no journal; tests/service/test_service.py looks for the same field in one"
    ),
    ("middleware#in-the-application", "from zipfs"): ROMM,
    ("middleware#in-the-application", "location"): ROMM,
    ("middleware#before-the-application-with-nginx", "zipfs front"): ROMM,
    ("options#the-config-file", "library = "): MOUNTED,
    ("options#shell-completion", "eval"): MOUNTED,
    ("redirects#what-the-application-has-to-send", "Content-Type:"): NotRun(
        "headers, such as those that the application of tests/e2e/front/ sends"
    ),
    ("redirects#nginx-in-front", "server {"): "tests/e2e/front/servers.py",
    ("redirects#caddy-in-front", "games.example.org {"): "tests/e2e/front/servers.py",
    ("romm#in-five-steps", "mkdir"): FIVE_STEPS,
    ("romm#in-five-steps", "services:"): FIVE_STEPS,
    ("romm#in-five-steps", "curl"): FIVE_STEPS,
    ("romm#when-it-doesnt-work", "docker compose exec"): FIVE_STEPS,
    ("romm#romm-before-510", "docker run"): FIVE_STEPS,
    ("romm#romms-rules-for-the-mount", "zipfs mount"): MOUNTED,
    ("service", "make install"): NEWCOMER,
    ("scaling#set-it-up", "createdb games"): HEADS,
    ("scaling#roles", "CREATE ROLE"): SHARED,
    ("scaling#a-balancer-in-front", "upstream heads"): HEADS,
    ("scaling#a-balancer-in-front", "defaults"): HEADS,
    ("scaling#a-cache-or-a-cdn", "proxy_cache_path"): HEADS,
    ("scaling#remove-a-library", "DELETE FROM"): SHARED,
    ("serving#nginx", "server {"): FRONT_ENDS,
    ("serving#caddy", "games.example.org {"): FRONT_ENDS,
    ("serving#a-page-to-click-through-with-nothing-but-nginx", "apt-get install"): FRONT_ENDS,
    ("status", "zipfs status /srv/www/games\n"): MOUNTED,
    ("status", "cd /var/lib/prometheus"): MOUNTED,
    ("variants", "[[variants]]"): "tests/mount/test_variants.py",
    ("verify", "zipfs verify"): MOUNTED,
    ("verify#each-month-as-a-service", "systemctl enable"): BOOTED,
}


def typed_blocks() -> list[Block]:
    """All but those that show what a program says."""
    return [block for block in all_blocks() if block.language]


def test_each_command_is_run_by_a_test_or_says_why_not() -> None:
    """The test has to name the place, so a block can't be listed and forgotten."""
    left = dict(TYPED)
    for block in typed_blocks():
        keys = [key for key in left if key[0] == block.place and block.text.startswith(key[1])]
        assert len(keys) == 1, f"no test, or two, for {block.place}: {block.first}"
        by = left.pop(keys[0])
        if isinstance(by, str) and by != DEMO:
            assert f'"{block.place}"' in (ROOT / by).read_text(), f"{by} has no {block.place}"
        elif isinstance(by, NotRun):
            assert by.reason
    assert not left, "no document has these any more"


def test_each_block_says_what_it_is() -> None:
    known = {"", "sh", "nginx", "caddyfile", "haproxy", "python", "toml", "yaml", "http", "fstab"}
    known.add("sql")
    assert {block.language for block in all_blocks()} <= known


# ---------------------------------------------------------------- what is made


def test_what_is_made_is_up_to_date() -> None:
    for file, text in manual.written():
        assert file.read_text() == text, f"{file.name} is out of date; run: make manual"


def test_what_fresh_systems_lack_is_named() -> None:
    """Ubuntu 24.04 has neither; and nginx, installed a moment ago, may not run yet."""
    assert {"git", "make"} <= set(quoted("README#try-it"))
    page = quoted("serving#a-page-to-click-through-with-nothing-but-nginx")
    assert "nginx -t && systemctl reload-or-restart nginx" in page


def test_a_newcomer_finds_what_to_type() -> None:
    """What `make newcomer` takes from the text between the blocks."""
    assert newcomer.before_the_clone() == "apt-get install git make"
    first, *_, last = newcomer.with_nginx().splitlines()
    assert (first, last) == (
        "apt-get install nginx",
        "nginx -t && systemctl reload-or-restart nginx",
    )
    for system in newcomer.NAMES:
        packages = newcomer.before_docker(system).removeprefix("apt-get install ").split()
        assert packages[0] == "docker.io"
        assert any(name.startswith("docker-compose") for name in packages)


def test_each_part_is_in_a_document() -> None:
    text = "".join(file.read_text() for file in documents().values())
    for name in manual.PARTS_OF_IT:
        assert f"(`make manual` ({name})" in text or f"`make manual` ({name})" in text


def test_each_option_of_each_command_is_described() -> None:
    text = "".join(one.text for one in pages())
    for name, command in cli.commands.items():
        assert f"zipfs {name}" in text
        for option in manual.options_of(name):
            assert manual.described(option).partition(":")[0] in text, f"{command.name}: {option}"


def test_kinds_of_messages_that_have_changed_are_told() -> None:
    """Operators filter by them: each one of 0.1.0 is there still, or has its row in the manual."""
    now = set().union(*manual.messages().values())
    rows = [line.split("|") for line in section("log#kinds-that-have-changed").splitlines()]
    told = {_plain(row[1]): row[2] for row in rows if len(row) == 4}
    for kind in KINDS.read_text().splitlines():
        assert kind in now or told.get(_plain(kind), "").strip(), (
            f"add to log.md, under Kinds that have changed: | `{kind}` | `what it is now` |"
        )


def _plain(text: str) -> str:
    return " ".join(text.replace("`", "").split())


# ---------------------------------------------------------------- man pages


@pytest.mark.parametrize("name", ["zipfs.1", "mount.zipfs.8"])
def test_man_pages(name: str) -> None:
    """groff finds nothing wrong with them, and 80 columns are enough."""
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("man or groff is not installed")  # to read one isn't needed to make one
    done = subprocess.run(
        ["man", "--warnings", "-l", manual.MANUAL / name],
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MANPAGER": "cat"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    plain = re.sub(".\b", "", done.stdout)
    assert max(len(line) for line in plain.splitlines()) <= COLUMNS
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "EXAMPLES", "SEE ALSO"):
        assert f"\n{heading}\n" in plain


# ---------------------------------------------------------------- links, and form


def files() -> dict[str, Path]:
    return documents() | {name: ROOT / name for name in OTHERS}


@pytest.mark.parametrize("name", files())
def test_links_lead_somewhere(name: str) -> None:
    file = files()[name]
    text = re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\[[^]]+\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+://", link):
            continue
        path, _, wanted = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), link
        if name in documents() and name != "README":
            # A page is read on a terminal, too, where nothing but the manual can be reached.
            assert target.parent == manual.MANUAL, link
        if wanted:
            assert wanted in {one.anchor for one in headings(target.read_text())}, link


@pytest.mark.parametrize("name", documents())
def test_form(name: str) -> None:
    """Short enough to be read, and for a terminal of 80 columns."""
    lines = documents()[name].read_text().splitlines()
    assert len(lines) <= (README_LINES if name == "README" else PAGE_LINES)
    assert re.fullmatch(r"# .+[^.]", lines[0])
    assert not any(line.startswith("# ") for line in _prose(lines[1:])), "one title"
    anchors = [one.anchor for one in headings("\n".join(lines))]
    assert len(set(anchors)) == len(anchors)
    for line in _prose(lines):
        assert len(line) <= COLUMNS or " " not in line.strip("- "), line


def _prose(lines: list[str]) -> list[str]:
    """What is neither a block nor a table, whose lines can't be broken, nor a comment."""
    fenced, found = False, []
    for line in lines:
        fenced ^= line.startswith("```")
        if not fenced and not line.startswith(("|", "<!--", "```", "    ")):
            found.append(line)
    return found


def test_anchors() -> None:
    assert anchor("mount -t zipfs, and `x.y`!") == "mount--t-zipfs-and-xy"
    assert anchor("[What](a.md#b) it is") == "what-it-is"


# ---------------------------------------------------------------- DESIGN.md

CLAUSE: Final = re.compile(r"DESIGN(?:\.md)?[ ,]+([A-Z][0-9](?:(?:,| and| to)? [A-Z][0-9])*)")


def clauses() -> set[str]:
    """Those that hold today, by name."""
    text = (ROOT / "zipfs/DESIGN.md").read_text().partition("### Not yet held")[0]
    return set(re.findall(r"^- \*\*([A-Z][0-9])\*\*", text, flags=re.MULTILINE))


def cited(folder: str) -> set[str]:
    """The clauses that the modules of *folder* name."""
    found: set[str] = set()
    for file in (ROOT / folder).rglob("*.py"):
        for match in CLAUSE.finditer(file.read_text()):
            names = re.findall("[A-Z][0-9]", match[1])
            found.update(names)
            for first, last in re.findall(r"([A-Z][0-9]) to ([A-Z][0-9])", match[1]):
                found.update(f"{first[0]}{number}" for number in range(int(first[1]), int(last[1])))
    return found


def test_clauses_that_are_cited_are_there() -> None:
    assert cited("zipfs") | cited("tests") <= clauses()


def test_each_clause_has_a_test() -> None:
    assert clauses() <= cited("tests")


def test_the_rooms_are_as_they_are_described() -> None:
    """Each package has its row, and each module that is named is there."""
    rows = re.findall(r"^\| (`[^|]+) \|[^|]*\| ([^|]*)\|$", _design("The rooms"), re.MULTILINE)
    packages = [name for cell, _ in rows for name in re.findall("`([^`]+)`", cell)]
    folders = {
        ".".join(file.relative_to(ROOT / "zipfs").parent.parts)
        for file in (ROOT / "zipfs").rglob("__init__.py")
    }
    assert {*packages, "ops"} == {*(folders - {""}), "zipfs", "manual"}
    for cell, modules in rows:
        places = [
            ROOT / "zipfs" / name.replace(".", "/") if name != "zipfs" else ROOT / "zipfs"
            for name in re.findall("`([^`]+)`", cell)
        ]
        for module in re.findall("`([^`]+)`", modules):
            assert any(list(place.glob(f"{module}.py")) for place in places), (cell, module)


def test_places_for_new_lines_are_there() -> None:
    """And so are those that the ways lead through."""
    text = _design("The rooms") + _design("The ways")
    for place in re.findall(r"`([a-z_]+(?:/[a-z_*]+)+)`", text):
        path = ROOT / "zipfs" / place
        assert path.is_dir() or list(path.parent.glob(f"{path.name}.py")), place


def _design(title: str) -> str:
    text = (ROOT / "zipfs/DESIGN.md").read_text()
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
