"""A recipe after everything textual is done: includes merged, templates rendered, types checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cfsbuild.errors import Origin


class TableSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One table that declares something of a kind.

    `params` is an instance of the kind's parameter struct. `origins` maps key paths below the table
    (`source`, `rules.0.mode`; `` for the table itself) to where they were written.
    """

    name: str
    kind: str
    params: Any
    origins: dict[str, Origin] = {}

    @property
    def origin(self) -> Origin | None:
        """Return where the table begins."""
        return self.origins.get("")

    def origin_of(self, key: str) -> Origin | None:
        """Return where `key` was written, or the nearest enclosing table."""
        while key:
            if key in self.origins:
                return self.origins[key]
            key = key.rpartition(".")[0]
        return self.origin

    def resolve(self, key: str, value: str) -> Path:
        """Return the local path that `value`, written at `key`, names: relative to the declaring file."""
        origin = self.origin_of(key)
        base = Path(origin.file).parent if origin else Path()
        return base / value


class NodeSpec(TableSpec, frozen=True, kw_only=True):
    """One `[nodes.NAME]` table."""

    needs: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()


class TargetSpec(TableSpec, frozen=True, kw_only=True):
    """One `[targets.NAME]` table."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """One image to build: one combination of a recipe's matrix.

    `epoch` is in seconds; mtimes later than it are clamped to it. `variables` is what templates saw;
    `combination` the matrix axes' values, in order of the axes. `files` is every file whose text took part
    (recipe, includes, template files), the recipe itself first; `origins` as in `NodeSpec`, for the whole
    file (`image.name`, `vars.release` …).
    """

    path: Path
    name: str
    version: str
    epoch: int
    algorithm: str
    format: int
    variables: dict[str, Any]
    combination: dict[str, str]
    nodes: dict[str, NodeSpec]
    targets: dict[str, TargetSpec]
    files: tuple[Path, ...]
    origins: dict[str, Origin]

    @property
    def image_name(self) -> str:
        """Return `NAME-VERSION` (`NAME` when there is no version), then `-VALUE` for each matrix axis."""
        return "-".join(part for part in (self.name, self.version, *self.combination.values()) if part)
