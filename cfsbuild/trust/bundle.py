"""The mount bundle: everything that a machine must know to mount an image, as one signed document.

`docs/formats/mount-bundle.md` describes it. It is signed as a DSSE envelope (`dsse`); a bundle that does not
ask the kernel to check contents has another type, so that no signature of one passes for the other.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec

from cfsbuild.errors import VerificationError
from cfsbuild.trust import canonical, dsse
from cfsbuild.trust.keys import PublicKey
from cfsbuild.trust.statement import ImageFile

PAYLOAD_TYPE = "application/vnd.cfsbuild.mount.v1+json"
INSECURE_PAYLOAD_TYPE = "application/vnd.cfsbuild.mount-insecure.v1+json"

BUNDLE_BYTES = 1 << 18
OBJECT_DIRECTORIES = 16
SECRETS = 64
SECRET_BYTES = 1 << 16

SECURE: Literal["cfsbuild.mount"] = "cfsbuild.mount"
INSECURE: Literal["cfsbuild.mount-insecure"] = "cfsbuild.mount-insecure"

Verity = Literal["require", "try", "off"]
Feature = Literal["fs-verity", "overlay-data-only", "overlay-verity"]
Writable = Literal["read-only", "transient", "persistent", "bind"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
_Text = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]*\Z", max_length=255)]
_Label = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]+\Z", max_length=255)]
_Relative = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A(?!\.\.?(/|\Z))[A-Za-z0-9_.@+-]+(/(?!\.\.?(/|\Z))[A-Za-z0-9_.@+-]+)*\Z", max_length=1024
    ),
]
_Name = Annotated[str, msgspec.Meta(pattern=r"\A000b[0-9a-f]{64}\Z")]
_SECRET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class Upper(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where changes to the whole tree go; both on one file system, relative to the state file system."""

    directory: _Relative
    work: _Relative


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What of /etc and /var can be written, and the directory of what is kept, on the state file system."""

    directory: _Relative
    etc: Writable
    var: Writable


class Counter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A TPM's monotonic counter: NV index, Name (algorithm and digest, hex), value when it was enrolled."""

    index: Annotated[int, msgspec.Meta(ge=0x0100_0000, le=0x01FF_FFFF)]
    name: _Name
    base: _Count


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one machine that a bundle is for: Name of its storage root key (hex), and its counter, if any."""

    srk: _Name
    counter: Counter | None


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to mount and how; paths are relative to the file system that holds the machine's state.

    `generation` never decreases for a name; machines refuse one below what they have seen. `not_after` is in
    seconds since 1970; `secrets` are base64.
    """

    v: Literal[1] = 1
    type: Literal["cfsbuild.mount", "cfsbuild.mount-insecure"]
    name: _Label
    version: _Text
    generation: _Count
    image: ImageFile
    objects: Annotated[list[_Relative], msgspec.Meta(min_length=1, max_length=OBJECT_DIRECTORIES)]
    verity: Verity
    ro: bool
    upper: Upper | None
    state: State | None
    kernel: list[Feature]
    target: Machine | None
    not_after: _Count | None
    secrets: Annotated[dict[str, str], msgspec.Meta(max_length=SECRETS)]


class OpenedBundle(NamedTuple):
    """A bundle that was verified, and the keys that vouch for it."""

    bundle: Bundle
    key_ids: tuple[str, ...]

    def summary(self) -> str:
        """Return in a line what the image is called, how new it is, and who signed."""
        called = f"{self.bundle.name} {self.bundle.version}".rstrip()
        return f"{called}, generation {self.bundle.generation}, signed by {', '.join(self.key_ids)}"


def payload_type_of(bundle: Bundle) -> str:
    """Return the type under which a bundle is signed."""
    return PAYLOAD_TYPE if bundle.type == SECURE else INSECURE_PAYLOAD_TYPE


def kernel_features(verity: Verity) -> list[Feature]:
    """Return what a kernel must have for a mount that checks this much, sorted."""
    return ["fs-verity", "overlay-data-only", "overlay-verity"] if verity == "require" else []


def encode_bundle(bundle: Bundle) -> bytes:
    """Return a bundle's only encoding. Raises `UsageError` for values that it cannot have."""
    return canonical.encode_checked(
        bundle,
        decode_bundle,
        brief="this cannot be a mount bundle",
        resolution="docs/formats/mount-bundle.md says what each field may hold",
        reason="bundle",
    )


def decode_bundle(data: bytes) -> Bundle:
    """Return the bundle that `data` encodes. Raises `VerificationError` (reason `malformed`)."""
    bundle = canonical.decode(data, Bundle, what="the mount bundle", limit=BUNDLE_BYTES)
    for problem in _contradictions(bundle):
        raise canonical.malformed("the mount bundle", problem)
    return bundle


