"""What to mount, as data: a document that another program, or another machine, can execute later."""

from __future__ import annotations

from typing import Literal

import msgspec

from cfsbuild.errors import InputError, UsageError

MOUNT_SPEC_VERSION = 1

Verity = Literal["off", "try", "require"]


class MountSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A composefs mount (`docs/formats/mount-spec.md`).

    `image` is the path of the EROFS metadata image; `digest` its expected fs-verity digest in lower-case hex,
    empty for none; `objects` are object directories, searched in order. `verity` says what the kernel must
    check: `require` fails reads of objects that lack a matching fs-verity digest, `try` asks for that where
    kernel and file system can, `off` asks for nothing. `upper` and `work` make the mount writable; `idmap` is
    the path of a user namespace file (`/proc/PID/ns/user`).
    """

    version: int = MOUNT_SPEC_VERSION
    image: str
    objects: tuple[str, ...]
    digest: str = ""
    verity: Verity = "try"
    read_only: bool = True
    upper: str = ""
    work: str = ""
    idmap: str = ""

    def __post_init__(self) -> None:
        """Refuse combinations that no kernel can mount; raises `UsageError`."""
        if not self.objects:
            raise UsageError("a composefs mount needs at least one object directory")
        if len(set(self.objects)) != len(self.objects):
            raise UsageError(
                "an object directory is listed twice", details="the kernel answers ELOOP to that"
            )
        if bool(self.upper) != bool(self.work):
            raise UsageError("an upper directory and a work directory go together")
        if self.digest and (len(self.digest) not in {64, 128} or set(self.digest) - set("0123456789abcdef")):
            raise UsageError(f"{self.digest!r} is not an fs-verity digest in lower-case hex")


def encode(spec: MountSpec) -> bytes:
    """Return `spec` as canonical JSON: sorted keys, no spaces, one line."""
    return msgspec.json.encode(spec, order="sorted") + b"\n"


def decode(data: bytes) -> MountSpec:
    """Return the spec that `data` holds; raises `InputError` for anything but this version's document."""
    try:
        spec = msgspec.json.decode(data, type=MountSpec)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputError("not a mount spec", details=str(error)) from error
    if spec.version != MOUNT_SPEC_VERSION:
        raise InputError(f"mount spec has version {spec.version}, this program reads {MOUNT_SPEC_VERSION}")
    return spec
