"""Run what a page of documentation shows: its fenced blocks, top to bottom, in one session.

    ```console            commands after `$ `, and what they write on a terminal
    ```toml file=NAME     the file NAME, written before the next command

`# ` instead of `$ ` marks a command that needs root, and a kernel that mounts images; elsewhere it is left out.
On a page that enrols a machine, `cfsbuild` finds a software TPM where a machine has its own.
`…` in what is expected stands for anything within a line; a line of `…` alone for any lines. Seconds are not
compared. `python tests/e2e/console_blocks.py PAGE` prints PAGE with what its commands write now.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).parents[1] / "trust"))
import swtpm

ROOT = Path(__file__).parents[2]
COLUMNS = 100
HOME_IN_PAGES = "/home/you"
_FENCE = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ON_MACHINES = "enroll*|unseal*|advance*|mount*--bundle*"
_SECONDS = re.compile(r"\d+\.\d\d s\b")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class File(NamedTuple):
    """A file that the reader is told to write."""

    name: str
    text: str


class Command(NamedTuple):
    """A command line and what the page says that it writes; `start` and `end`: where that stands in the page."""

    text: str
    needs_root: bool
    expected: str
    start: int
    end: int


def steps(page: str) -> Iterator[File | Command]:
    """Yield what a reader does, in order."""
    for block in _FENCE.finditer(page):
        language, name, body = block.groups()
        if name:
            yield File(name, body)
        elif language == "console":
            yield from _commands(body, block.start(3))


def _commands(body: str, offset: int) -> Iterator[Command]:
    prompts = list(re.finditer(r"^([$#]) (.*)\n", body, re.MULTILINE))
    if not body.startswith(("$ ", "# ")):
        raise ValueError(f"a console block begins with a command: {body[:40]!r}")
    ends = [prompt.start() for prompt in prompts[1:]] + [len(body)]
    for prompt, end in zip(prompts, ends, strict=True):
        expected = body[prompt.end() : end]
        yield Command(prompt.group(2), prompt.group(1) == "#", expected, offset + prompt.end(), offset + end)


def matches(expected: str, actual: str) -> bool:
    """Return whether `actual` is what `expected` describes."""
    pattern = ""
    for line in _SECONDS.sub("0.00 s", expected).splitlines():
        pattern += r"(?:.*\n)*?" if line == "…" else ".*?".join(re.escape(p) for p in line.split("…")) + r"\n"
    return re.fullmatch(pattern, _SECONDS.sub("0.00 s", actual)) is not None


class Session:
    """A terminal in `directory` with a home of its own; remembers the working directory between commands.

    What runs on machines is given the TPM called `tpm`, if there is one.
    """

    def __init__(self, directory: Path, tpm: str = "") -> None:
        self.home = directory / "home"
        self.cwd = directory / "checkout"
        self.home.mkdir()
        ignore = shutil.ignore_patterns("rootfs.tar*", "__pycache__")
        shutil.copytree(ROOT / "recipes", self.cwd / "recipes", ignore=ignore)
        self._where = directory / "cwd"
        programs = str(Path(sys.executable).parent)
        if tpm:
            _write_with_tpm(directory / "bin", tpm)
            programs = f"{directory / 'bin'}:{programs}"
        self._env = {
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
            "TERM": "xterm",
            "COLUMNS": str(COLUMNS),
            "CFSBUILD_JOBS": "1",  # so that the order in which jobs end is always the same
            **{name: value for name, value in os.environ.items() if name.startswith("CFSBUILD_SHA256")},
        }

    def write(self, file: File) -> None:
        """Write a file that the page shows, below the working directory."""
        path = self.cwd / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text)

    def run(self, text: str) -> str:
        """Run a command line with a terminal; return what stays on the screen."""
        script = f"{text}\nstatus=$?; pwd > {self._where}; exit $status"
        primary, replica = pty.openpty()
        fcntl.ioctl(replica, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        with subprocess.Popen(
            ["bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=replica,
            stderr=replica,
            cwd=self.cwd,
            env=self._env,
        ) as process:
            os.close(replica)
            output = _read_all(primary)
            process.wait(timeout=120)
        self.cwd = Path(self._where.read_text().rstrip("\n"))
        return _screen(output.decode()).replace(str(self.home), HOME_IN_PAGES)


def _write_with_tpm(directory: Path, tpm: str) -> None:
    """Write a `cfsbuild` that gives the TPM to those verbs that a page runs on a machine."""
    real = f'exec {shlex.quote(str(Path(sys.executable).parent / "cfsbuild"))} "$@"'
    script = directory / "cfsbuild"
    directory.mkdir()
    script.write_text(
        f'#!/bin/sh\ncase "$*" in {_ON_MACHINES}) {real} --tpm {shlex.quote(tpm)} ;; esac\n{real}\n'
    )
    script.chmod(0o755)


def _read_all(primary: int) -> bytes:
    pieces = []
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while piece := os.read(primary, 1 << 16):
            pieces.append(piece)
    os.close(primary)
    return b"".join(pieces)


def _screen(text: str) -> str:
    """Return what a terminal still shows at the end: a progress bar is drawn over."""
    lines = _ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rpartition("\r")[2] for line in lines)


def can_mount() -> bool:
    """Return whether commands with `# ` can be run."""
    if os.geteuid() != 0:
        return False
    known = "erofs" in Path("/proc/filesystems").read_text()
    return known or subprocess.run(["modprobe", "erofs"], capture_output=True, check=False).returncode == 0


def run_page(text: str, directory: Path, check: Callable[[Command, str], None]) -> Session:
    """Do everything that a page says; call `check` with each command and what it wrote."""
    root = can_mount()
    with _tpm_for(text, directory) as tpm:
        session = Session(directory, tpm)
        for step in steps(text):
            if isinstance(step, File):
                session.write(step)
            elif root or not step.needs_root:
                check(step, session.run(step.text))
    return session


@contextlib.contextmanager
def _tpm_for(text: str, directory: Path) -> Iterator[str]:
    """Give the name of a TPM, new and of its own, if the page enrols a machine; else an empty one."""
    if "cfsbuild enroll" not in text:
        yield ""
        return
    with swtpm.running(directory / "tpm") as machine:
        yield machine.name


def renewed(text: str) -> str:
    """Return a page with what its commands write now, where that is not what it says."""
    edits: list[tuple[int, int, str]] = []

    def check(command: Command, actual: str) -> None:
        if not matches(command.expected, actual):
            edits.append((command.start, command.end, actual))

    with tempfile.TemporaryDirectory() as directory:
        run_page(text, Path(directory), check)
    for start, end, actual in reversed(edits):
        text = text[:start] + actual + text[end:]
    return text


if __name__ == "__main__":
    sys.stdout.write(renewed(Path(sys.argv[1]).read_text()))
