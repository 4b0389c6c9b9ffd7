"""The kind `kernel-modules`: modules of a kernel and those they need, and the order to load them in.

Source: modules.dep(5), kernel/Documentation/kbuild (modules.builtin).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from cfsbuild.errors import BuildError, InputError, Problem
from cfsbuild.nodes.decompress import decompressed, detect
from cfsbuild.nodes.hostfiles import HostFiles, produce
from cfsbuild.nodes.kind import Fingerprint, NodeContext, NodeKind
from cfsbuild.recipe.model import NodeSpec
from cfsbuild.recipe.types import LocalPath, TreePath

_CHUNK = 1 << 20
_MODULE_BYTES = 1 << 28
_SUFFIXES = (".xz", ".zst", ".gz")


class KernelModulesParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Modules of a kernel, decompressed, with those that they need."""

    directory: Annotated[
        LocalPath,
        msgspec.Meta(description="Where the kernel's modules are on this machine: it has modules.dep."),
    ]
    names: Annotated[
        list[Annotated[str, msgspec.Meta(pattern=r"\A[\w-]+\Z")]],
        msgspec.Meta(
            description="Modules, without `.ko`; `-` and `_` are the same. What is built into the kernel may "
            "be named too.",
            examples=[["virtio_blk", "erofs", "overlay"]],
        ),
    ]
    target: Annotated[TreePath, msgspec.Meta(description="Where the modules go.")] = "/usr/lib/modules"
    order: Annotated[
        TreePath,
        msgspec.Meta(description="The file that lists them, one path a line, each after those it needs."),
    ] = "/etc/cfsbuild/modules"


def check(spec: NodeSpec) -> Iterator[Problem]:
    """Find a directory without modules."""
    params: KernelModulesParams = spec.params
    directory = spec.resolve("directory", params.directory)
    if not (directory / "modules.dep").is_file():
        yield Problem(
            f"{spec.name}: {directory} has no modules.dep",
            resolution="name the directory of one kernel, such as /lib/modules/VERSION, and run depmod",
            origin=spec.origin_of("directory"),
        )


def gather(context: NodeContext, params: KernelModulesParams) -> Fingerprint:
    """Take in the modules; the layer's name is the fingerprint."""
    directory = context.spec.resolve("directory", params.directory).absolute()
    files = HostFiles(context, "directory")
    lines = []
    for path in _in_order(context, directory, params.names):
        name = next((path.removesuffix(end) for end in _SUFFIXES if path.endswith(end)), path)
        place = f"{params.target.rstrip('/')}/{name}"
        files.put(place, _module(context, directory / path))
        lines.append(place)
    files.put(params.order, "".join(f"{line}\n" for line in lines).encode())
    return files.fingerprint("modules")


def _in_order(context: NodeContext, directory: Path, names: list[str]) -> list[str]:
    """Return the files of `names` and of all that they need, relative to `directory`, in loading order.

    What modules.dep lists last has to be loaded first.
    """
    needs = {}
    for line in _lines(context, directory / "modules.dep"):
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {_name(path): path for path in needs}
    built_in = {_name(line) for line in _lines(context, directory / "modules.builtin", missing_ok=True)}
    todo = []
    for index, wanted in enumerate(names):
        name = wanted.replace("-", "_")
        if name in by_name:
            todo.append(by_name[name])
        elif name not in built_in:
            raise BuildError(
                f"{context.spec.name}: the kernel of {directory} has no module {wanted}",
                origin=context.spec.origin_of(f"names.{index}"),
                reason="module-missing",
            )
    return _with_needs(context, needs, todo)


def _with_needs(context: NodeContext, needs: dict[str, list[str]], todo: list[str]) -> list[str]:
    order: dict[str, None] = {}
    waiting: list[str] = []
    stack = [(path, False) for path in reversed(todo)]
    while stack:
        path, complete = stack.pop()
        if complete:
            order[waiting.pop()] = None
        elif path in waiting or path not in needs or path.startswith("/") or ".." in path.split("/"):
            raise BuildError(
                f"{context.spec.name}: modules.dep makes no sense at {path}",
                resolution="run depmod",
                origin=context.spec.origin_of("directory"),
                reason="modules-dep",
            )
        elif path not in order:
            waiting.append(path)
            stack.append((path, True))
            stack.extend((need, False) for need in needs[path] if need not in order)
    return list(order)


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0].strip().replace("-", "_")


def _lines(context: NodeContext, path: Path, *, missing_ok: bool = False) -> list[str]:
    context.observe(path)
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        if missing_ok and isinstance(error, FileNotFoundError):
            return []
        raise _unreadable(context, path, str(error.strerror)) from error


def _module(context: NodeContext, path: Path) -> bytes:
    """Return the content of a module, decompressed."""
    context.observe(path)
    try:
        data = path.read_bytes()
        read = decompressed(io.BytesIO(data).read, detect(data))
        parts = []
        while part := read(_CHUNK):
            parts.append(part)
            if sum(map(len, parts)) > _MODULE_BYTES:
                raise _unreadable(context, path, f"more than {_MODULE_BYTES} bytes")
    except OSError as error:
        raise _unreadable(context, path, str(error.strerror)) from error
    except InputError as error:
        raise _unreadable(context, path, error.brief) from error
    return b"".join(parts)


def _unreadable(context: NodeContext, path: Path, why: str) -> BuildError:
    return BuildError(
        f"cannot read {path}: {why}", origin=context.spec.origin_of("directory"), reason="source"
    )


KIND = NodeKind(
    name="kernel-modules",
    version=1,
    summary="Modules of a kernel and those that they need, and the order to load them in.",
    params=KernelModulesParams,
    produce=produce,
    gather=gather,
    check=check,
    static=False,
)
