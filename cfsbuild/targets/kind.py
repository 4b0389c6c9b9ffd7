"""What a target kind is: a parameter struct, and a function from a tree to what comes out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from cfsbuild.errors import Problem
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.recipe.model import Recipe, TargetSpec
from cfsbuild.tree.layer import Tree
from cfsbuild.tree.patching import Change


class TargetSink(Protocol):
    """Where images go: a store's transaction."""

    def put_image(self, data: bytes, objects: Iterable[bytes] | None = None) -> bytes:
        """Take in an image that needs `objects`; return its raw fs-verity digest."""

    def put_image_like(
        self, base: bytes, data: bytes | bytearray, added: Collection[bytes], removed: Collection[bytes]
    ) -> bytes | None:
        """Take in an image that needs almost what the image `base` needs; None when that is not known.

        It also needs `added`, and does not need `removed`.
        """

    def set_ref(self, name: str, digest: bytes) -> None:
        """Let `name` stand for the image `digest` once the transaction is committed."""

    def read_object(self, digest: bytes) -> bytes:
        """Return the content of an object of the store or of the transaction, by raw digest."""


class TreeSource(msgspec.Struct, frozen=True, kw_only=True):
    """The merged tree and where its paths come from. `node_of` gives "" for implicit directories.

    `changed` maps nodes that changed attributes of what others gave, in merge order, to those paths.
    """

    tree: Tree
    node_of: Callable[[bytes], str]
    changed: Mapping[str, Sequence[bytes]] = {}


class TargetContext(msgspec.Struct, frozen=True, kw_only=True):
    """What `emit` is given besides its parameters.

    `image` is the raw digest of the recipe's image for kinds that are `of_image`: they have no `source`.
    `existing` returns the content of a file in the output directory, or None; `passphrase` that of a key.
    """

    recipe: Recipe
    spec: TargetSpec
    sink: TargetSink
    algorithm: Algorithm
    source: TreeSource
    image: bytes
    existing: Callable[[str], bytes | None]
    passphrase: Callable[[Path], bytes]


class OutFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file for the output directory: either the bytes, or the image of that digest in the store."""

    name: str
    data: bytes | bytearray = b""
    image: str = ""


class TargetOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What a target made. `digest` names it, lower-case hex: the fs-verity digest of an image or an archive.

    A mount bundle's is the SHA-256 of its document. `reference` is the name of that image in the store;
    "" for what is no image, and not in the store.
    """

    digest: str
    reference: str = ""
    files: tuple[OutFile, ...] = ()


class PatchContext(msgspec.Struct, frozen=True, kw_only=True):
    """What `patch` is given besides its parameters.

    The tree is the one that gave the output `base` (raw digest), but for `changes`. `written` returns the
    content of a file that this target put into the output directory, or None if it is not there unchanged;
    `image` returns the verified image `base`, or None if the store has it no more. What both return is the
    caller's to change, so they are asked once for each, on any thread.
    """

    recipe: Recipe
    sink: TargetSink
    algorithm: Algorithm
    base: bytes
    changes: tuple[Change, ...]
    written: Callable[[str], bytearray | None]
    image: Callable[[], bytearray | None]


def no_problems(spec: TargetSpec) -> Iterable[Problem]:
    """Find nothing wrong beyond what the parameter types already check."""
    del spec
    return ()


class TargetKind(msgspec.Struct, frozen=True, kw_only=True):
    """A target kind. Raise `version` whenever the same key could give another output than before."""

    name: str
    version: int
    summary: str
    params: type[msgspec.Struct]
    emit: Callable[[TargetContext, Any], TargetOutput]
    patch: Callable[[PatchContext, Any], TargetOutput | None] | None = None
    """Return what `emit` would, made of what it made last time; None when that cannot be done."""
    path_keys: tuple[str, ...] = ()
    """Parameters that name local paths. The target is made again when one of the files was touched."""
    check: Callable[[TargetSpec], Iterable[Problem]] = no_problems
    """Find what is wrong before anything runs."""
    of_image: bool = False
    """Whether it follows from the image that the recipe's `image` target makes, and not from the tree."""
