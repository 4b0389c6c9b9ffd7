"""Options that `mount` and `shell` share, and the mount spec that they describe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from cfsbuild.cli.contents import first_of_each_object, object_directories, object_name
from cfsbuild.cli.images import Image, check_image_digest, objects_option, open_image
from cfsbuild.cli.settings import Settings
from cfsbuild.deploy.spec import MountSpec, Verity
from cfsbuild.errors import InputError, UsageError

Function = TypeVar("Function", bound=Callable[..., Any])

VERITY = ("off", "try", "require")


def mount_options(function: Function) -> Function:
    """Add --objects, --verity and --idmap."""
    for option in (
        click.option(
            "--idmap",
            metavar="FILE",
            default="",
            help="Map owners as in the user namespace FILE (/proc/PID/ns/user).",
        ),
        click.option(
            "--verity",
            type=click.Choice(VERITY),
            default="try",
            show_default=True,
            help="What the kernel must check: require fails where it cannot.",
        ),
        objects_option("Look for objects in DIR, before the store (may be repeated)."),
    ):
        function = option(function)
    return function


class Plan(msgspec.Struct, frozen=True):
    """What to mount; `not_enforced` says why the kernel is not asked to check contents, empty when it is."""

    image: Image
    spec: MountSpec
    not_enforced: str


def plan_mount(  # noqa: PLR0913 (what a mount is)
    settings: Settings,
    text: str,
    *,
    objects: tuple[Path, ...],
    verity: Verity,
    idmap: str,
    digest: str = "",
    upper: str = "",
    work: str = "",
) -> Plan:
    """Return how to mount the image that `text` means.

    With `verity` "try" the kernel is asked to check only if image and objects have fs-verity, since reading
    objects that lack it would fail. Raises `UsageError` if there is nowhere to take objects from,
    `VerificationError` if the image does not have the `digest` that is given.
    """
    image = open_image(settings, text)
    if image.kind == "dump":
        raise InputError(f"{text} is a dump", resolution="`cfsbuild import` makes an image of it")
    directories = tuple(dict.fromkeys(path.absolute() for path in object_directories(settings, objects)))
    if not directories:
        raise UsageError(
            f"there is no store at {settings.store_path} to take contents from",
            resolution="name the objects' directory with --objects, or the store with --store",
        )
    found = check_image_digest(image, digest)
    reason = "no verity was asked for" if verity == "off" else ""
    if verity == "try":
        reason = _why_no_verity(image, directories)
    spec = MountSpec(
        image=str(image.path.absolute()),
        objects=tuple(str(directory) for directory in directories),
        digest="" if reason else found,
        verity="off" if reason else "require",
        read_only=not upper,
        upper=upper,
        work=work,
        idmap=idmap,
    )
    return Plan(image, spec, reason)


def _why_no_verity(image: Image, directories: tuple[Path, ...]) -> str:
    """Return what lacks fs-verity: the image file, or one of the objects that it names."""
    from cfsbuild.deploy.mount import best_verity  # noqa: PLC0415 (help mounts nothing)

    able, reason = best_verity(image.path)
    if not able:
        return f"the image file: {reason}"
    for entry in first_of_each_object(image.listing()).values():
        name = object_name(entry.digest or b"")
        place = next((where / name for where in directories if (where / name).is_file()), None)
        if place is not None and not best_verity(place)[0]:
            return f"object {name} has no fs-verity"
    return ""
