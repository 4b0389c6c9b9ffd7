"""Carry out a mount spec with the kernel, and undo it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cfsbuild.deploy import syscalls
from cfsbuild.deploy.attach import (
    MountError,
    attach,
    detach_until,
    mount_id,
    private_place,
    refused_to,
    words_of,
)
from cfsbuild.deploy.loop import loop_device
from cfsbuild.deploy.sequence import erofs_mount, overlay_mount, overlay_options
from cfsbuild.deploy.spec import MountSpec
from cfsbuild.erofs.format import COMPOSEFS_HEADER_VERSION, COMPOSEFS_MAGIC, FLAG_HAS_ACL
from cfsbuild.errors import InputError, VerificationError
from cfsbuild.fsverity import kernel


class Mounted(msgspec.Struct, frozen=True):
    """What came of a mount. `enforced`: the kernel checks metadata and every read of content by digest."""

    target: str
    enforced: bool
    why_not: str = ""


def mount(spec: MountSpec, target: Path) -> Mounted:
    """Mount `spec` at the existing directory `target`; needs CAP_SYS_ADMIN.

    Raises `VerificationError` if the image is not what `spec.digest` says, `InputError` if it is not a
    composefs image, `MountError` with the kernel's own words otherwise. Then, and when it is
    interrupted, nothing is mounted.
    """
    if not target.is_dir():
        raise MountError(f"{target} is not a directory", resolution=f"make it first: mkdir {target}")
    for directory in spec.objects:
        if not Path(directory).is_dir():
            raise MountError(f"object directory {directory} is missing")
    before = mount_id(target)
    fd = _open_image(spec)
    try:
        measured = check_image_digest(fd, spec)
        acl = _read_header(fd, spec.image)
        with _metadata_mount(fd, spec, acl=acl) as metadata:
            verity = _mount_overlay(spec, metadata, target)
        return _outcome(spec, target, verity=verity, measured=measured)
    except BaseException:
        detach_until(target, before)
        raise
    finally:
        os.close(fd)


def _outcome(spec: MountSpec, target: Path, *, verity: bool, measured: bool) -> Mounted:
    if not verity:
        reason = (
            "no verity was asked for" if spec.verity == "off" else "this kernel's overlay cannot check verity"
        )
        return Mounted(str(target), enforced=False, why_not=reason)
    if not measured:
        return Mounted(str(target), enforced=False, why_not="the image file itself has no fs-verity")
    if spec.upper:
        # Whoever can write there can put any file in the place of the image's.
        why_not = "nothing checks what is in the upper directory, which hides the image's files"
        return Mounted(str(target), enforced=False, why_not=why_not)
    return Mounted(str(target), enforced=True)


def unmount(target: Path, *, lazy: bool = False) -> None:
    """Unmount the composefs mount at `target`. Raises `MountError`."""
    try:
        syscalls.umount(str(target), syscalls.MNT_DETACH if lazy else 0)
    except OSError as error:
        hint = "something uses it still: see `fuser -vm`, or pass --lazy"
        raise refused_to(f"unmount {target}", error, busy=hint) from error


def best_verity(image: Path) -> tuple[bool, str]:
    """Say whether the kernel can enforce `image`, and if not, why."""
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        measurement = kernel.measure(fd)
    except kernel.VerityUnsupported as error:
        return False, error.brief
    finally:
        os.close(fd)
    if measurement is None:
        return False, "fs-verity is not enabled on the image file"
    return True, ""


def check_image_digest(fd: int, spec: MountSpec) -> bool:
    """Compare the image with `spec.digest`, if any, by the kernel's own measurement.

    Returns whether the file has fs-verity. Raises `VerificationError` with reason `image-no-verity` or
    `image-digest`.
    """
    try:
        measurement = kernel.measure(fd)
        absent = "fs-verity is not enabled on it" if measurement is None else ""
    except kernel.VerityUnsupported as error:
        measurement, absent = None, error.brief
    if not spec.digest:
        return measurement is not None
    if measurement is None:
        raise VerificationError(
            f"image {spec.image} has no fs-verity",
            details=f"its digest was to be {spec.digest}, but the kernel cannot vouch for it: {absent}",
            resolution="enable it with `cfsbuild store enable-verity` on a file system that has the feature",
            reason="image-no-verity",
        )
    if measurement.digest.hex() != spec.digest:
        raise VerificationError(
            f"image {spec.image} has the wrong fs-verity digest",
            details=f"expected {spec.digest}\nfound    {measurement.digest.hex()}",
            reason="image-digest",
        )
    return True


def _open_image(spec: MountSpec) -> int:
    try:
        return os.open(spec.image, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"cannot open image {spec.image}: {error.strerror}") from error


def _read_header(fd: int, name: str) -> bool:
    """Check the composefs header; returns whether the image has POSIX ACLs."""
    header = os.pread(fd, 32, 0)
    magic = int.from_bytes(header[0:4], "little")
    version = int.from_bytes(header[4:8], "little")
    if len(header) < 32 or magic != COMPOSEFS_MAGIC:
        raise InputError(f"{name} is not a composefs image", reason="magic")
    if version != COMPOSEFS_HEADER_VERSION:
        raise InputError(f"{name} has composefs header version {version}, only 1 is known", reason="version")
    return bool(int.from_bytes(header[8:12], "little") & FLAG_HAS_ACL)


@contextmanager
def _metadata_mount(fd: int, spec: MountSpec, *, acl: bool) -> Iterator[str]:
    """Mount the EROFS image at a private place for as long as the overlay needs its path."""
    with private_place("cfsbuild-mount-") as directory:
        try:
            _mount_erofs(fd, spec, directory, acl=acl)
        except OSError as error:
            raise refused_to(f"mount the metadata of {spec.image}", error) from error
        yield directory


def _mount_erofs(fd: int, spec: MountSpec, directory: str, *, acl: bool) -> None:
    try:
        attach(erofs_mount(f"/proc/self/fd/{fd}", acl=acl), directory, spec.idmap)
    except OSError as error:
        if error.errno != errno.ENOTBLK:
            raise
        with loop_device(fd) as device:
            attach(erofs_mount(device, acl=acl), directory, spec.idmap)


def _mount_overlay(spec: MountSpec, metadata: str, target: Path) -> bool:
    """Mount the overlay; returns whether it checks verity."""
    try:
        refused = attach(overlay_mount(spec, metadata), str(target), "")
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EINVAL}:
            raise refused_to(f"mount {spec.image}", error) from error
        return _mount_classic(spec, metadata, target, words_of(error))
    return spec.verity != "off" and "verity" not in refused


def _mount_classic(spec: MountSpec, metadata: str, target: Path, words: str) -> bool:
    wanted = {"off": (False,), "try": (True, False), "require": (True,)}[spec.verity]
    flags = syscalls.MS_RDONLY if spec.read_only else 0
    failure: OSError | None = None
    for data_only in (True, False):
        for verity in wanted:
            options = overlay_options(spec, metadata, data_only=data_only, verity=verity)
            try:
                syscalls.mount("composefs", str(target), "overlay", flags, options)
            except OSError as error:
                failure = error
                if error.errno != errno.EINVAL:
                    break
            else:
                return verity
    strerror = failure.strerror if failure else "no way to mount was left"
    raise MountError(f"cannot mount {spec.image}: {strerror}", details=words)
