"""What a node gave under a key: what makes the next build fast (`docs/formats/node-result.md`)."""

from __future__ import annotations

import msgspec
from blake3 import blake3

from cfsbuild.errors import InputError

RESULT_VERSION = 1
RESULT_BYTES = 1 << 24


class NodeResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The recorded result of one node.

    `components` maps each part of the key to its value or digest, so that two keys can be compared; `layer`
    is the name of the layer document; `entries` and `bytes` count the layer's entries and their content.
    """

    version: int = RESULT_VERSION
    key: str
    node: str
    kind: str
    kind_version: int
    components: dict[str, str]
    layer: str
    entries: int = 0
    bytes: int = 0


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file: `check` is the BLAKE3 digest, in hex, of the bytes of `result`."""

    check: str
    result: msgspec.Raw


def encode_result(result: NodeResult) -> bytes:
    """Return the canonical bytes of `result`: equal results are equal bytes."""
    raw = msgspec.json.encode(result, order="sorted")
    return msgspec.json.encode(_Envelope(blake3(raw).hexdigest(), msgspec.Raw(raw))) + b"\n"


def decode_result(data: bytes, key: str) -> NodeResult:
    """Return the result that `data` records under `key`.

    Raises `InputError` when a single bit differs from what was written, or when it is of another version.
    """
    try:
        envelope = msgspec.json.decode(data, type=_Envelope, strict=True)
        result = msgspec.json.decode(envelope.result, type=NodeResult, strict=True)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InputError(f"node result {key} is damaged", details=str(error), reason="damaged") from error
    if result.version != RESULT_VERSION:
        raise InputError(f"node result {key} has version {result.version}", reason="version")
    if result.key != key or encode_result(result) != data:
        raise InputError(
            f"node result {key} is damaged", details="its checksum does not match", reason="damaged"
        )
    return result
