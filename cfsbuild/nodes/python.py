"""The kind `python`: the interpreter that runs cfsbuild, with the modules that a program needs and no others.

Modules are found by importing them, in a process of its own (docs/adr/0121). Those that are not of the
standard library go beside it, where the interpreter looks without `site`: run it with `-I -S`.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cfsbuild.errors import BuildError, Problem
from cfsbuild.nodes import python_closure
from cfsbuild.nodes.hostfiles import HostFiles, produce
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.nodes.libraries import Libraries
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.recipe.types import TreePath

_SECONDS = 120
_PYC_HASH = slice(8, 16)

_Module = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z")]
_Entry = Annotated[
    str,
    msgspec.Meta(pattern=r"\A[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z", examples=["package.cli:main"]),
]


class PythonParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The interpreter that runs cfsbuild, with the modules that a program needs."""

    modules: Annotated[
        list[_Module],
        msgspec.Meta(
            description="Modules to be importable, with all that they import when they are imported. Name "
            "those as well that they import later, in functions.",
            examples=[["json", "cfsbuild.cli.boot"]],
        ),
    ] = []
    scripts: Annotated[
        dict[TreePath, _Entry],
        msgspec.Meta(
            description="Executable files to write: path to MODULE:FUNCTION, which returns the exit status.",
            examples=[{"/init": "cfsbuild.cli.boot:main"}],
        ),
    ] = {}
    form: Annotated[
        Literal["pyc", "py"],
        msgspec.Meta(
            description="Modules as bytecode, or as source: slower to start, but tracebacks show lines."
        ),
    ] = "pyc"


class _Found(msgspec.Struct, frozen=True):
    """What the child tells of a module."""

    name: str
    file: str
    package: bool
    pyc: str = ""


def check(spec: NodeSpec) -> Iterator[Problem]:
    """Find modules that this interpreter does not have."""
    params: PythonParams = spec.params
    named = [(f"modules.{index}", name) for index, name in enumerate(params.modules)]
    named += [(f"scripts.{path}", entry.partition(":")[0]) for path, entry in params.scripts.items()]
    if not named:
        yield Problem(
            f"{spec.name}: names no module", resolution="give modules or scripts", origin=spec.origin
        )
    for key, name in named:
        if not _exists(name.partition(".")[0]):
            yield Problem(
                f"{spec.name}: there is no Python module {name}",
                details=f"searched by {sys.executable}",
                resolution="install it where cfsbuild is installed",
                origin=spec.origin_of(key),
            )


def _exists(name: str) -> bool:
    try:
        return name in sys.builtin_module_names or importlib.util.find_spec(name) is not None
    except ValueError:  # a module like __main__
        return False


def gather(context: NodeContext, params: PythonParams) -> Fingerprint:
    """Take in the interpreter and the modules; the layer's name is the fingerprint."""
    wanted = [*params.modules, *(entry.partition(":")[0] for entry in params.scripts.values())]
    library = Path(sysconfig.get_path("stdlib")).resolve()
    found = _import_all(context, list(dict.fromkeys(wanted)), library)
    roots = {_root(module) for module in found} - {library, library / "lib-dynload"}
    files = HostFiles(context, "modules", moved=dict.fromkeys(roots, str(library)))
    libraries = Libraries(files, context.observe)
    interpreter = libraries.take(Path(sys.executable).resolve())
    # The interpreter looks for these two to find its standard library.
    files.directory(str(library / "lib-dynload"))
    for module in found:
        if not module.pyc:
            libraries.take(Path(module.file))
            continue
        place, data, pyc = _module(context, module, library)
        files.put(f"{place}c" if params.form == "pyc" else place, pyc if params.form == "pyc" else data)
    for path, entry in params.scripts.items():
        files.put(path, _script(interpreter, entry), mode=0o755)
    return files.fingerprint("modules")


def _import_all(context: NodeContext, names: Sequence[str], library: Path) -> list[_Found]:
    """Return what is imported with `names`. Raises `BuildError` if one cannot be imported."""
    path = [entry for entry in sys.path if entry and Path(entry).exists()]
    # An editable package is found without its directory being searched.
    path += [root for root in map(_editable_root, names) if root and root not in path]
    child = [sys.executable, "-I", "-S", "-B", "-W", "ignore", python_closure.__file__]
    environment = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "PATH": os.defpath}
    try:
        # `os` marks the standard library for the interpreter, which has a frozen copy.
        done = subprocess.run(
            [*child, ":".join(dict.fromkeys(path)), str(library), "os", *names],
            check=False,
            capture_output=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_imported(context, str(error)) from error
    if done.returncode:
        raise _not_imported(context, done.stderr.decode(errors="replace").strip())
    try:
        return msgspec.json.decode(done.stdout, type=list[_Found])
    except msgspec.DecodeError as error:
        raise _not_imported(context, str(error)) from error


def _not_imported(context: NodeContext, details: str) -> BuildError:
    return BuildError(
        f"{context.spec.name}: cannot import the modules",
        details=details[-2000:],
        origin=context.spec.origin_of("modules"),
        reason="import",
    )


def _editable_root(name: str) -> str:
    """Return the directory that holds the top package of `name`, as a search path would name it."""
    spec = importlib.util.find_spec(name.partition(".")[0])
    if spec is None or not spec.has_location or not spec.origin:
        return ""
    origin = Path(spec.origin)
    return str(origin.parent.parent if spec.submodule_search_locations else origin.parent)


def _root(module: _Found) -> Path:
    """Return the directory of the search path in which a module lies, without links."""
    directory = Path(module.file).resolve().parent
    for _ in range(module.name.count(".") + module.package):
        directory = directory.parent
    return directory


def _module(context: NodeContext, module: _Found, library: Path) -> tuple[str, bytes, bytes]:
    """Return where a module's source goes, the source, and its bytecode."""
    source = Path(module.file)
    context.observe(source)
    try:
        data = source.read_bytes()
        pyc = base64.b64decode(module.pyc, validate=True)
    except (OSError, binascii.Error) as error:
        raise _not_imported(context, str(error)) from error
    if importlib.util.source_hash(data) != pyc[_PYC_HASH]:
        raise BuildError(f"{source} changed while it was read", reason="source-changed")
    place = python_closure.source_path({"name": module.name, "package": module.package})
    return str(library / place), data, pyc


def _script(interpreter: Path, entry: str) -> bytes:
    module, _, function = entry.partition(":")
    return f"#!{interpreter} -IS\nfrom {module} import {function}\nraise SystemExit({function}())\n".encode()


KIND = NodeKind(
    name="python",
    version=1,
    summary="The Python interpreter of the building machine, with the modules that a program needs.",
    params=PythonParams,
    produce=produce,
    gather=gather,
    check=check,
    static=False,
)
