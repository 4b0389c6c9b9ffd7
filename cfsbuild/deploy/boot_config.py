"""What a machine does when it starts, as a document in its initramfs (`docs/formats/boot.md`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cfsbuild.errors import InputError

BOOT_CONFIG_BYTES = 1 << 16
BOOT_CONFIG = Path("/etc/cfsbuild/boot.json")

MOST_SECONDS = 600

_Path = Annotated[str, msgspec.Meta(pattern=r"\A/[^\0]*\Z", max_length=4095)]
_Below = Annotated[
    str, msgspec.Meta(pattern=r"\A(?![^\0]*(\A|/)\.\.?(/|\Z))[^/\0][^\0]*\Z", min_length=1, max_length=4095)
]
_Word = Annotated[str, msgspec.Meta(pattern=r"\A[^\0]*\Z", max_length=1 << 15)]
_Digest = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64}|[0-9a-f]{128})\Z")]


class StateDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The block device with images and objects: its node, file system, and seconds to wait for it."""

    device: _Path
    filesystem: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9_]{1,32}\Z")] = "ext4"
    seconds: Annotated[int, msgspec.Meta(ge=0, le=MOST_SECONDS)] = 30


class BootConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to mount, whom to believe, and what to run.

    `bundle` is a path on the state device, and counts when it is called `name` (None: whatever it is called)
    and a key of the directory `keys` signed it, one that is not in `revoked`; `allow_insecure` accepts images
    that the kernel does not check. `tpm` is the TPM's device: it opens a sealed bundle and is told of the
    mount; a machine with the file `enrolment` holds bundles against its counter. Secrets go to the directory
    `secrets`. `enable_verity` turns fs-verity on for objects and images that lack it.

    With `once`, `exec` is not the first process but its child, and the machine is switched off when it ends.
    `report` names a virtio port to which the outcome is written; output goes to the ports of that name with
    `.out` and `.err`, if there are any.
    """

    v: Literal[1] = 1
    type: Literal["cfsbuild.boot"] = "cfsbuild.boot"
    state: StateDevice
    bundle: _Below
    name: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,255}\Z")] | None = None
    keys: _Path = "/etc/cfsbuild/keys"
    revoked: _Path = "/etc/cfsbuild/revoked"
    threshold: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    enrolment: _Path | None = None
    secrets: _Path = "/run/cfsbuild/secrets"
    allow_insecure: bool = False
    tpm: _Path | None = None
    enable_verity: bool = False
    exec: Annotated[tuple[_Word, ...], msgspec.Meta(min_length=1, max_length=1024)] = ("/sbin/init",)
    once: bool = False
    report: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9.]{0,64}\Z")] = ""
    on_failure: Literal["poweroff", "shell"] = "poweroff"


def encode(config: BootConfig) -> bytes:
    """Return the document: JSON, sorted keys, one line."""
    return msgspec.json.encode(config, order="sorted") + b"\n"


def decode(data: bytes) -> BootConfig:
    """Return the configuration that `data` holds. Raises `InputError` (reason `boot-config`)."""
    if len(data) > BOOT_CONFIG_BYTES:
        raise InputError(
            "boot configuration is too long",
            details=f"more than {BOOT_CONFIG_BYTES} bytes",
            reason="boot-config",
        )
    try:
        return msgspec.json.decode(data, type=BootConfig, strict=True)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("not a boot configuration", details=str(error), reason="boot-config") from error


def read(path: Path = BOOT_CONFIG) -> BootConfig:
    """Return the configuration in the file `path`. Raises `InputError` (reason `boot-config`)."""
    try:
        with path.open("rb") as file:
            data = file.read(BOOT_CONFIG_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"cannot read the boot configuration {path}: {error.strerror}", reason="boot-config"
        ) from error
    return decode(data)
