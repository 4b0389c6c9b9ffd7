"""Every node kind by its name; a kind's module is imported when the kind is asked for."""

from __future__ import annotations

from collections.abc import Mapping

from cfsbuild.nodes.kind import NodeKind
from cfsbuild.recipe.kinds import LazyKinds

MODULES = {
    "file": "cfsbuild.nodes.file",
    "dir": "cfsbuild.nodes.dir",
    "symlink": "cfsbuild.nodes.symlink",
    "device": "cfsbuild.nodes.device",
    "tree": "cfsbuild.nodes.tree",
    "archive": "cfsbuild.nodes.archive",
    "accounts": "cfsbuild.nodes.accounts",
    "attributes": "cfsbuild.nodes.attributes",
    "remove": "cfsbuild.nodes.remove",
    "image": "cfsbuild.nodes.image",
    "programs": "cfsbuild.nodes.programs",
    "python": "cfsbuild.nodes.python",
    "kernel-modules": "cfsbuild.nodes.kernel_modules",
}

NODE_KINDS: Mapping[str, NodeKind] = LazyKinds(MODULES)
