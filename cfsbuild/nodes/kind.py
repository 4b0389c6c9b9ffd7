"""What a node kind is: a parameter struct, and functions from parameters to a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from cfsbuild.errors import Origin, Problem
from cfsbuild.events import Listener, Note
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.tree.layer import Layer, Tree
from cfsbuild.tree.patching import LayerPatch

if TYPE_CHECKING:
    from cfsbuild.tree.scan import Scan


class ObjectSink(Protocol):
    """Where file contents go: a store's transaction, or a hasher that keeps nothing."""

    algorithm: Algorithm

    def add_bytes(self, data: bytes, /) -> bytes:
        """Take `data` in; return its raw fs-verity digest."""

    def add_fd(self, fd: int, /) -> tuple[bytes, int]:
        """Take in everything from `fd`'s position to its end; return (raw digest, size in bytes)."""


class Owners(msgspec.Struct, frozen=True):
    """Names of users and groups that the recipe's `accounts` nodes declare, plus root."""

    uids: dict[str, int] = msgspec.field(default_factory=lambda: {"root": 0})
    gids: dict[str, int] = msgspec.field(default_factory=lambda: {"root": 0})


class Fingerprint(msgspec.Struct, frozen=True):
    """What a node's local sources are right now: part of its key. `digests` maps a source to its digest."""

    digests: dict[str, str] = {}
    payload: Any = None
    """What `gather` found out and `produce` can use; never part of the key."""
    patch: LayerPatch | None = None
    """The layer, when it is a patched one: then nobody need call `produce`."""


def no_observer(path: Path) -> None:
    """Forget `path`."""
    del path


class NodeContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the functions of a kind are given besides their parameters.

    `input` is the merge of the node's transitive needs, for kinds that read it. `epoch` in seconds.
    `state` is a directory for caches of this user (stat cache), or None. `image_tree` returns the tree of a
    nested recipe (by path) or of a stored image (by reference), for the `image` kind. `scan` lists a local
    directory, at most once in a build however many ask; without it call `tree.scan.scan`. `observe` is told
    of each local file that no parameter names, before it is looked at, whether it is there or not: a change
    to it is then a change to the node's sources.
    """

    spec: NodeSpec
    sink: ObjectSink
    owners: Owners
    epoch: int
    jobs: int
    listener: Listener
    input: Tree | None = None
    state: Path | None = None
    image_tree: Callable[[NodeSpec], Tree] | None = None
    scan: Callable[[Path], Scan] | None = None
    observe: Callable[[Path], None] = no_observer
    read_object: Callable[[bytes], bytes] | None = None
    """Returns the content of an object, by raw digest, that is in the store or in what `sink` took in."""
    layer_document: Callable[[str], bytearray | None] | None = None
    """Returns the bytes of a layer document of the store; None when it is absent or damaged."""

    @property
    def origin(self) -> Origin | None:
        """Return where the node's table begins."""
        return self.spec.origin

    def note(self, text: str, key: str = "") -> None:
        """Tell something about the node that is not an error; `key` is the parameter that it is about."""
        self.listener(Note(text=text, job=self.spec.name, origin=str(self.spec.origin_of(key) or "")))


def no_sources(context: NodeContext, params: Any) -> Fingerprint:  # noqa: ANN401 (each kind has its own)
    """Gather nothing: the parameters say it all."""
    del context, params
    return Fingerprint()


def no_problems(spec: NodeSpec) -> Iterable[Problem]:
    """Find nothing wrong beyond what the parameter types already check."""
    del spec
    return ()


def no_names(params: Any) -> Iterable[tuple[str, str, str]]:  # noqa: ANN401 (each kind has its own)
    """Use no owner names."""
    del params
    return ()


class NodeKind(msgspec.Struct, frozen=True, kw_only=True):
    """A node kind. Raise `version` whenever the same key could give another layer than before."""

    name: str
    version: int
    summary: str
    params: type[msgspec.Struct]
    produce: Callable[[NodeContext, Any, Fingerprint], Layer]
    """Return the node's layer; put file contents into `context.sink`."""
    gather: Callable[[NodeContext, Any], Fingerprint] = no_sources
    """Fingerprint local sources. May put contents into `context.sink` on the way (one read, not two)."""
    check: Callable[[NodeSpec], Iterable[Problem]] = no_problems
    """Find what is wrong before anything runs: missing sources, bad paths, bad globs."""
    owner_names: Callable[[Any], Iterable[tuple[str, str, str]]] = no_names
    """List (key path, "user" or "group", name) for each owner named, so that it can be resolved and keyed."""
    path_keys: tuple[str, ...] = ()
    """Parameters that name local paths. They are left out of the key: fingerprints stand for them."""
    reads: bool = False
    """Whether the kind reads the merge of its transitive needs (accounts, attributes, remove, run)."""
    sees_epoch: bool = False
    """Whether `context.epoch` shapes the layer. It is then part of the key; other kinds are given 0."""
    static: bool = True
    """Whether its entries follow from recipe and local files alone: conflicts are then recipe errors."""
