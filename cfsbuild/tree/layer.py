"""What one node contributes to the tree: a document, never a directory on disk."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import TypeVar

import msgspec
from blake3 import blake3

from cfsbuild.errors import InputError
from cfsbuild.tree import paths
from cfsbuild.tree.inode import Inode

LAYER_VERSION = 1

Value = TypeVar("Value")


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """Entries, plus removals from what lies below.

    `entries` maps paths to explicitly declared inodes; `links` maps further names to the path, in
    `entries` of the same layer, of the inode they share. `removals` are paths to delete with all that is
    below them; `opaques` are directories whose lower content is hidden. Removals apply before entries.
    All mappings and tuples are in depth-first order, so that equal layers are equal bytes.
    """

    version: int = LAYER_VERSION
    entries: dict[bytes, Inode] = {}
    links: dict[bytes, bytes] = {}
    removals: tuple[bytes, ...] = ()
    opaques: tuple[bytes, ...] = ()


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """A complete file-system tree: the root and every parent are present, in depth-first order.

    `links` maps further names to the first name, in depth-first order, of the inode they share; that first
    name is the one in `entries`.
    """

    entries: dict[bytes, Inode]
    links: dict[bytes, bytes] = {}


def make_layer(
    entries: dict[bytes, Inode],
    *,
    links: dict[bytes, bytes] | None = None,
    removals: tuple[bytes, ...] = (),
    opaques: tuple[bytes, ...] = (),
) -> Layer:
    """Return the canonical layer: everything sorted, the first name of each link group as the real one.

    Raises `InputError` if a link's target is missing, is a directory, or is itself a link.
    """
    entries, links = canonical_links(entries, links or {})
    return Layer(
        entries=in_order(entries),
        links=in_order(links),
        removals=tuple(sorted(removals, key=paths.depth_first)),
        opaques=tuple(sorted(opaques, key=paths.depth_first)),
    )


def in_order(mapping: dict[bytes, Value]) -> dict[bytes, Value]:
    """Return `mapping` in depth-first order of its paths."""
    return {path: mapping[path] for path in sorted(mapping, key=paths.depth_first)}


def canonical_links(
    entries: dict[bytes, Inode], links: dict[bytes, bytes]
) -> tuple[dict[bytes, Inode], dict[bytes, bytes]]:
    """Make the first name in depth-first order the real one of each link group.

    Returns new mappings, unsorted. Raises `InputError` as `make_layer` does.
    """
    if not links:
        return entries, links
    groups: dict[bytes, list[bytes]] = {}
    for link, target in links.items():
        groups.setdefault(target, [target]).append(link)
    entries = dict(entries)
    canonical: dict[bytes, bytes] = {}
    for target, names in groups.items():
        inode = entries.get(target)
        if inode is None or inode.is_directory:
            raise InputError(
                f"hard link {paths.show(names[1])} points to {paths.show(target)}, "
                f"which is {'missing' if inode is None else 'a directory'}"
            )
        for link in names[1:]:
            if link in entries:
                raise InputError(f"{paths.show(link)} is both a file and a hard link")
        names.sort(key=paths.depth_first)
        del entries[target]
        entries[names[0]] = inode
        canonical.update(dict.fromkeys(names[1:], names[0]))
    return entries, canonical


_encoder = msgspec.msgpack.Encoder()
_layer_decoder = msgspec.msgpack.Decoder(Layer, strict=True)
_tree_decoder = msgspec.msgpack.Decoder(Tree, strict=True)


def encode_layer(layer: Layer) -> bytes:
    """Return the canonical bytes of `layer` (`docs/formats/layer.md`)."""
    return _encoder.encode(layer)


def decode_layer(data: bytes | bytearray) -> Layer:
    """Return the layer that `data` describes; raises `InputError` if it is not a layer of this version."""
    try:
        layer = _layer_decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputError("layer document is damaged", details=str(error)) from error
    if layer.version != LAYER_VERSION:
        raise InputError(f"layer document has version {layer.version}, this program reads {LAYER_VERSION}")
    return layer


def encode_tree(tree: Tree) -> bytes:
    """Return the canonical bytes of `tree` (`docs/formats/layer.md`)."""
    return _encoder.encode(tree)


def decode_tree(data: bytes) -> Tree:
    """Return the tree that `data` describes; raises `InputError` when it describes none."""
    try:
        return _tree_decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputError("tree document is damaged", details=str(error), reason="damaged") from error


def document_digest(data: bytes | bytearray) -> str:
    """Return the name of a document in the store: BLAKE3 of its bytes, lower-case hex."""
    return blake3(data).hexdigest()


def tree_digest(tree: Tree) -> str:
    """Return the content address of `tree`, equal for equal trees."""
    return document_digest(encode_tree(tree))


def extent(layer: Layer) -> tuple[int, int]:
    """Return how many names a layer has, and how many bytes of content."""
    names = len(layer.entries) + len(layer.links)
    return names, sum(inode.size for inode in layer.entries.values() if inode.mode & 0o170000 == stat.S_IFREG)


def objects_of(entries: Mapping[bytes, Inode]) -> set[bytes]:
    """Return the raw digests of the objects that a layer's or tree's entries need."""
    return {inode.digest for inode in entries.values() if inode.digest}
