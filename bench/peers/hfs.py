"""HFS, a file server in JavaScript: the peer that resumes ZIPs which it builds while sending."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import BenchError
from bench.process import find_program
from bench.session import Stop
from bench.speed.results import About
from bench.web import ADDRESS, Server, serving

# Where .ci/hfs installs it.
INSTALLED: Final = Path(__file__).parents[2] / ".bench/node_modules/hfs"


def about(stop: Stop) -> About:
    """Raises :exc:`BenchError` if it isn't installed."""
    node = stop.run(find_program("node", package="nodejs"), "--version").strip()
    try:
        package = json.loads((INSTALLED / "package.json").read_text())
    except FileNotFoundError:
        raise BenchError("hfs is not installed: .ci/hfs") from None
    return About(
        name="hfs",
        version=f"{package['version']}, node {node.removeprefix('v')}",
        settings="defaults; port and address, no look for updates; ?get=zip, no proxy",
    )


@contextlib.contextmanager
def hfs(folder: Path, *, workdir: Path) -> Iterator[Server]:
    """Share *folder* until the block ends; its ZIP is at ``/NAME/?get=zip``."""
    node = find_program("node", package="nodejs")

    def command(prefix: Path, port: int) -> list[str | Path]:
        # JSON is YAML.
        configuration = {
            "port": port,
            "listen_interface": ADDRESS,
            "open_browser_at_start": False,
            "auto_check_update": False,
            "vfs": {"children": [{"source": str(folder)}]},
        }
        (prefix / "config.yaml").write_text(json.dumps(configuration))
        return [node, INSTALLED / "src/index.js", "--cwd", prefix]

    with serving("hfs", command, None, workdir) as server:
        yield server
