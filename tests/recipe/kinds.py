"""Node and target kinds for tests of the recipe room, which knows none of the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cfsbuild.errors import Problem, RecipeError
from cfsbuild.recipe.load import load_recipes
from cfsbuild.recipe.model import Recipe
from cfsbuild.recipe.types import Glob, LocalPath, Mode, Owner, TreePath


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    match: Glob
    mode: Mode | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=9)] | None = None


class FileParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file."""

    target: TreePath
    content: Annotated[str, msgspec.Meta(description="The text.")] | None = None
    template: LocalPath | None = None
    source: LocalPath | None = None
    raw: bool = False
    mode: Mode = "0644"
    owner: Owner = "root"
    rules: tuple[Rule, ...] = ()
    xattrs: dict[str, str] = {}
    level: Annotated[int, msgspec.Meta(ge=0)] = 0
    ratio: float = 1.0
    style: Literal["a", "b"] = "a"
    tag: Annotated[str, msgspec.Meta(pattern="^[a-z]+$", description="Lower-case letters.")] = "x"


class RunParams(msgspec.Struct, frozen=True, kw_only=True):
    """A script."""

    script: str


class ImageParams(msgspec.Struct, frozen=True, kw_only=True):
    """An image."""

    dump: bool = True


class Kind(msgspec.Struct, frozen=True):
    params: type[msgspec.Struct]
    path_keys: tuple[str, ...] = ()
    summary: str = "A kind."


NODE_KINDS = {"file": Kind(FileParams, ("source", "template")), "run": Kind(RunParams)}
TARGET_KINDS = {"image": Kind(ImageParams)}

HEAD = '[image]\nname = "demo"\n'


def load(path: Path, *profiles: str, environ: dict[str, str] | None = None, **overrides: str) -> list[Recipe]:
    return load_recipes(
        path,
        node_kinds=NODE_KINDS,
        target_kinds=TARGET_KINDS,
        overrides=overrides,
        profiles=profiles,
        environ=environ or {},
    )


def problems(
    path: Path, *profiles: str, environ: dict[str, str] | None = None, **overrides: str
) -> list[Problem]:
    """Return what is wrong with a recipe; fails if nothing is."""
    try:
        load(path, *profiles, environ=environ, **overrides)
    except RecipeError as error:
        return list(error.problems())
    raise AssertionError("the recipe was accepted")


def told(path: Path, *profiles: str, environ: dict[str, str] | None = None, **overrides: str) -> list[str]:
    """Return what is wrong with a recipe as `FILE:LINE: BRIEF`, files by their last name."""
    return [
        f"{Path(p.origin.file).name}:{p.origin.line}: {p.brief}" if p.origin else p.brief
        for p in problems(path, *profiles, environ=environ, **overrides)
    ]
