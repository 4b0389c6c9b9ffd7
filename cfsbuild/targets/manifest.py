"""The manifest: which node each path of an image comes from (`docs/formats/manifest.md`)."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from cfsbuild.errors import InputError
from cfsbuild.targets.kind import TreeSource
from cfsbuild.tree.paths import depth_first

MANIFEST_VERSION = 1

_AT_ONCE = 64
_HEX = frozenset("0123456789abcdef")

IMPLICIT = ""
"""The "node" of directories that no node declares."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    r"""The paths of an image by the node that contributed them.

    `nodes` maps a node's name ("" for implicit directories) to its paths in depth-first order; `attributes` a
    node's name to the paths of other nodes whose attributes it changed, nodes in merge order. Paths are text:
    bytes that are not UTF-8 and backslashes stand as `\xHH`. `digest` is the image's, lower-case hex.
    """

    version: int = MANIFEST_VERSION
    image: str
    digest: str
    nodes: dict[str, list[str]]
    attributes: dict[str, list[str]] = {}


def escape(path: bytes) -> str:
    r"""Return `path` as text: UTF-8, with `\xHH` for each undecodable byte and for the backslash."""
    try:
        text = path.decode()
    except UnicodeDecodeError:
        text = path.replace(b"\\", b"\\x5c").decode(errors="backslashreplace")
    else:
        if "\\" in text:
            text = text.replace("\\", "\\x5c")
    return text


def _escape_all(paths: list[bytes]) -> Iterator[str]:
    """Yield `escape` of each path; many at once where there is nothing to escape."""
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        joined = b"\0".join(some)
        try:
            texts = joined.decode().split("\0") if b"\\" not in joined else None
        except UnicodeDecodeError:
            texts = None
        yield from map(escape, some) if texts is None else texts


def unescape(text: str) -> bytes:
    """Return the path that `escape` wrote as `text`; raises `InputError` for anything else."""
    first, *rest = text.split("\\")
    parts = [first.encode()]
    for part in rest:
        digits = part[1:3]
        if part[:1] != "x" or len(digits) != 2 or not _HEX.issuperset(digits):
            raise InputError(f"manifest path {text!r} has a malformed escape")
        parts.append(bytes.fromhex(digits) + part[3:].encode())
    return b"".join(parts)


def make_manifest(image: str, digest: str, source: TreeSource) -> Manifest:
    """Return the manifest of the image `digest` made of `source`."""
    nodes: dict[str, list[str]] = {}
    node_of = source.node_of
    tree = source.tree
    paths = tree.entries if not tree.links else sorted([*tree.entries, *tree.links], key=depth_first)
    for path, text in zip(paths, _escape_all(list(paths)), strict=True):
        name = node_of(path)
        known = nodes.get(name)
        if known is None:
            known = nodes[name] = []
        known.append(text)
    attributes = {
        name: list(_escape_all(sorted(changed, key=depth_first))) for name, changed in source.changed.items()
    }
    return Manifest(image=image, digest=digest, nodes=dict(sorted(nodes.items())), attributes=attributes)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest's file content: one line of JSON."""
    return msgspec.json.encode(manifest) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest in `data`; raises `InputError` if it is none of this version."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputError("manifest is damaged", details=str(error)) from error
    if manifest.version != MANIFEST_VERSION:
        raise InputError(f"manifest has version {manifest.version}, this program reads {MANIFEST_VERSION}")
    return manifest


def origins(manifest: Manifest) -> dict[bytes, list[str]]:
    """Return the node of each path, and after it those that changed attributes of it."""
    found = {unescape(path): [name] for name, listed in manifest.nodes.items() for path in listed}
    for name, listed in manifest.attributes.items():
        for path in listed:
            giver = found.get(unescape(path))
            if giver is None:
                raise InputError(f"manifest is damaged: {name!r} changed {path}, which no node gave")
            giver.append(name)
    return found
