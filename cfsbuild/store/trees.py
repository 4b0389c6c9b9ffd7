"""Trees as documents of a store, named by `cfsbuild.tree.layer.tree_digest`."""

from __future__ import annotations

import msgspec

from cfsbuild.errors import InputError
from cfsbuild.tree.layer import Tree

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Tree, strict=True)


def encode_tree(tree: Tree) -> bytes:
    """Return the canonical bytes of `tree`; their BLAKE3 digest is `tree_digest(tree)`."""
    return _encoder.encode(tree)


def decode_tree(data: bytes) -> Tree:
    """Return the tree that `data` describes; raises `InputError` when it describes none."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputError("tree document is damaged", details=str(error), reason="damaged") from error
