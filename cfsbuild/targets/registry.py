"""Every target kind by its name; a kind's module is imported when the kind is asked for."""

from __future__ import annotations

from collections.abc import Mapping

from cfsbuild.recipe.kinds import LazyKinds
from cfsbuild.targets.kind import TargetKind

MODULES = {
    "image": "cfsbuild.targets.image",
    "bundle": "cfsbuild.targets.bundle",
    "initramfs": "cfsbuild.targets.initramfs",
}

TARGET_KINDS: Mapping[str, TargetKind] = LazyKinds(MODULES)
