"""How readers of archives are run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.readers.programs import FailedError, read_output, run


def test_a_program_gets_its_variables_and_our_locale() -> None:
    said = run("sh", "-c", 'echo "$ZIPFS_SAID $LC_ALL $TZ"', env={"ZIPFS_SAID": "yes"})
    assert said == b"yes C.UTF-8 UTC\n"


def test_a_program_gets_its_folder_and_its_pipe(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"piped\n")
    assert run("sh", "-c", "pwd; cat", piped=tmp_path / "in", cwd=tmp_path) == (
        f"{tmp_path.resolve()}\npiped\n".encode()
    )


@pytest.mark.parametrize("script", ["exit 3", "echo odd >&2", "kill -TERM $$"])
def test_a_status_and_a_complaint_are_failures(script: str) -> None:
    with pytest.raises(FailedError, match="sh ends with"):
        run("sh", "-c", script)


def test_a_known_complaint_is_none() -> None:
    said = read_output(
        lambda stream: stream.read(), "sh", "-c", "echo odd >&2; echo out", complaints="odd\n"
    )
    assert said == b"out\n"
