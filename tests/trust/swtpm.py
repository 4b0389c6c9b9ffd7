"""Private software TPMs, each with its own state, and tpm2-tools that talk to them.

A machine serves one connection at a time: close yours before you call `Machine.tool`.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_SECONDS = 20


class Machine:
    """A TPM that runs: `.name` is what `--tpm` takes, `.tools` what TPM2TOOLS_TCTI takes."""

    def __init__(self, state: Path, sockets: Path) -> None:
        self.state = state
        self.socket = sockets / "tpm"
        self.name = f"swtpm:{self.socket}"
        self.tools = f"swtpm:path={self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Switch the machine on: TPM2_Startup(CLEAR), PCRs zero, what is persistent is there."""
        self.state.mkdir(parents=True, exist_ok=True)
        control = self.socket.with_name("tpm.ctrl")
        for path in (self.socket, control):
            path.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [
                *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.state}"),
                *("--server", f"type=unixio,path={self.socket}", "--ctrl", f"type=unixio,path={control}"),
                *("--flags", "not-need-init,startup-clear", "--log", f"file={self.state / 'log'}"),
            ],
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail("swtpm does not start: " + (self.state / "log").read_text())
            time.sleep(0.001)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def stop(self) -> None:
        """Switch it off without a word, as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def reboot(self) -> None:
        """Switch it off and on."""
        self.stop()
        self.start()

    def tool(self, name: str, *arguments: object, ok: bool = True, given: bytes | None = None) -> str:
        """Run tpm2_NAME and return what it prints; with `ok` false, what it prints on failing."""
        done = subprocess.run(
            [f"tpm2_{name}", *map(str, arguments), "-T", self.tools],
            input=given,
            capture_output=True,
            check=False,
            timeout=_SECONDS,
        )
        text = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
        assert (done.returncode == 0) == ok, text
        return text

    def handles(self) -> list[str]:
        """Return the handles of what is loaded: transient objects and sessions."""
        kinds = ("handles-transient", "handles-loaded-session", "handles-saved-session")
        return [line for kind in kinds for line in self.tool("getcap", kind).split() if line != "-"]


def missing() -> str:
    """Say which program is absent; empty when none is."""
    absent = [program for program in ("swtpm", "tpm2_getcap") if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


@contextlib.contextmanager
def running(state: Path) -> Iterator[Machine]:
    """Give a machine whose state is the directory `state`; it ends with the block, whatever happens."""
    if why := missing():
        pytest.skip(why)
    # Not below `state`: the path of a socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="swtpm-") as sockets:
        machine = Machine(state, Path(sockets))
        try:
            machine.start()
            yield machine
        finally:
            machine.stop()
