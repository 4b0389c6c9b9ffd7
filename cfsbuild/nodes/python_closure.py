"""Runs in an interpreter of its own: imports modules, and tells which ones that took, with their bytecode.

Arguments: the search path (joined by `:`), the directory of the standard library in the tree, and the names
of the modules to import. Writes a JSON array to standard output; what modules print while they are imported
goes to standard error.
"""

import posix
import sys

Described = dict[str, str | bool]


def load(path: list[str], names: list[str]) -> dict[str, object]:
    """Import `names` from `path`; return every module that is loaded then."""
    sys.path[:] = path
    for name in names:
        __import__(name)
    return dict(sys.modules)


def describe(name: str, module: object) -> Described | None:
    """Return name, file and whether it is a package; None for what has no file.

    Some modules put something of their own into their place, which has no spec.
    """
    spec = getattr(module, "__spec__", None)
    file = getattr(module, "__file__", None)
    if name == "__main__" or not file:
        return None
    return {"name": spec.name if spec else name, "file": file, "package": hasattr(module, "__path__")}


def bytecode(source: bytes, file: str) -> bytes:
    """Return a .pyc whose source is never looked at (PEP 552), equal in every process.

    Version 2 of marshal has no references, which would depend on what else the process holds.
    """
    import importlib.util  # noqa: PLC0415 (what is imported before is counted)
    import marshal  # noqa: PLC0415

    code = compile(source, file, "exec", dont_inherit=True, optimize=0)
    flags = (1).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(source) + marshal.dumps(code, 2)


def main(path: str, library: str, *names: str) -> None:
    """Write the document."""
    output = posix.dup(1)
    posix.dup2(2, 1)
    found = load(path.split(":"), list(names))
    import base64  # noqa: PLC0415 (as above)
    import json  # noqa: PLC0415

    modules = {}
    for name, module in found.items():
        described = describe(name, module)
        if described is None:
            continue
        file = str(described["file"])
        if file.endswith(".py"):
            with open(file, "rb") as stream:  # noqa: PTH123 (pathlib would be counted)
                source = stream.read()
            place = f"{library}/{source_path(described)}"
            described["pyc"] = base64.b64encode(bytecode(source, place)).decode()
        modules[str(described["name"])] = described
    with open(output, "w", encoding="ascii") as stream:  # noqa: PTH123
        json.dump([modules[name] for name in sorted(modules)], stream)


def source_path(described: Described) -> str:
    """Return where the source of a module belongs, relative to a directory of the search path."""
    name = str(described["name"]).replace(".", "/")
    return f"{name}/__init__.py" if described["package"] else f"{name}.py"


if __name__ == "__main__":
    main(*sys.argv[1:])
