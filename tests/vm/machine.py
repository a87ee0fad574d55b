"""The machine: qemu without a hypervisor, so that it runs anywhere; one at a time.

Its disk is the image of :mod:`tests.vm.image`, whose changes are thrown away at the end; its
share is a folder of the host. It switches itself off when it is done.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.vm.image import Kernel

_MEMORY: Final = 2560
"""MiB."""
_NICE: Final = 19
_APPEND: Final = "console=ttyS0 quiet panic=1 mitigations=off clocksource=tsc tsc=reliable"
"""The time is asked often; of all clocks only this one costs no access to an emulated device."""


class Machine:
    """A run of *kernel* on *disk*, with *share* as its ``/host``."""

    def __init__(self, kernel: Kernel, disk: Path, share: Path) -> None:
        self.console = share / f"console-{kernel.name}.log"
        self._command = command(kernel, disk, share, self.console)
        self._place = disk.parent
        self._watched = share / "results"

    def run(self, silence: float) -> bool:
        """Boot, and wait for the end; False if it had to be killed as it said nothing so long."""
        environment = {**os.environ, "TMPDIR": str(self._place)}  # for what the disk gets
        with self.console.with_suffix(".qemu").open("wb") as log:
            process = subprocess.Popen(
                ["nice", "-n", str(_NICE), *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
            try:
                return self._watch(process, silence)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def _watch(self, process: subprocess.Popen[bytes], silence: float) -> bool:
        heard, size = time.monotonic(), -1
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
            now = self.console.stat().st_size if self.console.exists() else 0
            if now != size:
                heard, size = time.monotonic(), now
            elif time.monotonic() - heard > silence:
                return False
        return True


def command(kernel: Kernel, disk: Path, share: Path, console: Path) -> Sequence[str]:
    """qemu's. No network: sources and servers are in the machine."""
    drive = "format=raw,if=virtio,cache=unsafe"
    return (
        "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi",
        "-cpu", "max,la57=off",
        "-smp", "2", "-m", str(_MEMORY),
        "-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{console}",
        "-kernel", str(kernel.image), "-initrd", str(kernel.initrd),
        "-append", _APPEND,
        "-drive", f"file={disk},{drive},snapshot=on",
        "-drive", f"file={kernel.modules},{drive},readonly=on",
        "-device", "virtio-rng-pci",
        "-virtfs", f"local,path={share},mount_tag=host,security_model=none",
    )  # fmt: skip
