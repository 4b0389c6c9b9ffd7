"""fs-verity for the files of a store: after this the kernel refuses to return a changed byte."""

from __future__ import annotations

import os

from cfsbuild.errors import VerificationError
from cfsbuild.fsverity import kernel
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store import layout
from cfsbuild.store.syscalls import open_file


def seal(directory_fd: int, name: str, digest: bytes, algorithm: Algorithm) -> None:
    """Enable fs-verity for a file, measure it, and compare with `digest`.

    Raises `VerityUnsupported`, `OSError`, or `VerificationError` when the kernel's digest differs.
    """
    fd = open_file(name, dir_fd=directory_fd)
    try:
        _enable(fd, algorithm)
        measured = kernel.measure(fd)
    finally:
        os.close(fd)
    if measured is None or measured.algorithm is not algorithm or measured.digest != digest:
        raise VerificationError(
            f"object {digest.hex()}: the kernel measures another digest",
            details=f"measured {measured.digest.hex() if measured else 'nothing'}",
            resolution="check the disk and the memory of this machine, then run cfsbuild store fsck",
            reason="object-digest",
        )


def _enable(fd: int, algorithm: Algorithm) -> None:
    """Enable fs-verity although the file is 0444: the kernel wants the right to write."""
    try:
        kernel.enable(fd, algorithm)
    except PermissionError:
        os.fchmod(fd, 0o644)
        try:
            kernel.enable(fd, algorithm)
        finally:
            os.fchmod(fd, 0o444)


def enable_meta(store_fd: int, algorithm: Algorithm) -> str:
    """Enable fs-verity for `meta.json`, which makes it a promise for every object of the store.

    Returns "" or, when there is no fs-verity to be had, why not. Raises `OSError`.
    """
    fd = open_file(layout.META, dir_fd=store_fd)
    try:
        _enable(fd, algorithm)
    except kernel.VerityUnsupported as error:
        return error.brief
    finally:
        os.close(fd)
    return ""


def promised(store_fd: int) -> tuple[bool, str]:
    """Say whether `meta.json` has fs-verity, and when not, why not. Raises `OSError`."""
    fd = open_file(layout.META, dir_fd=store_fd)
    try:
        if kernel.measure(fd) is not None:
            return True, ""
    except kernel.VerityUnsupported as error:
        return False, error.brief
    finally:
        os.close(fd)
    return False, "it was not enabled (cfsbuild store enable-verity does so)"


def measure(fd: int) -> kernel.Measurement | None:
    """Return what the kernel enforces for a file; None when nothing, for whatever reason.

    Raises `OSError`.
    """
    try:
        return kernel.measure(fd)
    except kernel.VerityUnsupported:
        return None
