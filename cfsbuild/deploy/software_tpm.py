"""A software TPM (swtpm): for a virtual machine, or to talk to before the machine starts."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cfsbuild.deploy.host_programs import end_program, find_program
from cfsbuild.errors import TpmError

SWTPM = "swtpm"

_START_SECONDS = 5.0
_LOG_BYTES = 1 << 12


@contextlib.contextmanager
def for_machine(state: Path, scratch: Path) -> Iterator[Path]:
    """Run the TPM whose state is a directory; give the control socket that QEMU takes. Raises `TpmError`."""
    control = scratch / "tpm"
    with _running(["--terminate", "--ctrl", f"type=unixio,path={control}"], state, scratch, control.exists):
        yield control


@contextlib.contextmanager
def switched_on(state: Path, scratch: Path) -> Iterator[str]:
    """Run the same TPM as if its machine had just started; give what `--tpm` takes. Raises `TpmError`."""
    data = scratch / "tpm.data"
    options = [
        *("--server", f"type=unixio,path={data}", "--ctrl", f"type=unixio,path={scratch / 'tpm.ctrl'}"),
        *("--flags", "not-need-init,startup-clear"),
    ]
    with _running(options, state, scratch, lambda: _listens(data)):
        yield f"swtpm:{data}"


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextlib.contextmanager
def _running(options: list[str], state: Path, scratch: Path, ready: Callable[[], bool]) -> Iterator[None]:
    log_path = scratch / "tpm.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [find_program(SWTPM) or SWTPM, "socket", "--tpm2", "--tpmstate", f"dir={state}", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                said = log_path.read_bytes()[-_LOG_BYTES:].decode(errors="replace").strip()
                raise TpmError("the software TPM does not start", details=said, reason="tpm")
            time.sleep(0.01)
        yield
    finally:
        end_program(process)
