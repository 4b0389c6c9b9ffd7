"""The root of a system whose files are taken: this machine's own, or a directory with another system.

Symbolic links in such a directory mean what they mean to programs in it: `/` and `..` never lead out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from cfsbuild.errors import BuildError, Origin

_MOST_LINKS = 40
"""As many as Linux follows (MAXSYMLINKS)."""


class Followed(NamedTuple):
    """A path in the system without links, and the links on the way: path in the system, and its very text."""

    path: Path
    links: tuple[tuple[str, str], ...]


class HostRoot:
    """A system below the directory `top`; paths that it is given are absolute ones in that system.

    Nobody changes links there meanwhile: who could, could as well change what the files hold.
    """

    def __init__(self, top: Path = Path("/")) -> None:
        self.top = top.resolve()

    def follow(self, path: Path, origin: Origin | None = None) -> Followed:
        """Follow all links of `path`. Raises `BuildError` (reason `source`) for too many of them."""
        todo = list(reversed(Path("/", path).parts[1:]))
        found = Path("/")
        links: list[tuple[str, str]] = []
        while todo:
            part = todo.pop()
            if part == "..":
                found = found.parent
                continue
            here = self.top / found.relative_to("/") / part
            if not here.is_symlink():
                found /= part
                continue
            if len(links) == _MOST_LINKS:
                raise BuildError(
                    f"cannot open {self.shown(path)}: too many symbolic links", origin=origin, reason="source"
                )
            target = os.readlink(here)  # noqa: PTH115 (its very text)
            links.append((str(found / part), target))
            todo.extend(reversed([step for step in target.split("/") if step not in {"", "."}]))
            if target.startswith("/"):
                found = Path("/")
        return Followed(found, tuple(links))

    def place(self, path: Path) -> Path:
        """Return where on this machine the file is that `path` leads to. Raises `BuildError`."""
        return self.top / self.follow(path).path.relative_to("/")

    def shown(self, path: Path) -> Path:
        """Return `path` as messages call it: as on this machine, no links followed."""
        return self.top / Path("/", path).relative_to("/")

    def is_file(self, path: Path) -> bool:
        """Say whether `path` leads to a regular file; links that lead nowhere do not. Raises `OSError`."""
        try:
            return self.place(path).is_file()
        except BuildError:
            return False
