"""Which members are taken, and under which names: `strip_components`, `include`, `exclude`."""

from __future__ import annotations

from collections.abc import Sequence

from cfsbuild.tree import paths
from cfsbuild.tree.globs import Globs, compile_globs


class Selection:
    """Patterns are matched against names after stripping; what matches counts with all that is below it."""

    def __init__(self, *, strip: int, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._strip = strip
        self._include = _Below(compile_globs(include)) if include else None
        self._exclude = _Below(compile_globs(exclude)) if exclude else None

    def rename(self, path: bytes) -> bytes | None:
        """Return `path` without its first components; None if it has no more than those."""
        if not self._strip:
            return path
        parts = path[1:].split(b"/", self._strip)
        return b"/" + parts[-1] if len(parts) > self._strip else None

    def excludes(self, path: bytes) -> bool:
        """Say whether `path` matches an exclude pattern, or lies below something that does."""
        return self._exclude is not None and self._exclude(path)

    def includes(self, path: bytes) -> bool:
        """Say whether `path` or a directory above it matches an include pattern, or there are none."""
        return self._include is None or self._include(path)


class _Below:
    """Matches a path or any directory above it. Members of one directory mostly follow each other."""

    def __init__(self, globs: Globs) -> None:
        self._globs = globs
        self._parent = b""
        self._parent_matches = False

    def __call__(self, path: bytes) -> bool:
        if path == paths.ROOT:
            return self._globs(path)
        parent = paths.parent(path)
        if parent != self._parent:
            self._parent = parent
            self._parent_matches = self._globs(parent) or any(map(self._globs, paths.ancestors(parent)))
        return self._parent_matches or self._globs(path)
