"""What a mount bundle says, for programs that do not read bundles.

None of these is signed: whoever uses them must have got them from somewhere trusted, such as a signed UKI.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

import msgspec

from cfsbuild.deploy.bundle_spec import declared_spec
from cfsbuild.deploy.sequence import FilesystemMount, erofs_mount, overlay_mount, overlay_options
from cfsbuild.deploy.spec import MountSpec
from cfsbuild.trust import pcrlock
from cfsbuild.trust.bundle import Bundle
from cfsbuild.trust.statement import digest_hex

METADATA = "/run/cfsbuild/metadata"
"""Where the commands of a mount spec put the metadata image while they need its path."""


class Place(msgspec.Struct, frozen=True):
    """Where a machine has things: `base` holds objects and state, the image is mounted at `where`."""

    base: str
    where: str


def render(bundle: Bundle, place: Place, wanted: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the suffix and the text of each file; a kernel argument only for format 1 (others have none)."""
    for name in dict.fromkeys(wanted):
        suffix, make = RENDERINGS[name]
        text = make(bundle, place)
        if text:
            yield suffix, text


def kernel_argument(bundle: Bundle, place: Place) -> str:
    """Return the argument by which bootc and composefs-rs find an image."""
    del place
    algorithm = bundle.image.digest.partition(":")[0].removeprefix("fsverity-")
    if bundle.image.format != "erofs.v1":
        return ""
    optional = "" if bundle.verity == "require" else "?"
    return f"composefs.digest={optional}v1-{algorithm}:{digest_hex(bundle.image)}\n"


def mount_spec(bundle: Bundle, place: Place) -> MountSpec:
    """Return the mount with absolute paths."""
    return declared_spec(bundle, PurePosixPath(place.base))


def mount_document(bundle: Bundle, place: Place) -> str:
    """Return the mount spec, the system calls that carry it out, and the commands that do the same."""
    spec = mount_spec(bundle, place)
    document = {
        "version": 1,
        "where": place.where,
        "spec": msgspec.to_builtins(spec),
        "calls": [
            *_calls(erofs_mount(spec.image, acl=True), METADATA),
            *_calls(overlay_mount(spec, METADATA), place.where),
            {"call": "umount2", "path": METADATA, "flags": ["MNT_DETACH"]},
        ],
        "commands": _commands(spec, place),
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _calls(what: FilesystemMount, where: str) -> Iterator[Mapping[str, Any]]:
    yield {"call": "fsopen", "filesystem": what.filesystem, "flags": ["FSOPEN_CLOEXEC"]}
    for setting in what.settings:
        command = "FSCONFIG_SET_FLAG" if setting.value is None else "FSCONFIG_SET_STRING"
        call = {"call": "fsconfig", "command": command, "key": setting.key, "value": setting.value}
        yield {**call, "optional": setting.optional}
    yield {"call": "fsconfig", "command": "FSCONFIG_CMD_CREATE"}
    attributes = ["MOUNT_ATTR_RDONLY"] if what.read_only else []
    yield {"call": "fsmount", "flags": ["FSMOUNT_CLOEXEC"], "attributes": attributes}
    yield {"call": "move_mount", "path": where, "flags": ["MOVE_MOUNT_F_EMPTY_PATH"]}


def _commands(spec: MountSpec, place: Place) -> list[list[str]]:
    """Return the commands; what `fsverity measure` prints has to be compared with the spec's digest."""
    options = overlay_options(spec, METADATA, data_only=True, verity=spec.verity == "require")
    access = "ro" if spec.read_only else "rw"
    commands = [
        ["mkdir", "-p", METADATA, place.where],
        ["mount", "-t", "erofs", "-o", "ro,loop", spec.image, METADATA],
        ["mount", "-t", "overlay", "-o", f"{access},{options}", "composefs", place.where],
        ["umount", "-l", METADATA],
    ]
    return [["fsverity", "measure", spec.image], *commands] if spec.digest else commands


def systemd_unit(bundle: Bundle, place: Place) -> str:
    """Return a mount unit that mounts by `mount.composefs`, with the digest in it."""
    return _template("bundle.mount.j2", bundle, place)


def initramfs_hook(bundle: Bundle, place: Place) -> str:
    """Return a hook for initramfs-tools, which puts a boot script into the initramfs."""
    return _template("bundle.initramfs-hook.j2", bundle, place)


def _template(name: str, bundle: Bundle, place: Place) -> str:
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 (start-up)

    text = files("cfsbuild.templates").joinpath(name).read_text(encoding="utf-8")
    spec = mount_spec(bundle, place)
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701 (no HTML)
    return environment.from_string(text).render(
        bundle=bundle,
        spec=spec,
        place=place,
        digest=digest_hex(bundle.image),
        unit=unit_name(place.where),
        options=",".join(_helper_options(spec)),
    )


def _helper_options(spec: MountSpec) -> Iterator[str]:
    """Yield the options of `mount.composefs`."""
    yield "ro" if spec.read_only else "rw"
    yield "basedir=" + ":".join(spec.objects)
    if spec.digest:
        yield f"digest={spec.digest}"
    if spec.verity != "off":
        yield "verity" if spec.verity == "require" else "tryverity"
    if spec.upper:
        yield f"upperdir={spec.upper}"
        yield f"workdir={spec.work}"


def unit_name(path: str) -> str:
    """Return the name that systemd asks of the unit that mounts at `path` (systemd.unit(5), "escaping")."""
    parts = [part for part in path.split("/") if part]
    if not parts:
        return "-.mount"
    text = "/".join(parts)
    escaped = "".join(_escaped(char, first=not index) for index, char in enumerate(text))
    return f"{escaped}.mount"


def _escaped(char: str, *, first: bool) -> str:
    if char == "/":
        return "-"
    if (char.isascii() and char.isalnum()) or char in ":_" or (char == "." and not first):
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode())


def pcrlock_component(bundle: Bundle, place: Place) -> str:
    """Return a component for systemd-pcrlock: what PCR 15 is extended by when the bundle is mounted."""
    del place
    return pcrlock.component(bundle.name, bundle.image.digest).decode()


Render = Callable[[Bundle, Place], str]

RENDERINGS: Mapping[str, tuple[str, Render]] = {
    "pcrlock": ("pcrlock", pcrlock_component),
    "cmdline": ("cmdline", kernel_argument),
    "mount-spec": ("mount.json", mount_document),
    "systemd": ("mount", systemd_unit),
    "initramfs-tools": ("initramfs-hook", initramfs_hook),
}
