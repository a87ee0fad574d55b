"""A downloaded archive is whole to every reader, and gives the folder that it was made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import readers
from tests.e2e.curl import QUIET
from tests.e2e.games import make_mixed
from tests.e2e.programs import environment, run
from tests.e2e.site import Site, site_of
from tests.support.libraries import expected_archive

# Told in full, so that no zone file is needed: one zone with summer time, one far to the east.
TIME_ZONES: Final = ("UTC", "EST5EDT,M3.2.0,M11.1.0", "<+1345>-13:45")


@pytest.fixture(scope="module")
def site(fuse: None) -> Iterator[Site]:
    with site_of(make_mixed) as site:
        yield site


@pytest.fixture(scope="module")
def downloaded(site: Site) -> Path:
    file = site.place / "game.zip"
    run(*QUIET, "-o", file, site.nginx.url_of(site.archive))
    assert file.read_bytes() == site.expected[:]
    return file


def test_two_computations_agree(site: Site) -> None:
    # One with zipfs' own layout but without a mount, one without anything of zipfs.
    assert expected_archive(site.source) == site.expected[:]


def test_strict_checker(downloaded: Path, site: Site) -> None:
    readers.check_strictly(downloaded, site.expected)


def test_unzip(downloaded: Path, site: Site) -> None:
    readers.check_unzip(downloaded, site.expected)


def test_7z(downloaded: Path, site: Site) -> None:
    readers.check_7z(downloaded, site.expected)


def test_python_zipfile(downloaded: Path, site: Site) -> None:
    readers.check_zipfile(downloaded, site.expected)


def test_bsdtar_from_a_pipe(url: str, site: Site) -> None:
    readers.check_bsdtar_from_pipe(url, site.expected)


def test_java_from_a_pipe(url: str, site: Site, java_reader: Path) -> None:
    readers.check_java_from_pipe(url, site.expected, java_reader)


@pytest.mark.parametrize("tz", TIME_ZONES)
@pytest.mark.parametrize("program", ["unzip", "7z", "bsdtar", "bsdtar from a pipe"])
def test_extracts_to_the_source(
    downloaded: Path, site: Site, place: Path, program: str, tz: str
) -> None:
    target = place / "extracted"
    target.mkdir()
    if program == "bsdtar from a pipe":
        url = site.nginx.url_of(site.archive)
        readers.read_from_pipe(url, "bsdtar", "-xf", "-", cwd=target, tz=tz)
    else:
        argv = {
            "unzip": ("unzip", "-q", downloaded),
            "7z": ("7z", "x", "-bd", downloaded),
            "bsdtar": ("bsdtar", "-xf", downloaded),
        }[program]
        run(*argv, cwd=target, env=environment(TZ=tz))
    assert readers.files_of(target) == readers.files_of(site.source)
