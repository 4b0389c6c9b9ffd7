"""The keys of a recipe that belong to no node or target kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cfsbuild.recipe.types import Glob

EPOCH_MAX = 253_402_300_799
"""31 December 9999, the last second that every tool can print."""

Epoch = Annotated[
    int,
    Meta(
        ge=0,
        le=EPOCH_MAX,
        description="Seconds since 1970; no time in the image is later. If absent: SOURCE_DATE_EPOCH, or 0.",
        examples=[1767225600],
    ),
]


class ImageTable(msgspec.Struct, frozen=True, kw_only=True):
    """What the image is called, and how it is written."""

    name: Annotated[
        str, Meta(description="Name of the image; part of file names and refs.", examples=["edge-gateway"])
    ]
    version: Annotated[
        str, Meta(description="Version of the image; part of file names and refs.", examples=["2026.11"])
    ] = ""
    epoch: Epoch | None = None
    digest: Annotated[
        Literal["sha256", "sha512"],
        Meta(description="fs-verity digest algorithm of objects and image; the store must have the same."),
    ] = "sha256"
    format: Annotated[Literal[0, 1], Meta(description="Version of the composefs image format.")] = 1


class NodeTable(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that every node has, whatever its kind."""

    kind: Annotated[
        str, Meta(description="What the node does; decides which other keys it has.", examples=["file"])
    ]
    needs: Annotated[
        tuple[str, ...],
        Meta(description="Nodes that come before this one.", examples=[["base"]]),
    ] = ()
    replaces: Annotated[
        tuple[Glob, ...],
        Meta(
            description="Paths of nodes that it needs, which this node may replace; any other difference "
            "between two nodes is an error.",
            examples=[["/etc/motd"]],
        ),
    ] = ()


class TargetTable(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that every target has, whatever its kind."""

    kind: Annotated[str, Meta(description="What comes out; the target's own name if it is not written.")] = ""


class ProfileTable(msgspec.Struct, frozen=True, kw_only=True):
    """Variables that replace those of `[vars]` when the profile is chosen with `--profile`."""

    vars: Annotated[dict[str, Any], Meta(description="Variables of this profile.")] = {}


SECTIONS = {
    "include": "Recipe files that this one is merged over, depth-first and in order; relative to this file.",
    "image": "What the image is called, and how it is written.",
    "vars": "Variables for `{{ NAME }}` in strings. They may refer to each other.",
    "profiles": "Sets of variables, chosen on the command line with `--profile NAME`.",
    "matrix": "Variables with several values: one image for each combination.",
    "nodes": "What goes into the image.",
    "targets": "What comes out. `[targets.image]`, the composefs image, exists even when it is not written.",
}
"""Top-level keys, and what they are for."""
