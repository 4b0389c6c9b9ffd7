"""What the running kernel can do of what a mount bundle asks of it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path

from cfsbuild.deploy import syscalls
from cfsbuild.errors import VerificationError

_DATA_ONLY = (6, 5)
_VERITY_SIGNS = ("/proc/sys/fs/verity", "/sys/fs/ext4/features/verity", "/sys/fs/f2fs/features/verity")
_NEEDED = {
    "fs-verity": "a kernel with CONFIG_FS_VERITY",
    "overlay-data-only": "Linux 6.5",
    "overlay-verity": "Linux 6.6",
}


def check_kernel(features: Iterable[str]) -> None:
    """Raise `VerificationError` (reason `kernel-feature`) if the kernel lacks one; needs CAP_SYS_ADMIN."""
    absent = [feature for feature in features if not has_feature(feature)]
    if absent:
        raise VerificationError(
            f"this kernel lacks {', '.join(absent)}",
            details="without that, what is read of this image is not checked: whoever can write to the "
            "disk can change every file unseen",
            resolution="; ".join(f"{name}: {_NEEDED[name]}" for name in absent)
            + "; --allow-insecure mounts it all the same",
            reason="kernel-feature",
        )


def has_feature(name: str) -> bool:
    """Say whether the kernel has a feature of `_NEEDED`; asks the kernel itself where that is possible."""
    if name == "fs-verity":
        return any(Path(sign).exists() for sign in _VERITY_SIGNS)
    if name == "overlay-verity":
        return _overlay_knows("verity", "require")
    return _release() >= _DATA_ONLY


def _overlay_knows(key: str, value: str) -> bool:
    try:
        fd = syscalls.fsopen("overlay")
    except OSError as error:
        # Who may not ask may not mount either, and is told so.
        return error.errno == errno.EPERM
    try:
        syscalls.fsconfig_string(fd, key, value)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _release() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
