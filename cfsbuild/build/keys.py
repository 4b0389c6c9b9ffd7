"""Keys: what a job's output follows from, as named components and as one digest.

A key is the BLAKE3 digest of the canonical JSON of its components, so two jobs share a result exactly if
all their components are equal. Names, positions and checkout paths are no components: renaming a node or
moving a project changes no key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.nodes.kind import NodeKind, Owners

KEY_FORMAT = 1
"""Raise when the meaning of a component changes for all kinds (layer format, merge rules …)."""

_encoder = msgspec.json.Encoder(order="deterministic")

Components = dict[str, str]


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 (whatever JSON can hold)
    """Return the one JSON text of `value`: sorted keys, no spaces, UTF-8."""
    return _encoder.encode(value)


def digest_of(data: bytes | bytearray) -> str:
    """Return the BLAKE3 digest of `data`, lower-case hex."""
    from blake3 import blake3  # noqa: PLC0415 (a build with nothing to do hashes nothing)

    return blake3(data).hexdigest()


def key_of(components: Mapping[str, str]) -> str:
    """Return the key that `components` amount to."""
    return digest_of(canonical_json(dict(components)))


def node_components(  # noqa: PLR0913 (each is one thing that a layer follows from)
    kind: NodeKind,
    params: msgspec.Struct,
    *,
    algorithm: Algorithm,
    owners: Owners,
    sources: Mapping[str, str],
    epoch: int,
    input_digest: str = "",
) -> Components:
    """Return everything that the layer of a node follows from.

    `sources` are the fingerprints of its local sources; `input_digest` that of the tree which a reading kind
    sees; `epoch` counts only for kinds that see it.
    """
    components = {
        "format": str(KEY_FORMAT),
        "algorithm": algorithm.value,
        "kind": kind.name,
        "kind-version": str(kind.version),
    }
    for name, value in msgspec.to_builtins(params).items():
        if name not in kind.path_keys:
            components[f"param.{name}"] = canonical_json(value).decode()
    for source, digest in sources.items():
        components[f"source.{source}"] = digest
    components.update((f"user.{name}", str(uid)) for name, uid in owners.uids.items() if name != "root")
    components.update((f"group.{name}", str(gid)) for name, gid in owners.gids.items() if name != "root")
    if kind.sees_epoch:
        components["epoch"] = str(epoch)
    if kind.reads:
        components["input"] = input_digest
    return components


class LayerUse(msgspec.Struct, frozen=True, array_like=True):
    """How a layer takes part in a merge: all that `tree.merge` looks at, and the layer's digest.

    `needs` are positions, within the same merge, of the layers that this one reaches.
    """

    layer: str
    needs: tuple[int, ...] = ()
    replaces: tuple[str, ...] = ()
    reads: bool = False


def layers_digest(uses: Sequence[LayerUse]) -> str:
    """Return a digest that is equal for merges that give the same tree from the same layers."""
    return digest_of(canonical_json([KEY_FORMAT, *uses]))
