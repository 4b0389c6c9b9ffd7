"""A mounted tree as a table, read by nothing but system calls, to compare with what was meant."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from console_blocks import ROOT


class Entry(NamedTuple):
    """What a path is. `content`: SHA-256 in hex of a file, target of a link, (major, minor) of a device."""

    type: str
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    content: str | tuple[int, int] = ""
    size: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


_TYPES = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def entry_at(path: bytes) -> Entry:
    """Look at a path: status, attributes and, of a file, every byte."""
    status = os.lstat(path)
    kind = _TYPES[stat.S_IFMT(status.st_mode)]
    content: str | tuple[int, int] = ""
    size = status.st_size if kind in {"file", "symlink"} else 0
    if kind == "file":
        with open(path, "rb") as file:  # noqa: PTH123 (a path of bytes)
            data = file.read()
        assert len(data) == size
        content = sha256(data)
    elif kind == "symlink":
        content = str(Path(os.fsdecode(path)).readlink())
    elif kind in {"char", "block"}:
        content = (os.major(status.st_rdev), os.minor(status.st_rdev))
    names = sorted(os.listxattr(path, follow_symlinks=False))
    xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    owner = (status.st_uid, status.st_gid)
    return Entry(kind, stat.S_IMODE(status.st_mode), owner, status.st_mtime_ns, content, size, xattrs)


def tree_at(root: Path) -> dict[str, Entry]:
    """Return every path below and including `root`, `/` first."""
    top = os.fsencode(root)
    found = {"/": entry_at(top)}
    for directory, names, files in os.walk(top, onerror=_fail):
        for name in (*names, *files):
            path = os.path.join(directory, name)  # noqa: PTH118 (bytes)
            found[os.fsdecode(path[len(top) :])] = entry_at(path)
    return found


def _fail(error: OSError) -> None:
    raise error


def link_groups(root: Path, paths: Iterator[str]) -> set[frozenset[str]]:
    """Return which of the paths are several names of one file."""
    names: dict[int, set[str]] = {}
    for path in paths:
        status = os.lstat(f"{root}{path}")
        if stat.S_ISREG(status.st_mode):
            names.setdefault(status.st_ino, set()).add(path)
    return {frozenset(group) for group in names.values() if len(group) > 1}


def differences(meant: dict[str, Entry], found: dict[str, Entry]) -> list[str]:
    """Return one line for each path that is not what was meant."""
    return [
        f"{path}: meant {meant.get(path)}, found {found.get(path)}"
        for path in sorted(meant.keys() | found.keys())
        if meant.get(path) != found.get(path)
    ]


class Project(NamedTuple):
    """A copy of the shipped recipes, and a store."""

    directory: Path

    def cfsbuild(self, *arguments: str | Path) -> str:
        """Run the program; return what it writes to standard output. Raises if it fails."""
        command = [sys.executable, "-m", "cfsbuild.cli.main", "--store", self.directory / "store", *arguments]
        result = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"cfsbuild {arguments}: status {result.returncode}: {result.stderr}")
        return result.stdout

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """Mount an image while the block runs."""
        point = self.directory / "mnt"
        point.mkdir()
        self.cfsbuild("mount", image, point)
        try:
            yield point
        finally:
            self.cfsbuild("umount", point)
            point.rmdir()


def project(directory: Path) -> Project:
    """Copy the shipped recipes into `directory`."""
    ignore = shutil.ignore_patterns("rootfs.tar*")
    shutil.copytree(ROOT / "recipes", directory, ignore=ignore, dirs_exist_ok=True)
    return Project(directory)