def _contradictions(bundle: Bundle) -> Iterator[str]:
    """Yield what no field alone can say."""
    if (bundle.type == SECURE) != (bundle.verity == "require" and bundle.upper is None):
        yield f"type {bundle.type} does not go with verity {bundle.verity}" + (
            ", upper" if bundle.upper else ""
        )
    if bundle.ro != (bundle.upper is None):
        yield "`ro` is true exactly when there is no `upper`"
    if bundle.upper is not None and _nested(bundle.upper.directory, bundle.upper.work):
        yield "`upper`: neither of `directory` and `work` may lie in the other"
    if bundle.upper is not None and bundle.state is not None:
        yield "with `upper` all is writable: `state` says nothing then"
    if len(set(bundle.objects)) != len(bundle.objects):
        yield "an object directory is listed twice"
    if bundle.kernel != sorted(set(bundle.kernel)):
        yield "kernel features: sorted, none twice"
    for name, text in bundle.secrets.items():
        if not _SECRET_NAME.fullmatch(name):
            yield "the name of a secret: letters, digits, `.`, `_`, `-`, not first `.` or `-`, at most 64"
        elif _secret(text) is None:
            yield f"secret {name}: base64 of at most {SECRET_BYTES} bytes"


def _nested(one: str, other: str) -> bool:
    """Say whether one of two relative paths leads to, or into, the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _secret(text: str) -> bytes | None:
    """Return what a secret's text stands for; None if it is none."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if len(data) <= SECRET_BYTES and base64.b64encode(data).decode() == text else None


def secrets_of(bundle: Bundle) -> dict[str, bytes]:
    """Return a decoded bundle's secrets."""
    return {name: base64.b64decode(text) for name, text in bundle.secrets.items()}


def with_secrets(bundle: Bundle, secrets: dict[str, bytes]) -> Bundle:
    """Return the bundle with these secrets: to be sealed, never to be kept as it is."""
    texts = {name: base64.b64encode(data).decode() for name, data in secrets.items()}
    return msgspec.structs.replace(bundle, secrets=texts)


def is_envelope_of_bundle(data: bytes) -> bool:
    """Say whether `data` claims to be a signed bundle; nothing is verified."""
    try:
        kind, _ = dsse.unverified(data)
    except VerificationError:
        return False
    return kind in {PAYLOAD_TYPE, INSECURE_PAYLOAD_TYPE}


def verify_bundle(
    data: bytes,
    trusted: Sequence[PublicKey],
    *,
    threshold: int = 1,
    revoked: Iterable[str] = (),
    allow_insecure: bool = False,
) -> OpenedBundle:
    """Return the bundle in the DSSE envelope `data`; what was verified is what was decoded.

    Raises what `dsse.verify` raises; `VerificationError` with reason `insecure` for a genuine bundle that
    does not ask the kernel to check contents, unless that is allowed.
    """
    kind, _ = dsse.unverified(data)
    wanted = INSECURE_PAYLOAD_TYPE if kind == INSECURE_PAYLOAD_TYPE else PAYLOAD_TYPE
    opened = dsse.verify(data, wanted, trusted, threshold, revoked=revoked)
    bundle = decode_bundle(opened.payload)
    if payload_type_of(bundle) != wanted:
        raise canonical.malformed("the mount bundle", "signed as another type than it has")
    if wanted == INSECURE_PAYLOAD_TYPE and not allow_insecure:
        raise VerificationError(
            "this bundle does not have the kernel check all that is read",
            details=f"{_why_insecure(bundle)}: whoever can write to the disk can change any file unseen",
            resolution="--allow-insecure mounts it all the same",
            reason="insecure",
        )
    return OpenedBundle(bundle, opened.key_ids)


def type_of(verity: Verity, upper: Upper | None) -> Literal["cfsbuild.mount", "cfsbuild.mount-insecure"]:
    """Return the type of a bundle: secure if the kernel checks all, and nothing else lies above it."""
    return SECURE if verity == "require" and upper is None else INSECURE


def _why_insecure(bundle: Bundle) -> str:
    return f"verity is {bundle.verity!r}" if bundle.verity != "require" else "the whole tree is writable"


def check_not_expired(bundle: Bundle, now: int) -> None:
    """Raise `VerificationError` (reason `expired`) if the clock is past `not_after`; `now` in seconds."""
    if bundle.not_after is not None and now > bundle.not_after:
        raise VerificationError(
            f"the bundle of {bundle.name} has expired",
            details=f"not after {bundle.not_after}, now {now} (seconds since 1970)",
            resolution="install a newer one; if the clock is wrong, set it",
            reason="expired",
        )


def check_generation(bundle: Bundle, least: int) -> None:
    """Raise `VerificationError` (reason `rollback`) if a newer generation than the bundle's has been seen."""
    if bundle.generation < least:
        raise VerificationError(
            f"the bundle of {bundle.name} is older than what this machine has run",
            details=f"generation {bundle.generation}, and {least} is the least that is accepted",
            resolution="install the current one",
            reason="rollback",
        )
