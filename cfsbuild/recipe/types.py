"""Types of recipe values that mean more than a string; kinds annotate their parameters with them.

Each carries a JSON-schema `format`; `cfsbuild.recipe.formats` checks it when a recipe is loaded, so a kind's
functions can rely on what is promised here.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

FORMAT_TREE_PATH = "tree-path"
FORMAT_LOCAL_PATH = "local-path"
FORMAT_MODE = "mode"
FORMAT_OWNER = "owner"
FORMAT_GLOB = "glob"

TreePath = Annotated[
    str,
    msgspec.Meta(
        description="An absolute path inside the image.",
        examples=["/etc/hostname"],
        extra_json_schema={"format": FORMAT_TREE_PATH},
    ),
]
"""Absolute path inside the image: leading `/`, no `.` or `..` components, no NUL or newline, within limits.

Not normalised: repeated and trailing slashes may be there (`tree.paths.normalise` drops them).
"""

LocalPath = Annotated[
    str,
    msgspec.Meta(
        description="A path on this machine, relative to the recipe file that declares it.",
        examples=["../dist"],
        extra_json_schema={"format": FORMAT_LOCAL_PATH},
    ),
]
"""Path on the machine that builds; not empty, no NUL. `NodeSpec.resolve` makes it relative to its file."""

Mode = Annotated[
    str,
    msgspec.Meta(
        description="Permission bits in octal.",
        examples=["0755"],
        extra_json_schema={"format": FORMAT_MODE},
    ),
]
"""Permission bits as an octal string of 3 to 5 digits, at most 07777; `parse_mode` gives the number."""

Owner = Annotated[
    str | int,
    msgspec.Meta(
        description="A user or group: a name that an accounts node declares, or a number.",
        examples=["root", 990],
        extra_json_schema={"format": FORMAT_OWNER},
    ),
]
"""Name of a user or group, or its number (0 to 2^32 - 2)."""

Glob = Annotated[
    str,
    msgspec.Meta(
        description="A pattern for paths: `*` and `?` stay within a component, `**` spans components.",
        examples=["bin/*", "**/*.so"],
        extra_json_schema={"format": FORMAT_GLOB},
    ),
]
"""Pattern for paths; not empty, no NUL or newline, brackets closed."""


def parse_mode(text: str) -> int:
    """Return the permission bits that a `Mode` names (`"0755"` → 0o755).

    Raises `ValueError` if `text` is not 3 to 5 octal digits or exceeds 07777.
    """
    if not 3 <= len(text) <= 5 or any(digit not in "01234567" for digit in text):
        raise ValueError(f"{text!r} is not an octal mode such as 0755")
    mode = int(text, 8)
    if mode > 0o7777:
        raise ValueError(f"{text!r} has bits beyond 07777")
    return mode
