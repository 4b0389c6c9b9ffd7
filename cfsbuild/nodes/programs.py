"""The kind `programs`: programs of the building machine, with all that they load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from cfsbuild.errors import BuildError, Problem
from cfsbuild.nodes.hostfiles import HostFiles, produce
from cfsbuild.nodes.hostroot import HostRoot
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.nodes.libraries import Libraries
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.recipe.types import LocalPath

SEARCHED = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

_Word = Annotated[str, msgspec.Meta(min_length=1, pattern=r"\A[^\0]*\Z")]
_Name = Annotated[str, msgspec.Meta(min_length=1, pattern=r"\A[^\0/]*\Z")]


class ProgramsParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Programs of this machine or of a system in a directory, with their libraries, at the same paths."""

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
    libraries: Annotated[
        list[_Name],
        msgspec.Meta(
            description="Libraries that the first of the programs loads while it runs, by the names that it "
            "uses; they come with those that they load.",
            examples=[["libtss2-esys.so.0"]],
        ),
    ] = []
    root: Annotated[
        LocalPath,
        msgspec.Meta(
            description="The root directory of the system whose programs, loader and libraries these are. "
            "Links in it never lead out of it.",
            examples=["/srv/chroots/sid"],
        ),
    ] = "/"


def check(spec: NodeSpec) -> Iterator[Problem]:
    """Find programs that are not on this machine, and links to what is not listed."""
    params: ProgramsParams = spec.params
    top = spec.resolve("root", params.root)
    if not top.is_dir():
        yield Problem(f"{spec.name}: {top} is not a directory", origin=spec.origin_of("root"))
        return
    root = HostRoot(top)
    for index, program in enumerate(params.programs):
        if _place(program, root) is None:
            yield Problem(
                f"{spec.name}: program {program} is not {_where(root)}",
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


def _place(program: str, root: HostRoot) -> Path | None:
    """Return where a program is in a system; None if it is nowhere."""
    places = [Path(program)] if program.startswith("/") else [Path(where, program) for where in SEARCHED]
    return next((place for place in places if root.is_file(place)), None)


def _where(root: HostRoot) -> str:
    return "on this machine" if root.top == Path("/") else f"in {root.top}"


def gather(context: NodeContext, params: ProgramsParams) -> Fingerprint:
    """Take in the programs and what they load; the layer's name is the fingerprint."""
    root = HostRoot(context.spec.resolve("root", params.root))
    files = HostFiles(context, "programs", root=root)
    libraries = Libraries(files, context.observe)
    for index, program in enumerate(params.programs):
        place = _place(program, root)
        if place is None:
            raise BuildError(
                f"program {program} is not {_where(root)}",
                origin=context.spec.origin_of(f"programs.{index}"),
                reason="program-missing",
            )
        real = libraries.take(place)
        for name in params.links.get(program, ()):
            files.link(str(real.parent / name), real.name)
        if index == 0:
            for library in params.libraries:
                libraries.take_named(library, place)
    return files.fingerprint("files")


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
