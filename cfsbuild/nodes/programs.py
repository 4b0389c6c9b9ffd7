"""The kind `programs`: programs of the building machine, with all that they load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from cfsbuild.errors import BuildError, Problem
from cfsbuild.nodes.hostfiles import HostFiles
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.nodes.libraries import Libraries
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.tree.layer import Layer, document_digest, encode_layer

SEARCHED = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

_Word = Annotated[str, msgspec.Meta(min_length=1, pattern=r"\A[^\0]*\Z")]
_Name = Annotated[str, msgspec.Meta(min_length=1, pattern=r"\A[^\0/]*\Z")]


class ProgramsParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Programs of the building machine, with their shared libraries, at the same paths."""

    programs: Annotated[
        list[_Word],
        msgspec.Meta(
            description="Names, looked for in the usual directories, or absolute paths: programs, scripts, "
            "and libraries that a program loads while it runs.",
            examples=[["busybox", "/usr/sbin/mkfs.ext4"]],
            min_length=1,
        ),
    ]
    links: Annotated[
        dict[_Word, list[_Name]],
        msgspec.Meta(
            description="More names for a program of the list: symbolic links beside it.",
            examples=[{"busybox": ["sh", "cat"]}],
        ),
    ] = {}


def check(spec: NodeSpec) -> Iterator[Problem]:
    """Find programs that are not on this machine, and links to what is not listed."""
    params: ProgramsParams = spec.params
    for index, program in enumerate(params.programs):
        if _place(program) is None:
            yield Problem(
                f"{spec.name}: program {program} is not on this machine",
                details="" if program.startswith("/") else "searched: " + " ".join(SEARCHED),
                resolution="install the package that has it",
                origin=spec.origin_of(f"programs.{index}"),
            )
    for program in params.links:
        if program not in params.programs:
            yield Problem(
                f"{spec.name}: links to {program}, which is not among the programs",
                resolution="add it to programs",
                origin=spec.origin_of(f"links.{program}"),
            )


def _place(program: str) -> Path | None:
    """Return where a program is; None if it is nowhere."""
    places = [Path(program)] if program.startswith("/") else [Path(where, program) for where in SEARCHED]
    return next((place for place in places if place.is_file()), None)


def gather(context: NodeContext, params: ProgramsParams) -> Fingerprint:
    """Take in the programs and what they load; the layer's name is the fingerprint."""
    files = HostFiles(context, "programs")
    libraries = Libraries(files, context.observe)
    for index, program in enumerate(params.programs):
        place = _place(program)
        if place is None:
            raise BuildError(
                f"program {program} is not on this machine",
                origin=context.spec.origin_of(f"programs.{index}"),
                reason="program-missing",
            )
        real = libraries.take(place)
        for name in params.links.get(program, ()):
            files.link(str(real.parent / name), real.name)
    layer = files.layer()
    return Fingerprint(digests={"files": document_digest(encode_layer(layer))}, payload=layer)


def produce(context: NodeContext, params: ProgramsParams, fingerprint: Fingerprint) -> Layer:
    """Return the layer, which `gather` has made already."""
    del context, params
    layer: Layer = fingerprint.payload
    return layer


KIND = NodeKind(
    name="programs",
    version=1,
    summary="Programs of the building machine, with the libraries that they load.",
    params=ProgramsParams,
    produce=produce,
    gather=gather,
    check=check,
    static=False,
)
