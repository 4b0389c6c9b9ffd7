"""Documents with one encoding only: JSON, keys sorted, no spaces, ASCII, no fractions (RFC 8785's subset).

Decoding is strict in both directions: what decodes also encodes to the very same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import msgspec

from cfsbuild.errors import UsageError, VerificationError

Document = TypeVar("Document", bound=msgspec.Struct)


def encode(document: msgspec.Struct) -> bytes:
    """Return the encoding of a document; its values may be text, integers, booleans, lists and mappings."""
    return json.dumps(
        msgspec.to_builtins(document), sort_keys=True, separators=(",", ":"), ensure_ascii=True
    ).encode("ascii")


def encode_checked(
    document: msgspec.Struct, decode: Callable[[bytes], object], *, brief: str, resolution: str, reason: str
) -> bytes:
    """Return the encoding of a document that `decode`, its own strict decoder, accepts.

    Raises `UsageError` with these texts, and the decoder's details, if it does not.
    """
    data = encode(document)
    try:
        decode(data)
    except VerificationError as error:
        raise UsageError(brief, details=error.details, resolution=resolution, reason=reason) from error
    return data


def decode(data: bytes, kind: type[Document], *, what: str, limit: int) -> Document:
    """Return the document that `data` encodes.

    Raises `VerificationError` (reason `malformed`) for more than `limit` bytes, for anything that `kind` does
    not allow, and for any other encoding of the same document.
    """
    if len(data) > limit:
        raise malformed(what, f"more than {limit} bytes")
    try:
        document = msgspec.json.decode(data, type=kind, strict=True)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(what, str(error)) from error
    try:
        again = encode(document)
    except (ValueError, RecursionError) as error:
        raise malformed(what, str(error)) from error
    if again != data:
        raise malformed(what, "not in canonical form: keys sorted, no spaces, ASCII, none twice")
    return document


def malformed(what: str, details: str) -> VerificationError:
    """Return the error for a document that is not what it should be."""
    return VerificationError(f"{what} is malformed", details=details, reason="malformed")
