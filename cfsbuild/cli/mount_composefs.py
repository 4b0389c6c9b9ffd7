"""The front end `mount.composefs`: the C tool's options, messages and exit codes (docs/compat.md)."""

from __future__ import annotations

import errno
import getopt
import os
import sys
from pathlib import Path

from cfsbuild.cli.refusal import RefusalError
from cfsbuild.deploy.attach import MountError
from cfsbuild.deploy.mount import mount
from cfsbuild.deploy.spec import MountSpec, Verity
from cfsbuild.errors import CfsError, InputError, UsageError, VerificationError

USAGE = """\
usage: {program} [-t type] [-o opt[,opts..]] IMAGE MOUNTPOINT
Example:
  {program} -o basedir=/composefs/objects exampleimage.cfs /mnt/exampleimage
or, as a mount helper:
  mount -t composefs -o basedir=/composefs/objects exampleimage.cfs /mnt/exampleimage

Supported options:
  basedir=PATH[:PATH]    Specify location of basedir(s)
  digest=DIGEST          Specify required image digest
  idmap=PATH             Specify path to a user namespace whose ID mapping should be used
  verity                 Require all files to have specified and valid fs-verity digests
  tryverity              If supported by kernel, require fs-verity
  ro                     Read only
  rw                     Read/write
  upperdir               Overlayfs upperdir
  workdir                Overlayfs workdir
"""

_WITH_VALUE = frozenset({"basedir", "digest", "upperdir", "workdir", "idmap"})
_FLAGS = frozenset({"verity", "tryverity", "ro", "rw"})


def main(argv: list[str], program_name: str) -> int:
    """Run `mount.composefs` with the arguments `argv`; returns the exit status, 0 or 1."""
    try:
        return _run(argv, program_name)
    except RefusalError as refusal:
        if refusal.usage:
            print(refusal, file=sys.stderr)  # noqa: T201 (this is the terminal's edge)
            sys.stderr.write(USAGE.format(program=program_name))
        else:
            print(f"{program_name}: {refusal}", file=sys.stderr)  # noqa: T201
        return 1


def _run(argv: list[str], program_name: str) -> int:
    try:
        options, operands = getopt.gnu_getopt(argv, "ht:o:")
    except getopt.GetoptError as error:
        sys.stderr.write(f"{program_name}: {error.msg}\n{USAGE.format(program=program_name)}")
        return 1
    text = ""
    for option, value in options:
        if option == "-h":
            sys.stderr.write(USAGE.format(program=program_name))
            return 0
        if option == "-t" and value != "composefs":
            raise RefusalError(f"Unsupported fs type '{value}'")
        if option == "-o":
            text = value if not text else f"{text},{value}"
    if not operands:
        raise RefusalError("No source path specified", usage=True)
    if len(operands) == 1:
        raise RefusalError("No mount path specified", usage=True)
    given = parse_options(text) if any(option == "-o" for option, _ in options) else {}
    _mount(operands[0], operands[1], given)
    return 0


def parse_options(text: str) -> dict[str, str]:
    r"""Split `text` at commas (`\,` is a comma inside a value); a later option replaces an earlier one."""
    result = {}
    for item in _split(text):
        key, equals, value = item.partition("=")
        if key in _WITH_VALUE:
            if not equals:
                raise RefusalError(f"No value specified for {key} option")
            result[key] = value
        elif key in _FLAGS and not equals:
            result[key] = ""
        else:
            raise RefusalError(f"Unsupported option {item}")
    return result


def _split(text: str) -> list[str]:
    items = [""]
    position = 0
    while position < len(text):
        char = text[position]
        if char == "\\" and position + 1 < len(text):
            position += 1
            items[-1] += text[position] if text[position] == "," else "\\" + text[position]
        elif char == ",":
            items.append("")
        else:
            items[-1] += char
        position += 1
    return items


def _mount(image: str, target: str, given: dict[str, str]) -> None:
    if "basedir" not in given:
        raise RefusalError("No object dirs specified", usage=True)
    objects = [directory for directory in given["basedir"].split(":") if directory]
    if not objects:
        raise RefusalError("Value for basedir option has incorrect format")
    if ("upperdir" in given) != ("workdir" in given):
        raise RefusalError("Both workdir and upperdir must be specified if used")
    _check_readable("Failed to open userns", given.get("idmap"))
    _check_readable("Failed to open", image)
    verity: Verity = "off"
    if "verity" in given or "digest" in given:
        verity = "require"
    elif "tryverity" in given:
        verity = "try"
    try:
        spec = MountSpec(
            image=image,
            objects=tuple(objects),
            digest=given.get("digest", "").lower(),
            verity=verity,
            read_only="ro" in given,
            upper=given.get("upperdir", ""),
            work=given.get("workdir", ""),
            idmap=given.get("idmap", ""),
        )
        mount(spec, Path(target))
    except CfsError as error:
        raise RefusalError(f"Failed to mount composefs {image}: {_in_words_of_the_c_tool(error)}") from error


def _check_readable(what: str, path: str | None) -> None:
    if path is None:
        return
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise RefusalError(f"{what} {path}: {error.strerror}") from error


def _in_words_of_the_c_tool(error: CfsError) -> str:
    if isinstance(error, VerificationError):
        no_verity = error.reason == "image-no-verity"
        return "Image has no fs-verity" if no_verity else "Image has wrong fs-verity"
    if isinstance(error, InputError | UsageError):
        return os.strerror(errno.EINVAL)
    if isinstance(error, MountError) and isinstance(error.__cause__, OSError):
        return error.__cause__.strerror or str(error.__cause__)
    return error.brief
